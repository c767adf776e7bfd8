"""What holds for every test."""

from __future__ import annotations

import signal

# A job that a script starts in the background is born ignoring Ctrl-C, and so are its children. Tests that press Ctrl-C mean a
# terminal, where it is heeded: a handler of our own here is the default action in whatever a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
