"""A rollout that the trigger drives, on real tracks under a steady stream of requests: its driver is killed at every step, and nobody's request fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import served_models
from mlpipelines.triggers.rollouts import Rollouts
from mlserving import store
from mlserving.database import address, open_database
from mlserving.rollout.local import LocalDriver
from served_tracks import Load, Serving, serve
from typed_commands import millrace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUN = "demo-drift-1"
PROJECT = {
    "name": "demo",
    "team": "growth",
    "task": "classification",
    "source": {"kind": "parquet", "path": "rows"},
    "features": {"amount": "float"},
    "label": {"column": "left"},
    "deployment": {
        "track": "canary",
        "rollout": {
            "steps": [20, 50, 100],
            "min_requests": 60,
            "first_look": 30,
            "min_seconds": 0,
            "every_seconds": 0.2,
            "keep_warm_seconds": 6,
            "limits": {"latency_ratio": None},
        },
    },
    "retraining": {"rollout": "automatic"},
}
DRIVER = """
# What drives rollouts in a trigger. At the first place where nobody stayed before it says where it is, and stays there.
import sys, time
from dataclasses import replace
from pathlib import Path
from mlpipelines.triggers import roller
from mlpipelines.triggers.places import tracks
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.rollouts import Rollouts
from mlserving.database import address, open_database
from mlserving.rollout.local import LocalDriver

workspace, projects, later, known = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]

def at(place):
    if place not in known:
        print("at", place, flush=True)
        time.sleep(600)

class Driver(LocalDriver):
    def write(self, desired):
        written = super().write(desired)
        at(f"written {written.rollout.phase} {written.rollout.weight:g}")
        return written

class Audit:
    def __init__(self, log):
        self.log = log
    def append(self, who, action, *words, **details):
        entry = self.log.append(who, action, *words, **details)
        at(f"logged {action}")
        return entry

def room(model):
    found = tracks(workspace, "trigger")(model)
    return replace(found, driver=Driver(workspace), audit=Audit(found.audit))

class Noted(Rollouts):
    def note(self, run, note, **when):
        super().note(run, note, **when)
        at(f"noted {note.phase}")

asked = roller.World(projects=Projects(projects), room=room, frozen=lambda model: None, reason_of=lambda run: "drift: it drifted")
ear = roller.Ear(moved=lambda row, rollout: at(f"told {rollout.phase}"))
driving = roller.Roller(Noted(open_database(address(workspace))), asked, ears=[ear], clock=lambda: time.time() + later)
while driving._rollouts.due():
    driving.turn()
    time.sleep(0.05)
"""
ALWAYS = {
    "noted starting",
    "logged rollout.start",
    "written starting 0",
    "logged rollout.step",
    "written canary 20",
    "written canary 50",
    "logged rollout.promote",
    "written promoting 100",
}
"""Places that every rollout passes; which of the others are passed follows from how fast requests come and how long a restart takes."""


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("rolled")
    for version in (1, 2):
        store.publish_version(root / "w" / "models", "demo", version, served_models.save(root / f"saved-{version}", version))
    (root / "w" / "serving").mkdir()
    (root / "w" / "serving" / "demo.yaml").write_text("model: demo\nrevision: 1\ntracks: {stable: {version: 1, weight: 100}}\n")
    (root / "projects" / "demo").mkdir(parents=True)
    (root / "projects" / "demo" / "project.yaml").write_text(yaml.safe_dump(PROJECT))
    with serve(root / "w") as running:
        yield running


def driver(workspace: Path, known: list[str]) -> subprocess.Popen[str]:
    """Another one, in whose eyes the claims of those before have run out. It ends with the rollout."""
    command = [sys.executable, "-c", DRIVER, str(workspace), str(workspace.parent / "projects"), str(len(known) * 1000), *known]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_at_every_step_the_next_one_goes_on_and_no_request_fails(serving: Serving) -> None:
    workspace = serving.workspace
    rollouts = Rollouts(open_database(address(workspace)))
    load = Load(serving.rest, asked=[{"amount": 1.5}], pause=0.005)
    with load.running():
        rollouts.want(RUN, "demo", time.time(), version=2)
        killed: list[str] = []
        while rollouts.last("demo")[0].state != "ended":
            with driver(workspace, killed) as driving:
                assert driving.stdout is not None
                at = next((line.split(maxsplit=1)[1].strip() for line in driving.stdout if line.startswith("at ")), None)
                driving.kill()
            assert at is not None or driving.returncode == 0
            killed += [at] if at else []
    assert set(killed) >= ALWAYS
    assert load.failures == {}
    assert load.wrong == []
    (row,) = rollouts.last("demo")
    assert (row.phase, row.version) == ("done", 2)
    desired = LocalDriver(workspace).read("demo")
    assert (desired.stable.version, desired.past) == (2, ()), "one rollout, whoever drove it"
    entries = [json.loads(line) for line in millrace("audit", "export", workspace=workspace).stdout.splitlines()]
    deeds = [entry["action"] for entry in entries]
    assert {entry["who"] for entry in entries} <= {"trigger", "millrace serve"}
    assert deeds.index("rollout.promote") > deeds.index("rollout.step") > deeds.index("rollout.start")
    assert "rollout.abort" not in deeds
    assert "whole" in millrace("audit", "verify", workspace=workspace).stdout
    shown = " ".join(millrace("why", "demo", workspace=workspace).stdout.split())
    assert f"{RUN} 2 done promoted" in shown
    assert f"drift: it drifted ({RUN})" in millrace("rollout", "history", "demo", workspace=workspace).stdout
