"""Real programs that a test starts: they die with it, and are waited for until they answer."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

START_SECONDS = 60


class NotReady(Exception):
    """A program did not start in time, or ended, or refused what it was given; the text ends with what it said."""


def started(command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that writes to the end of `log`.

    setpriv (util-linux) asks the kernel to kill it when the thread that starts it here ends, however it ends.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, and wait until it is gone."""
    process.kill()
    process.wait()


def wait(name: str, process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
    """Return once it answers.

    Raises:
        NotReady: it ended, or did not answer in time. It is ended then.
    """
    deadline = time.monotonic() + seconds
    try:
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"{name} is not ready:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
    except BaseException:
        end(process)
        raise


def is_ready(url: str) -> bool:
    """Whether a program of Prometheus' family says so."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:  # noqa: S310  # our own loopback address
            return bool(answer.status == 200)  # noqa: PLR2004  # OK
    except OSError:
        return False
