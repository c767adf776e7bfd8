"""Runs that were decided on, started on Kubeflow Pipelines: once, whatever its API server does."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeflow_api import KubeflowApi, kubeflow_api
from mlpipelines.errors import Unavailable
from mlpipelines.kubeflow import Kubeflow
from mlpipelines.triggers.decide import Cause, Policy, Signal
from mlpipelines.triggers.kubeflow_runs import KubeflowRuns
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starter import REFUSED, Starter
from mlpipelines.workspace import Workspace, write_json
from mlserving.database import open_database
from typed_commands import MILLRACE, millrace

IMAGE = "registry.example/steps@sha256:" + "a" * 64
CAUSE = Cause(model="visits", signal=Signal.QUALITY, fingerprint="f", starts_at=1_800_000_000.0, summary="recall is below its floor")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects")
    millrace("new", "visits", "--team", "web", "--into", folder, workspace=folder / "w")
    return folder


@pytest.fixture
def api() -> Iterator[KubeflowApi]:
    with kubeflow_api() as served:
        yield served


class Room:
    """A ledger with one wanted run, and a starter whose clock a test turns."""

    def __init__(self, api: KubeflowApi, projects: Path, database: Path) -> None:
        self.now = time.time()
        self.ledger = Ledger(open_database(f"sqlite:///{database}"))
        self.workspace = Workspace(database.parent / "workspace")
        self.runs = KubeflowRuns(
            Kubeflow(api.host, seconds=(1.0, 1.0)), Projects(projects), IMAGE, self.workspace, registry="registry-account"
        )
        self.ledger.settle([CAUSE], lambda _: Facts(policy=Policy()), self.now)

    def turn(self) -> None:
        self.now += 1000.0  # every pause and every claim is over
        Starter(self.ledger, self.runs, clock=lambda: self.now).turn()

    def trouble(self) -> str:
        return self.ledger.runs("visits")[0].trouble

    def outcome(self) -> str:
        return self.ledger.runs("visits")[0].outcome


@pytest.fixture
def room(api: KubeflowApi, projects: Path, tmp_path: Path) -> Room:
    return Room(api, projects, tmp_path / "serving.db")


def test_a_run_carries_its_name_and_its_reason(api: KubeflowApi, room: Room) -> None:
    room.turn()
    (run,) = api.runs
    parameters = run["runtime_config"]["parameters"]
    assert run["display_name"] == CAUSE.run_name
    assert parameters["reason"] == run["description"] == "quality: recall is below its floor"
    assert parameters["lineage"]["image"] == IMAGE
    assert re.fullmatch(r"20\d\d-W\d\d", parameters["code"]), "what is cached is believed for a week"
    executors = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-register"]["secretAsEnv"][0]["secretName"] == "registry-account"
    assert "secretAsEnv" not in executors["exec-train"]
    assert run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    assert [each["display_name"] for each in api.experiments] == ["visits"]
    (known,) = room.ledger.runs("visits")
    assert (known.state, known.address) == ("started", f"{api.host}/#/runs/details/{run['run_id']}")


@pytest.mark.parametrize("trouble", ["503", "never", "silent"])
def test_after_a_trouble_there_is_one_run(api: KubeflowApi, room: Room, trouble: str) -> None:
    api.troubles = [trouble]
    room.turn()
    assert room.trouble()
    room.turn()
    assert [run["display_name"] for run in api.runs] == [CAUSE.run_name]
    assert not room.trouble()
    room.turn()
    assert len(api.runs) == 1


def test_a_request_that_is_carried_out_long_after_it_was_given_up_leaves_one_run_open(api: KubeflowApi, room: Room) -> None:
    api.troubles = ["late"]
    room.turn()
    room.turn()
    assert len(api.open_runs()) == 1
    api.latecomers.set()
    give_up = time.monotonic() + 30
    while len(api.runs) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    room.turn()
    assert [run.get("state") for run in api.runs] == [None, "FAILED"]
    assert room.outcome() == ""


def test_a_surplus_run_that_ends_by_itself_before_it_is_ended_troubles_nobody(api: KubeflowApi, room: Room) -> None:
    room.turn()
    api.make_run({key: value for key, value in api.runs[0].items() if key not in ("run_id", "created_at", "finished_at")})
    api.over_before_asked = True
    room.turn()
    assert [run.get("state") for run in api.runs] == [None, "SUCCEEDED"]
    assert (room.outcome(), room.trouble()) == ("", "")


def test_while_it_is_down_the_run_stays_wanted(api: KubeflowApi, room: Room) -> None:
    api.down = True
    for _ in range(3):
        room.turn()
    (wanted,) = room.ledger.wanted()
    assert wanted.tries == 3
    assert "answers 503" in wanted.trouble
    with pytest.raises(Unavailable):
        room.runs.open_run("visits", ())
    api.down = False
    room.turn()
    assert len(api.runs) == 1


def test_a_pipeline_that_is_refused_ends_and_holds_nothing_back(api: KubeflowApi, room: Room) -> None:
    api.troubles = ["refused"]
    room.turn()
    assert room.outcome() == REFUSED
    assert "InvalidInputError" in room.trouble()


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_how_it_ended_is_noted(api: KubeflowApi, room: Room, state: str) -> None:
    room.turn()
    assert room.runs.open_run("visits", ()) == CAUSE.run_name
    assert room.runs.open_run("visits", (CAUSE.run_name,)) == ""
    api.runs[0]["state"] = "RUNNING"
    room.turn()
    assert room.outcome() == ""
    api.end(state, failed="train")
    room.turn()
    assert room.outcome() == state.lower()
    assert room.trouble() == ("The step train failed: its log has why." if state == "FAILED" else "")
    trained = room.runs.last_trained("visits")
    assert (trained is not None) == (state == "SUCCEEDED")
    if trained is not None:
        assert trained.data == "", "generated rows are no files"
        assert trained.work == api.runs[0]["runtime_config"]["parameters"]["lineage"]["work"]


def test_a_run_whose_end_kubeflow_never_hears_of_has_ended_an_hour_after_somebody_ended_it(api: KubeflowApi, room: Room) -> None:
    room.turn()
    api.ending(seconds=600)
    room.turn()
    assert (room.outcome(), room.runs.open_run("visits", ())) == ("", CAUSE.run_name)
    api.ending(seconds=3700)
    room.turn()
    assert (room.outcome(), room.runs.open_run("visits", ())) == ("canceled", "")


@pytest.mark.parametrize(("mounted", "seconds"), [(True, 7200.0), (False, None)], ids=["workspace mounted", "not mounted"])
def test_what_its_steps_held_of_gpus_is_read_from_the_workspace(api: KubeflowApi, room: Room, mounted: bool, seconds: float | None) -> None:
    room.turn()
    if mounted:
        notes = room.workspace.project("visits").gpu_time / api.runs[0]["run_id"]
        write_json(notes / "an-attempt-that-was-killed.json", {"gpus": 2, "from": 1000.0, "until": 2800.0})
        write_json(notes / "the-next.json", {"gpus": 2, "from": 3000.0, "until": 4800.0})
    api.end("SUCCEEDED")
    room.turn()
    assert room.ledger.runs("visits")[0].gpu_seconds == seconds


def test_an_end_that_cannot_be_seen_is_none(api: KubeflowApi, room: Room) -> None:
    room.turn()
    api.down = True
    room.turn()
    assert room.outcome() == ""
    api.down = False
    api.runs.clear()
    room.turn()
    assert room.outcome() == "lost"


def test_a_pod_shows_its_token_and_the_next_one_after_it_was_changed(
    api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("first-token")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    kubeflow = Kubeflow(api.host, "fraud")
    assert kubeflow.newest("visits") == []
    (tmp_path / "token").write_text("second-token")
    assert kubeflow.newest("visits") == []
    assert api.authorizations == ["Bearer first-token", "Bearer second-token"]


def test_submit_starts_the_same_run_by_hand(api: KubeflowApi, projects: Path, tmp_path: Path) -> None:
    words: list[Any] = ["submit", projects / "visits", "--host", api.host, "--image", IMAGE, "--reason", "new features", "--json"]
    said = json.loads(millrace(*words, workspace=tmp_path).stdout)
    (run,) = api.runs
    assert said == {"run": run["run_id"], "url": f"{api.host}/#/runs/details/{run['run_id']}"}
    assert run["display_name"] == "visits · new features"
    rows = ("--set", "source.kind=sql", "--set", "source.url=postgresql://rows", "--set", "source.query=select 1")
    for _ in range(2):
        millrace("submit", projects / "visits", *words[2:], *rows, workspace=tmp_path)
    first, second = (each["runtime_config"]["parameters"]["freshness"] for each in api.runs[1:])
    assert first != second, "a database is read anew by each run, whatever it is called"
    api.down = True
    failed = subprocess.run([MILLRACE, *map(str, words)], capture_output=True, text=True, check=False)
    assert failed.returncode == 4
    assert "answers 503" in failed.stderr
