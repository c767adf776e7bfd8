"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# A job that a script starts in the background is born ignoring Ctrl-C, and so are its children. Tests that press Ctrl-C mean a
# terminal, where it is heeded: a handler of our own here is the default action in whatever a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine a property takes longer, which is no failure of the code.
settings.register_profile("millrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("millrace")
