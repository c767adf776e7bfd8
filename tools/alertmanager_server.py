"""A real Alertmanager on loopback that tells one webhook: what the trigger is tried against.

It keeps what it has told in its folder, as the real one does on its disk; one that is started in a fresh folder tells everything again. Several of
them that do not know each other tell everything twice, which is the worst that a pair can do.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import binaries

START_SECONDS = 60


class AlertmanagerServer:
    """Real Alertmanager, as a context manager. The folder is the caller's to remove.

    Args:
        folder: where data, configuration and log go.
        port: where it listens.
        config: its configuration.

    Raises:
        RuntimeError: it ended or did not answer in time.
        binaries.ToolsMissing: the program is not there and cannot be built.
    """

    def __init__(self, folder: Path, port: int, config: dict[str, Any]) -> None:
        self.address = f"127.0.0.1:{port}"
        self._folder, self._config = folder, config

    def __enter__(self) -> Self:
        """Start, and wait until it answers."""
        program = binaries.paths(["alertmanager"])["alertmanager"]
        self._folder.mkdir(parents=True, exist_ok=True)
        config, self._log = self._folder / "alertmanager.yaml", self._folder / "alertmanager.log"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            str(program),
            f"--config.file={config}",
            f"--storage.path={self._folder / 'data'}",
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--web.listen-address={self.address}", "--cluster.listen-address="],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Alertmanager is not ready:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2) as answer:  # our own loopback address
                return bool(answer.status == 200)  # noqa: PLR2004  # OK
        except OSError:
            return False
