"""`python -m gpuqueue`: what the image runs; the same as `gpuq`."""

import sys

from gpuqueue.commands.cli import main

sys.exit(main())
