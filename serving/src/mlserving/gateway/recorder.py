"""The recorder beside the gateway: a child process that turns the spool into Parquet (`mlserving.predictions`), started again when it dies.

It lives a little longer than we do: after the last exchange is spooled it is told to go, and takes what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from mlserving.gateway.metrics import Metrics

if TYPE_CHECKING:
    from mlserving.gateway.service import Options

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 30.0  # after so long a new death is a first one
_FAREWELL_SECONDS = 15.0
_STALE_SECONDS = 30.0  # older figures of the recorder's are not told as if they were true

_log = structlog.get_logger()


class Recorder:
    """Keeps one recorder running while the context lasts. Without a spool and a predictions folder there is none."""

    def __init__(self, options: Options, metrics: Metrics, settings: str) -> None:
        self._settings = settings
        self._options, self._metrics = options, metrics
        self._wanted = options.spool is not None and options.predictions is not None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving = False

    def exposition(self) -> bytes:
        """The recorder's metrics in the text format; nothing where it has not said any lately."""
        if not self._wanted:
            return b""
        with contextlib.suppress(OSError):
            if time.time() - self._figures.stat().st_mtime < _STALE_SECONDS:
                return self._figures.read_bytes()
        return b""

    def tell(self, settings: str) -> None:
        """What is in force, for the recorder: it may have come from a ConfigMap, and it can be meant."""
        self._settings = settings
        if self._wanted:
            temporary = self._config.with_suffix(".new")
            temporary.write_text(settings, encoding="utf-8")
            temporary.replace(self._config)

    async def __aenter__(self) -> Self:
        """Start it."""
        if self._wanted:
            self._folder = tempfile.TemporaryDirectory(prefix="millrace-gateway-")
            self._figures = Path(self._folder.name) / "recorder.prom"
            self._config = Path(self._folder.name) / "gateway.yaml"
            self.tell(self._settings)
            self._task = asyncio.create_task(self._keep_running())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let it take what is spooled, and end it."""
        self._leaving = True
        if self._task is None:
            return
        process = self._process
        if process is not None and process.returncode is None:
            await self._begun(process)
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _FAREWELL_SECONDS)
            if process.returncode is None:
                _log.warning("the recorder did not end in time; what is left in the spool is taken at the next start")
                process.kill()
                await process.wait()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._folder.cleanup()

    async def _begun(self, process: asyncio.subprocess.Process) -> None:
        """Wait until it says something: one that is still starting would die of SIGTERM and leave the spool as it is."""
        until = time.monotonic() + _FAREWELL_SECONDS
        while not self._figures.exists() and process.returncode is None and time.monotonic() < until:  # noqa: ASYNC110  a file
            await asyncio.sleep(0.05)

    async def _keep_running(self) -> None:
        pause = _FIRST_PAUSE
        while not self._going():
            started = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(sys.executable, "-m", "mlserving", *self._arguments())
            code = await self._process.wait()
            if self._going():
                return
            self._metrics.recorder_restarts += 1
            _log.error("the recorder died and is started again", exit_code=code, seconds=round(pause, 1))
            pause = _FIRST_PAUSE if time.monotonic() - started > _STEADY_SECONDS else pause
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _going(self) -> bool:
        return self._leaving

    def _arguments(self) -> list[str]:
        options = self._options
        return [
            "record", "--spool", str(options.spool), "--predictions", str(options.predictions), "--config", str(self._config),
            "--metrics", str(self._figures), "--parent", str(os.getpid()), "--most-seconds", str(options.log_seconds),
        ]  # fmt: skip
