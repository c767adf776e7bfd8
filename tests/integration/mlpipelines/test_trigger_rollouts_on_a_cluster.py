"""A version that a run on Kubeflow registered is rolled out in a helm release by itself: real MLflow, real helm, a real API server; requests are made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpipelines.triggers import roller as rolling
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.roller import Roller
from mlpipelines.triggers.rollouts import Rollouts
from mlpipelines.triggers.starts import Ended
from mlserving.audit.database import AuditLog
from mlserving.database import open_database
from mlserving.rollout.actions import Room
from mlserving.rollout.aliases import RUN, Registry, client_at
from mlserving.rollout.document import history
from mlserving.rollout.helm import HelmDriver
from rollouts import World, WorldSource
from served_release import RELEASE, Helm, cluster, installed

pytestmark = [pytest.mark.control_plane, pytest.mark.slow, pytest.mark.timeout(900)]
NAME = "demo-drift-1"
PROJECT = """
name: demo
team: growth
task: classification
source: {kind: parquet, path: rows}
features: {pages: integer}
label: {column: left}
deployment: {track: canary, rollout: {steps: [10, 100], min_requests: 200, min_seconds: 10, keep_warm_seconds: 30}}
retraining: {rollout: automatic}
"""


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helm]:
    with cluster(tmp_path_factory.mktemp("plane")) as typed:
        yield typed


@pytest.fixture
def driver(helm: Helm, tmp_path: Path) -> Iterator[HelmDriver]:
    with installed(helm, tmp_path) as found:
        yield found


def test_what_a_run_on_a_cluster_brought_is_found_by_the_run_and_takes_over_in_its_release(
    helm: Helm, driver: HelmDriver, tmp_path: Path
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "project.yaml").write_text(PROJECT)
    uri, now, world = f"sqlite:///{tmp_path}/mlflow.db", [1_000_000.0], World(1)
    client = client_at(uri)
    client.create_registered_model("demo")
    for number in (1, 2):
        client.create_model_version("demo", source="file:///nowhere", tags={RUN: f"id-of-run-{number}"})
    client.set_registered_model_alias("demo", "champion", "1")
    client.set_registered_model_alias("demo", "challenger", "2")
    audit = AuditLog(f"sqlite:///{tmp_path}/audit.db")
    room = Room(driver=driver, source=WorldSource(world), registry=Registry(uri), audit=audit, who="retraining", clock=lambda: now[0])
    asked = rolling.World(
        projects=Projects(tmp_path), room=lambda _: room, frozen=lambda _: None, reason_of=lambda _: "drift: pages drifted"
    )
    rollouts = Rollouts(open_database(f"sqlite:///{tmp_path}/serving.db"))
    roller = Roller(rollouts, asked, clock=lambda: now[0])
    for name, run_id in ((NAME, "id-of-run-2"), ("demo-quality-2", "id-of-a-run-that-the-gate-refused")):
        roller.ear().ended(name, "demo", Ended(outcome="succeeded", facts={"run_id": run_id}))
    for _ in range(40):
        rollout = driver.read("demo").rollout
        world.pass_time(20, rollout.weight if rollout else 0.0)
        now[0] += 20
        while (row := rollouts.claim(now[0], now[0] + 10)) is not None:
            roller.step(row)
        if not rollouts.due():
            break
    ended = {row.run: (row.phase, row.version) for row in rollouts.last("demo")}
    assert ended == {NAME: ("done", 2), "demo-quality-2": ("nothing", None)}
    desired = driver.read("demo")
    assert (desired.stable.version, len(desired.tracks)) == (2, 1)
    assert Registry(uri).aliases("demo") == {"champion": 2, "previous": 1}
    (past,) = history(desired)
    assert (past.started_by, past.reason, past.phase) == ("retraining", f"drift: pages drifted ({NAME})", "done")
    assert [entry.fact.action for entry in audit.entries()] == [f"rollout.{word}" for word in ("start", "step", "promote", "settle")]
    values = json.loads(helm("get", "values", RELEASE, "--output", "json").stdout)
    assert values["tracks"]["stable"]["version"] == 2
