"""Runs that were decided on, started on this machine: once, whatever is killed and when."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlpipelines.freshness import mark_of_files
from mlpipelines.lock import only_run
from mlpipelines.own_code import mark_of_work
from mlpipelines.project_file import load_project
from mlpipelines.runs import RunRecord, list_runs
from mlpipelines.triggers.decide import Cause, Policy, Reason, Signal
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.local_runs import LocalRuns
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starter import REFUSED, Starter, pause
from mlpipelines.triggers.starts import Training
from mlpipelines.workspace import Workspace
from mlserving.database import open_database
from typed_commands import millrace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CAUSE = Cause(model="visits", signal=Signal.DRIFT, fingerprint="f", starts_at=1_800_000_000.0, summary="pages drifted")
TRIGGER = """
# A trigger that says where it is, and stays there where it is told to.
import sys, time
from pathlib import Path
from mlpipelines.triggers.ledger import Ledger
from mlpipelines.triggers.local_runs import LocalRuns
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starter import Ear, Starter
from mlpipelines.triggers.starts import Training
from mlpipelines.workspace import Workspace
from mlserving.database import open_database

root, stay, later = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def at(place):
    if place == stay:
        print(place, flush=True)
        time.sleep(600)

class Watched(LocalRuns):
    def start(self, run):
        at("claimed")
        return super().start(run)

    def _spawn(self, run, trained, log):
        child = super()._spawn(run, trained, log)
        at("spawned")
        return child

at("decided")
ear = Ear(started=lambda run, address: at("begun"), ended=lambda name, model, ended: at("over"))
runs = Watched(Workspace(root), Projects(root / "projects-of-ours"))
starter = Starter(Ledger(open_database(f"sqlite:///{root}/serving.db")), runs, ears=[ear], clock=lambda: time.time() + later)
while True:
    starter.turn()
    at("noted")
    time.sleep(0.1)
"""
PLACES = ("decided", "claimed", "spawned", "begun", "noted", "over")


class Room:
    """A workspace with one project and a ledger."""

    def __init__(self, root: Path) -> None:
        self.root, self.workspace = root, Workspace(root)
        millrace("new", "visits", "--team", "web", "--into", root / "projects-of-ours", workspace=root)
        self.file = root / "projects-of-ours" / "visits" / "project.yaml"
        self.file.write_text(self.file.read_text().replace("rows: 20000", "rows: 2000"))
        self.ledger = Ledger(open_database(f"sqlite:///{root}/serving.db"))

    @property
    def runs(self) -> LocalRuns:
        return LocalRuns(self.workspace, Projects(self.root / "projects-of-ours"))

    def decide(self, cause: Cause = CAUSE) -> None:
        facts = Facts(policy=Policy(cooldown=0.0))
        assert self.ledger.settle([cause], lambda _: facts, time.time())[0].reason is Reason.STARTED

    def trigger(self, stay: str = "", later: float = 0.0) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", TRIGGER, str(self.root), stay, str(later)], stdout=subprocess.PIPE, text=True)

    def records(self) -> list[RunRecord]:
        return list_runs(self.workspace, "visits")

    def outcomes(self) -> list[str]:
        return [run.outcome for run in self.ledger.runs("visits")]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def turn_until_over(room: Room, starter: Starter) -> None:
    give_up = time.monotonic() + 300
    while room.ledger.open_runs() or room.ledger.wanted():
        assert time.monotonic() < give_up
        starter.turn()
        time.sleep(0.1)


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_step_the_next_trigger_makes_it_one_run(room: Room, place: str) -> None:
    room.decide()
    with room.trigger(place) as first:
        assert first.stdout is not None
        assert any(line.strip() == place for line in first.stdout)  # the log's lines come between
        first.send_signal(signal.SIGKILL)
    with room.trigger(later=1000.0) as second:  # the claim of the first has run out
        give_up = time.monotonic() + 300
        while not room.outcomes()[0]:
            assert time.monotonic() < give_up
            assert second.poll() is None
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
    (record,) = room.records()
    assert record.run_id == CAUSE.run_name
    assert record.reason == "drift: pages drifted"
    assert record.status == "rejected"  # it has no reviewed schema; what matters here is that it ended by itself, once
    assert room.outcomes() == ["rejected"]


def test_two_triggers_at_once_make_one_run(room: Room) -> None:
    room.decide()
    with room.trigger() as one, room.trigger(later=1000.0) as other:  # the other's clock is wrong, so that it does not respect a claim
        give_up = time.monotonic() + 300
        while not room.outcomes()[0]:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        one.kill()
        other.kill()
    assert [record.run_id for record in room.records()] == [CAUSE.run_name]


def test_while_somebody_else_s_run_is_open_it_waits_and_says_for_whom(room: Room) -> None:
    room.decide()
    starter = Starter(room.ledger, room.runs)
    with only_run(room.workspace.project("visits").lock, "by-hand"):
        assert room.runs.open_run("visits", ()) == "by-hand"
        assert room.runs.open_run("visits", ("by-hand",)) == ""
        starter.turn()
    (wanted,) = room.ledger.wanted()
    assert "by-hand is open on this workspace" in wanted.trouble
    assert not room.records()
    later = Starter(room.ledger, room.runs, clock=lambda: time.time() + pause(0))
    turn_until_over(room, later)
    assert room.outcomes() == ["rejected"]


def test_a_project_that_cannot_be_read_ends_the_run_and_holds_nothing_back(room: Room) -> None:
    room.decide()
    runs = room.runs
    room.file.write_text(room.file.read_text() + "\nno_such_field: 1\n")
    Starter(room.ledger, runs).turn()
    (known,) = room.ledger.runs("visits")
    assert known.outcome == REFUSED
    assert "no_such_field" in known.trouble


def test_no_more_runs_at_once_than_this_machine_is_to_carry(room: Room) -> None:
    room.decide()
    other = Cause(model="others", signal=Signal.DRIFT, fingerprint="f", starts_at=1.0)
    room.decide(other)
    starter = Starter(room.ledger, room.runs, most_open=1)
    starter.turn()
    assert [run.model for run in room.ledger.wanted()] == ["others"]
    turn_until_over(room, starter)
    assert room.ledger.runs("others")[0].outcome == REFUSED  # nobody trains it


def test_a_run_s_verdict_says_why_it_was_started(room: Room) -> None:
    millrace(
        "run", room.file.parent, "--accept-schema", "--json", "--run-id", "first", "--reason", "drift: pages drifted", workspace=room.root
    )
    (record,) = room.records()
    verdict = json.loads(Path(record.facts["verdict_file"]).read_text())
    assert verdict["facts"]["started because"] == "drift: pages drifted"
    project = load_project(room.file.parent)
    trained = room.runs.last_trained("visits")
    assert trained == Training(
        at=record.started.timestamp(),
        data=mark_of_files(project.source, room.file.parent),
        work=mark_of_work(project, room.file.parent, room.runs.code),
    )
    again = millrace("run", room.file.parent, "--run-id", "first", workspace=room.root, code=5)
    assert "there is a run first already" in again.stderr


def test_a_run_that_reused_a_training_is_none_so_that_its_rows_are_still_new() -> None:
    assert Training.of_run(5.0, {"lineage": {"reason": "labels", "reused_training": "3"}}) is None
    assert Training.of_run(5.0, {"lineage": {"files": "f", "work": "w"}}) == Training(at=5.0, data="f", work="w")
    assert Training.of_run(5.0, {}) == Training(at=5.0)
