"""`python -m gpuqueue.webhook`: what the chart runs where the API server cannot set the gate itself."""

import sys

from gpuqueue.webhook.main import main

sys.exit(main())
