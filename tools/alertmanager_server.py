"""A real Alertmanager on loopback that tells one webhook: what the trigger is tried against.

It keeps what it has told in its folder, as the real one does on its disk; one that is started in a fresh folder tells everything again. Several of
them that do not know each other tell everything twice, which is the worst that a pair can do.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import binaries
import programs


class AlertmanagerServer:
    """Real Alertmanager, as a context manager. The folder is the caller's to remove.

    Args:
        folder: where data, configuration and log go.
        port: where it listens.
        config: its configuration.

    Raises:
        programs.NotReady: it ended or did not answer in time.
        binaries.ToolsMissing: the program is not there and cannot be built.
    """

    def __init__(self, folder: Path, port: int, config: dict[str, Any]) -> None:
        self.address = f"127.0.0.1:{port}"
        self._folder, self._config = folder, config

    def __enter__(self) -> Self:
        """Start, and wait until it answers."""
        program = binaries.paths(["alertmanager"])["alertmanager"]
        self._folder.mkdir(parents=True, exist_ok=True)
        config, log = self._folder / "alertmanager.yaml", self._folder / "alertmanager.log"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        settings = [f"--config.file={config}", f"--storage.path={self._folder / 'data'}"]
        self._process = programs.started([program, *settings, f"--web.listen-address={self.address}", "--cluster.listen-address="], log)
        programs.wait("Alertmanager", self._process, log, lambda: programs.is_ready(f"http://{self.address}"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        programs.end(self._process)
