"""The way to a server inside the cluster, for whoever administers it: kubectl's port-forward, for as long as it is needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlplatform.cluster.programs import Programs, complaint

_LISTENS = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")
_SECONDS = 30.0


@contextmanager
def forwarded(programs: Programs, namespace: str, service: str, port: int) -> Iterator[str]:
    """The address on this machine that leads to a Service's pod.

    Raises:
        Unavailable: there is no such pod, or it cannot be reached.
    """
    arguments = ["port-forward", "--namespace", namespace, "--address", "127.0.0.1", f"service/{service}", f":{port}"]
    with tempfile.TemporaryFile("w+") as errors, programs.started(*arguments, errors=errors) as process:
        try:
            line = _first_line(process)
            found = _LISTENS.search(line)
            if found is None:
                process.terminate()
                process.wait()
                errors.seek(0)
                raise complaint("kubectl", arguments, errors.read() or line or f"it did not listen within {_SECONDS:.0f} s")
            yield f"http://{found[1]}"
        finally:
            process.terminate()


def _first_line(process: subprocess.Popen[str]) -> str:
    """What it says first, or nothing if it ends or is silent for too long."""
    said: list[str] = []

    def listen() -> None:
        if process.stdout is None:
            raise AssertionError(process.args)
        said.append(process.stdout.readline())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    listener.join(_SECONDS)
    return said[0] if said else ""
