"""`millrace serve --tracks` as a process of its own, with real model servers and the real gateway, and a steady stream of requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 300


@dataclass
class Serving:
    """`millrace serve --tracks MODEL`, running."""

    workspace: Path
    process: subprocess.Popen[bytes]
    rest: str
    admin: str

    def page(self) -> dict[str, Any]:
        connection = HTTPConnection(self.admin, timeout=10)
        connection.request("GET", "/tracks")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found

    def told_phase(self) -> str:
        """The phase of the rollout that the gateway tells Prometheus."""
        connection = HTTPConnection(self.admin, timeout=10)
        connection.request("GET", "/metrics")
        families = list(text_string_to_metric_families(connection.getresponse().read().decode()))
        connection.close()
        samples = [sample for family in families for sample in family.samples if sample.name == "millrace_rollout_phase"]
        return next(str(sample.labels["phase"]) for sample in samples if sample.value)


@dataclass
class Load:
    """A steady stream of requests from a few connections: what came back, and when which version answered last."""

    rest: str
    model: str = "demo"
    asked: Sequence[Mapping[str, Any]] = ({"amount": 1.0, "merchant": "tools"},)
    """Instances, in turns. Another sequence may be put here while the stream flows."""
    pause: float = 0.0
    """Seconds between an answer and the next request."""
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)

    def _ask(self) -> None:
        number = 0
        connection = HTTPConnection(self.rest, timeout=60)
        while not self._stop.wait(self.pause):
            number += 1
            asked = self.asked
            body = json.dumps({"instances": [asked[number % len(asked)]]})
            try:
                connection.request("POST", f"/v1/models/{self.model}:predict", body)
                answer = connection.getresponse()
                content = answer.read()
            except OSError as error:
                self.answers[0, type(error).__name__] += 1
                connection.close()
                continue
            version = answer.getheader("x-model-version", "")
            self.answers[answer.status, version] += 1
            self.last[version] = time.monotonic()
            if answer.status == 200 and str(json.loads(content)["predictions"][0].get("version", version)) != version:
                self.wrong.append(f"version {version} said: {content!r}")
        connection.close()

    @contextlib.contextmanager
    def running(self, threads: int = 2) -> Iterator[None]:
        workers = [Thread(target=self._ask, daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._stop.set()
            for worker in workers:
                worker.join(timeout=90)

    @property
    def failures(self) -> dict[tuple[int, str], int]:
        return {key: count for key, count in self.answers.items() if key[0] != 200}


@contextlib.contextmanager
def serve(workspace: Path, model: str = "demo", *words: str) -> Iterator[Serving]:
    ready, log = workspace / "ready.json", workspace / "supervisor.log"
    options = ["--grpc-port", "0", "--rest-port", "0", "--admin-port", "0", "--implementation", "python", "--ready-file", str(ready)]
    command = [sys.executable, "-m", "mlplatform", "serve", "--tracks", model, "--workspace", str(workspace), *options, *words]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text() + "".join(p.read_text() for p in workspace.glob("serving/logs/*"))
                time.sleep(0.05)
            told = json.loads(ready.read_text())
            yield Serving(workspace, process, told["rest"], told["admin"])
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
