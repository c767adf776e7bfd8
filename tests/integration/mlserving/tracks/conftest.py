"""A model with two versions, served on tracks by the real supervisor, real model servers and the real gateway; started once for all tests here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlserving import store

START_SECONDS = 300


@dataclass
class Serving:
    """`millrace serve --tracks demo`, running."""

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
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)

    def _ask(self) -> None:
        body = json.dumps({"instances": [{"amount": 1.0, "merchant": "tools"}]})
        connection = HTTPConnection(self.rest, timeout=60)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/models/demo:predict", body)
                answer = connection.getresponse()
                content = answer.read()
            except OSError as error:
                self.answers[0, type(error).__name__] += 1
                connection.close()
                continue
            version = answer.getheader("x-model-version", "")
            self.answers[answer.status, version] += 1
            self.last[version] = time.monotonic()
            if answer.status == 200 and json.loads(content)["predictions"][0]["version"] != int(version):
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
def serve(workspace: Path) -> Iterator[Serving]:
    ready, log = workspace / "ready.json", workspace / "supervisor.log"
    options = ["--grpc-port", "0", "--rest-port", "0", "--admin-port", "0", "--implementation", "python", "--ready-file", str(ready)]
    command = [sys.executable, "-m", "mlplatform", "serve", "--tracks", "demo", "--workspace", str(workspace), *options]
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


@pytest.fixture(scope="module")
def serving(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    workspace = tmp_path_factory.mktemp("tracks")
    for version in (1, 2):
        store.publish_version(workspace / "models", "demo", version, saved / "demo" / str(version))
    (workspace / "serving").mkdir()
    (workspace / "serving" / "demo.yaml").write_text("model: demo\nrevision: 1\ntracks: {stable: {version: 1, weight: 100}}\n")
    with serve(workspace) as running:
        yield running


@pytest.fixture
def load(serving: Serving) -> Load:
    """A stream of requests to it."""
    return Load(serving.rest)
