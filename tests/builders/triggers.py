"""`millrace trigger serve` as a process of its own, and whoever posts to it."""

from __future__ import annotations

import http.client
import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typed_commands import MILLRACE, environment, millrace
from waiting import eventually

TOKEN = "0123456789abcdef-token"


class Trigger:
    """A trigger over a workspace; it is killed with the context, and may be killed and started anew in it."""

    def __init__(self, workspace: Path, projects: Path, *words: str) -> None:
        self.workspace, self._projects, self._words = workspace, projects, words
        self._token, self._ready = workspace / "token", workspace / "trigger.json"
        self.log = workspace / "trigger.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def address(self) -> str:
        return str(json.loads(self._ready.read_text())["address"])

    @property
    def token_file(self) -> Path:
        return self._token

    def start(self, port: int = 0) -> None:
        """Start it, and wait until it takes alerts."""
        self.workspace.mkdir(parents=True, exist_ok=True)
        self._token.write_text(TOKEN + "\n")
        self._ready.unlink(missing_ok=True)
        command = [MILLRACE, "trigger", "serve", "--projects", str(self._projects), "--token-file", str(self._token)]
        command += ["--port", str(port), "--ready-file", str(self._ready), "--every", "0.5", *self._words]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(self.workspace))
        eventually("it takes alerts or has ended", lambda: self._ready.exists() or self.process.poll() is not None, 400)
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(20)

    def ask(self, method: str, path: str, body: bytes | None = None, token: str = TOKEN) -> tuple[int, str]:
        """Status and text of one request."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def post(self, *alerts: dict[str, Any]) -> list[str]:
        """Post alerts as Alertmanager does; the reasons of the decisions."""
        status, text = self.ask("POST", "/alerts", json.dumps({"version": "4", "groupKey": "g", "alerts": list(alerts)}).encode())
        assert status == 200, text
        return [each["reason"] for each in json.loads(text)["decisions"]]

    def why(self, model: str) -> dict[str, Any]:
        """`millrace why MODEL --json`."""
        told: dict[str, Any] = json.loads(millrace("why", model, "--json", workspace=self.workspace).stdout)
        return told

    def metric(self, line: str) -> float | None:
        """The value of a series as it stands on /metrics; None where it is not there."""
        found = [text for text in self.ask("GET", "/metrics")[1].splitlines() if text.rpartition(" ")[0] == line]
        return float(found[0].rpartition(" ")[2]) if found else None


def an_alert(model: str, fingerprint: str = "f", signal: str = "drift", **changes: Any) -> dict[str, Any]:
    """One of a message."""
    labels = {"alertname": "ModelFeatureDrift", "model": model, "signal": signal}
    annotations = {"summary": f"{model} is asked something else"}
    times = {"startsAt": "2026-11-28T05:00:00Z", "fingerprint": fingerprint}
    return {"status": "firing", "labels": labels, "annotations": annotations, **times, **changes}
