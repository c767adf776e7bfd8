"""Waits until a `tensorflow_model_server` answers for all its models, then tells where it listens and writes the ready file.

Started beside that server by `millrace serve`, because the server itself tells nobody. Ends when the server is ready or gone.

    python -m mlserving.server.await_ready PID GRPC REST READY_FILE|- MODEL…
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from mlserving.client.ask import connect
from mlserving.client.signature import ModelSpec
from mlserving.errors import ServingError
from mlserving.server.local_server import Ready
from mlserving.server.ready_file import write_ready_file
from mlserving.server.serve_command import announce

_PAUSE = 0.5


def main(arguments: list[str]) -> int:
    """Ask until each model is AVAILABLE. Returns 1 when the server went away first."""
    pid, grpc, rest, ready_file, *models = arguments
    while _alive(int(pid)):
        versions = {model: _available(rest, model) for model in models}
        if all(versions.values()):
            if ready_file != "-":
                write_ready_file(Path(ready_file), grpc, rest, int(pid))
            announce(Ready(grpc=grpc, rest=rest, models=versions))
            return 0
        time.sleep(_PAUSE)
    return 1


def _available(address: str, model: str) -> list[int]:
    try:
        with connect(address, grpc=False, timeout=5) as client:
            states = client.status(ModelSpec(name=model))
    except ServingError:
        return []
    return sorted(state.version for state in states if state.state == "AVAILABLE")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return os.getppid() == pid  # a process id may be used again; our parent's cannot be while it is our parent


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
