"""The loop, closed: a real monitor sees real drift, Prometheus evaluates the rules that the chart ships, two Alertmanagers tell the trigger, and one
training runs. Time is compressed by configuration: the rules wait a second where they wait a quarter of an hour.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from alertmanager_server import AlertmanagerServer
from control_plane import free_ports
from prometheus_server import PrometheusServer
from triggers import Trigger, until
from typed_commands import MILLRACE, environment, millrace
from watched_model import MODEL, Watched, payments

pytestmark = [pytest.mark.slow, pytest.mark.prometheus, pytest.mark.timeout(1200)]
RULES = Path(__file__).resolve().parents[2] / "helm" / "model-serving" / "rules" / "monitor.yaml"


class World:
    """One machine: a project, a model that is watched, and everything from the monitor to the trigger."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace = root, root / "w"
        self.projects = root / "projects"
        millrace("new", "visits", "--team", "web", "--into", self.projects, workspace=self.workspace)
        file = self.projects / "visits" / "project.yaml"
        text = file.read_text().replace("rows: 20000", "rows: 2000").replace("batch_size: 512", "batch_size: 128")
        file.write_text(text + f"\ndeployment: {{model: {MODEL}}}\nretraining: {{cooldown_hours: 5}}\n")
        self.watched = Watched(root / "served")
        self.watched.publish()
        self.monitor_port, *self.alertmanager_ports = free_ports(3)
        self.trigger = Trigger(self.workspace, self.projects)
        self.rules = root / "rules.yaml"
        self.rules.write_text(re.sub(r"for: \S+", "for: 1s", RULES.read_text()))

    @contextmanager
    def monitor(self) -> Iterator[None]:
        """`millrace monitor`, which looks at once and then every minute."""
        command = [MILLRACE, "monitor", MODEL, "--every", "1m", "--listen", f"127.0.0.1:{self.monitor_port}"]
        with subprocess.Popen(command, env=environment(self.watched.root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.kill()

    def alertmanager(self, number: int, folder: str) -> AlertmanagerServer:
        webhook = {
            "url": f"http://{self.trigger.address}/alerts",
            "send_resolved": True,
            "http_config": {"authorization": {"credentials_file": str(self.trigger.token_file)}},
        }
        route = {"receiver": "trigger", "group_by": ["model"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "2s"}
        config = {"route": route, "receivers": [{"name": "trigger", "webhook_configs": [webhook]}]}
        return AlertmanagerServer(self.root / folder, self.alertmanager_ports[number], config)

    def prometheus(self) -> PrometheusServer:
        folder = self.root / "prometheus"
        folder.mkdir()
        scrape = [{"job_name": "monitor", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{self.monitor_port}"]}]}]
        told = [f"127.0.0.1:{port}" for port in self.alertmanager_ports]
        return PrometheusServer(folder, scrape=scrape, rules=[self.rules], alertmanagers=told)

    def predict(self, **drifted: pa.Array) -> None:
        """Predictions of the last hour."""
        self.watched.log(start=datetime.now(UTC) - timedelta(hours=1), seed=len(self.watched.logged) + 5, features=drifted)

    def told(self, reason: str) -> float:
        """How often the trigger gave this answer to drift."""
        return self.trigger.metric(f'millrace_trigger_decisions_total{{model="{MODEL}",reason="{reason}",signal="drift"}}') or 0.0

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(millrace("runs", "visits", "--json", workspace=self.workspace).stdout)
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def firing(prometheus: PrometheusServer) -> set[str]:
    """The columns whose drift alert fires."""
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/alerts", timeout=10) as answer:
        alerts = json.load(answer)["data"]["alerts"]
    return {
        alert["labels"]["column"] for alert in alerts if alert["labels"]["alertname"] == "ModelFeatureDrift" and alert["state"] == "firing"
    }


def looked(prometheus: PrometheusServer) -> bool:
    """Whether the monitor's first run was scraped."""
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/query?query=millrace_monitor_last_run_seconds", timeout=10) as answer:
        return bool(json.load(answer)["data"]["result"])


def test_drift_starts_one_training_whoever_tells_of_it_and_how_often(world: World) -> None:
    with ExitStack() as running:
        running.enter_context(world.trigger)
        first = running.enter_context(world.alertmanager(0, "first"))
        running.enter_context(world.alertmanager(1, "second"))
        prometheus = running.enter_context(world.prometheus())

        world.predict()
        with world.monitor():
            until(lambda: looked(prometheus))
            time.sleep(5)  # evaluations of a healthy model
            assert firing(prometheus) == set()
            assert world.trigger.why(MODEL)["decisions"] == []

        world.predict(amount=pa.array(payments(2000, 9)["amount"].to_numpy() * 40))
        with world.monitor():
            until(lambda: world.told("started") == 1)
            until(lambda: world.told("duplicate") >= 3)  # the other Alertmanager, and both again
            assert firing(prometheus) == {"feature/amount"}

            first.kill()
            with world.alertmanager(0, "fresh"):  # which has forgotten whom it has told
                before = world.told("duplicate")
                until(lambda: world.told("duplicate") >= before + 4)

                world.trigger.kill()  # the training may be anywhere
                port = int(world.trigger.address.rpartition(":")[2])
                world.trigger.start(port)
                until(lambda: world.told("duplicate") >= 2)
                until(lambda: [run["outcome"] for run in world.trigger.why(MODEL)["runs"]] == ["rejected"])  # it has no reviewed schema

        world.predict(currency=pa.array(["CHF"] * 2000))
        with world.monitor():
            until(lambda: world.told("cooldown") >= 1)
            assert "feature/currency" in firing(prometheus)

    (run,) = world.runs()
    assert run["reason"] == f"drift: {MODEL} version 1 is asked something else than it was trained on: feature/amount"
    last, *_ = world.trigger.why(MODEL)["decisions"]
    assert last["reason"] in ("cooldown", "duplicate")
    shown = " ".join(millrace("why", MODEL, workspace=world.workspace).stdout.split())
    assert "retraining.cooldown" in shown
