"""The supervisor's processes: started, watched, started again when they die, and never left behind.

A child is asked by the kernel to end when the supervisor dies, however it dies; it has a session of its own, so Ctrl-C in the terminal reaches the
supervisor alone, which stops its children in their order.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY = 60.0
"""Seconds after which a child that lives is no longer held its earlier deaths against."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Child:
    """A command that should run. `ready_file` is what it writes once it can be asked."""

    def __init__(self, name: str, command: Sequence[str], ready_file: Path, log: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.command, self.ready_file, self.log, self._now = list(command), ready_file, log, now
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._started = self._again = 0.0
        self._exit: int | None = None

    def tend(self) -> None:
        """Start it, or start it again once its pause is over."""
        if self._process is not None and self._process.poll() is not None:
            self._bury(self._process.returncode)
        if self._process is None and self._now() >= self._again:
            self._start()

    def ready(self) -> dict[str, str] | None:
        """What it told in its ready file; None until it has."""
        if self._process is None:
            return None
        try:
            told = json.loads(self.ready_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return {name: str(value) for name, value in told.items()} if told.get("pid") == self._process.pid else None

    @property
    def trouble(self) -> str:
        """Why it does not run, if it has died since it last ran well."""
        if not self._deaths:
            return ""
        return f"{self.name} has ended {self._deaths} time{'s' if self._deaths > 1 else ''}, last with exit code {self._exit}: {self._last_words()}"

    def ask_to_end(self) -> None:
        """SIGTERM: it finishes what is under way."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process is None or self._process.poll() is not None

    def end(self, seconds: float) -> None:
        """Ask it to end, and make it end after so many seconds."""
        self.ask_to_end()
        if self._process is None:
            return
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.ready_file.unlink(missing_ok=True)

    def _start(self) -> None:
        self.ready_file.unlink(missing_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  the supervisor has one thread
            )
        self._started = self._now()

    def _bury(self, code: int) -> None:
        self.ready_file.unlink(missing_ok=True)
        lived = self._now() - self._started
        self._process, self._exit = None, code
        self._deaths = 1 if lived > _STEADY else self._deaths + 1
        self._again = self._now() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (self._deaths - 1))

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "its log cannot be read."
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing.")


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes its command: SIGTERM shall come when `parent` is gone."""

    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before it could be said
                os._exit(1)

    return prepare
