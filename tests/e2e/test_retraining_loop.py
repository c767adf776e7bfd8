"""The whole loop on one machine, every part of it real: steady traffic to a served model drifts, the monitor finds it in the log, Prometheus fires
the rule that the chart ships, two Alertmanagers tell the trigger, one training runs, and what it brings takes over from the version before, while
no request fails. The trigger is killed at every stretch of the way. Time is compressed by configuration: rules wait a second where they wait a
quarter of an hour, the monitor looks every few seconds, rows wait three seconds to become files.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alertmanager_server import AlertmanagerServer
from control_plane import free_ports
from prometheus_server import PrometheusServer
from served_tracks import Load, serve
from triggers import Trigger
from typed_commands import MILLRACE, environment, millrace, run, versions
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.prometheus, pytest.mark.timeout(1200)]
RULES = Path(__file__).resolve().parents[2] / "helm" / "model-serving" / "rules" / "monitor.yaml"
MODEL = "visits"
SETTINGS = """
deployment:
  track: canary
  log: {share: 1, features: [page, referrer, seconds]}
  rollout:
    steps: [25, 60, 100]
    min_requests: 60
    first_look: 30
    min_seconds: 1
    every_seconds: 0.5
    limits: {latency_ratio: null, distance: 0.4}
retraining: {signals: [drift], cooldown_hours: 5, rollout: automatic}
"""
JUDGED = "metric: accuracy\n  rule: not_worse\n  margin: 0.1\n  budget: {latency_ms: 5000}"
"""Another seed makes another model, and no better one; how fast it answers on a machine that does all this at once says nothing."""
DRIFTED_FIRST = {"feature/page", "output/confidence", "output/label"}
"""Where visitors of one page only show: in what is asked and in what is answered. Which alert comes first is Prometheus' affair."""


def visits(seed: int, **only: str) -> list[Mapping[str, Any]]:
    """What callers ask: visits as those that the model was trained on, or all of one page or from one referrer."""
    random = np.random.default_rng(seed)
    return [
        {
            "page": str(random.choice(["home", "pricing", "docs", "blog", "jobs", "contact"])),
            "referrer": str(random.choice(["search", "mail", "partner", "direct", ""])),
            "seconds": float(random.lognormal(3.0, 1.0)),
            "visited_at": int(random.integers(1_735_689_600, 1_767_225_600)),
            **only,
        }
        for _ in range(400)
    ]


class World:
    """One machine: a project, its model, and everything from the gateway to the trigger."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace, self.projects = root, root / "w", root / "projects"
        millrace("new", MODEL, "--team", "web", "--into", self.projects, workspace=self.workspace)
        self.project = self.projects / MODEL
        file = self.project / "project.yaml"
        text = file.read_text().replace("rows: 20000", "rows: 4000").replace("batch_size: 512", "batch_size: 128")
        file.write_text(text.replace("metric: accuracy", JUDGED) + SETTINGS)
        self.monitor_port, *self.alertmanager_ports = free_ports(3)
        self.trigger = Trigger(self.workspace, self.projects)
        self.rules = root / "rules.yaml"
        self.rules.write_text(re.sub(r"for: \S+", "for: 1s", RULES.read_text()))

    @contextmanager
    def monitor(self) -> Iterator[None]:
        command = [MILLRACE, "monitor", MODEL, "--every", "2s", "--since", "30s", "--listen", f"127.0.0.1:{self.monitor_port}"]
        with (self.root / "monitor.log").open("wb") as log, subprocess.Popen(
            command, env=environment(self.workspace), stdout=log, stderr=log
        ) as process:  # fmt: skip
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

    def kill_the_trigger(self) -> None:
        """And start another one, on the address that Alertmanager knows."""
        port = int(self.trigger.address.rpartition(":")[2])
        self.trigger.kill()
        self.trigger.start(port)

    def answered(self, reason: str) -> float:
        """How often the trigger that lives now gave this answer to drift."""
        return self.trigger.metric(f'millrace_trigger_decisions_total{{model="{MODEL}",reason="{reason}",signal="drift"}}') or 0.0

    def phase(self) -> str:
        """Of the rollout that the trigger drives."""
        found = self.trigger.why(MODEL)["rollouts"]
        return found[0]["phase"] if found else ""


def asked(prometheus: PrometheusServer, query: str) -> list[Any]:
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/query?query={query}", timeout=10) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
        return found


def firing(prometheus: PrometheusServer) -> set[str]:
    """The columns of the first version whose drift alert fires."""
    found = asked(prometheus, 'ALERTS{alertname="ModelFeatureDrift",alertstate="firing",version="1"}')
    return {each["metric"]["column"] for each in found}


def looked(prometheus: PrometheusServer) -> bool:
    """Whether the monitor has seen rows enough to say something."""
    found = asked(prometheus, 'millrace_monitor_drift_alarm{column="feature/page"}')
    return bool(found)


def test_drifted_traffic_ends_in_a_new_version_that_answers_and_no_request_fails(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = run(world.project, "--accept-schema", "--set", "training.seed=1", workspace=world.workspace)
    assert first["status"] == "blessed"
    with ExitStack() as running:
        serving = running.enter_context(serve(world.workspace, MODEL, "--log-seconds", "3"))
        running.enter_context(world.trigger)
        one = running.enter_context(world.alertmanager(0, "first"))
        running.enter_context(world.alertmanager(1, "second"))
        prometheus = running.enter_context(world.prometheus())
        running.enter_context(world.monitor())
        load = Load(serving.rest, MODEL, visits(1), pause=0.03)
        running.enter_context(load.running())

        eventually("Prometheus has looked", lambda: looked(prometheus), 400)
        time.sleep(5)  # evaluations of a healthy model
        assert firing(prometheus) == set()
        assert "drift" not in {each["signal"] for each in world.trigger.why(MODEL)["decisions"]}

        load.asked = visits(2, page="pricing")
        eventually("one run is started", lambda: world.answered("started") == 1, 400)
        world.kill_the_trigger()  # with the decision written down, and its run started or not
        eventually("both Alertmanagers tell it again and again", lambda: world.answered("duplicate") >= 3, 400)
        one.kill()
        fresh = running.enter_context(world.alertmanager(0, "fresh"))  # which has forgotten whom it has told
        assert fresh.address == one.address

        load.asked = visits(3, page="pricing", referrer="mail")  # another column drifts: another alert
        eventually("another feature drifts", lambda: "feature/referrer" in firing(prometheus), 400)
        eventually(
            "it is told that it waits", lambda: any(world.answered(reason) for reason in ("run-open", "rollout-open", "cooldown")), 400
        )
        world.kill_the_trigger()  # the training may be anywhere
        eventually("the canary begins", lambda: world.phase() == "canary", 400)
        world.kill_the_trigger()  # in the middle of the rollout
        eventually("it is promoted", lambda: world.phase() == "promoting", 400)
        world.kill_the_trigger()  # with the old version warm
        eventually("the old version answers no more", lambda: time.monotonic() - load.last["1"] > 2, 400)
        assert load.last["2"] > load.last["1"]
        millrace("rollout", "finish", MODEL, workspace=world.workspace)
        eventually("the rollout is done", lambda: world.phase() == "done", 400)

    assert load.failures == {}
    told(world)


def told(world: World) -> None:
    """Hold that everything that happened is written down: once, with its reason."""
    decided = json.loads(millrace("why", MODEL, "--last", "200", "--json", workspace=world.workspace).stdout)
    (training,) = decided["runs"]
    assert training["outcome"] == "blessed"
    (rollout,) = decided["rollouts"]
    assert (rollout["run"], rollout["version"], rollout["state"]) == (training["name"], 2, "ended")
    (started,) = [each for each in decided["decisions"] if each["reason"] == "started"]
    assert started["summary"].startswith(f"{MODEL} version 1 ")
    assert started["summary"].rpartition(": ")[2] in DRIFTED_FIRST
    suppressed = [each for each in decided["decisions"] if each["reason"] in ("run-open", "rollout-open", "cooldown")]
    assert any("feature/referrer" in each["summary"] for each in suppressed), "the second alert, with its reason"
    assert all(each["text"] for each in suppressed)

    assert {row["version"]: "champion" in row["aliases"] for row in versions(MODEL, world.workspace)} == {1: False, 2: True}
    history = " ".join(millrace("rollout", "history", MODEL, workspace=world.workspace).stdout.split())
    assert "trigger 1 → 2 done" in history
    assert training["name"] in history
    assert "whole" in millrace("audit", "verify", workspace=world.workspace).stdout
    shown = " ".join(millrace("why", MODEL, workspace=world.workspace).stdout.split())
    assert f"{training['name']} 2 done promoted" in shown
