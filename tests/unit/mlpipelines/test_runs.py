"""The record of a run is what its events add up to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mlpipelines.errors import DataRejected
from mlpipelines.progress import RUN_DIR, emit, note, progress, recorded
from mlpipelines.runs import fold, list_runs, read_events, read_run
from mlpipelines.workspace import Workspace, write_json


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run = tmp_path / "projects" / "churn" / "runs" / "20260101-000000-aaaa"
    run.mkdir(parents=True)
    write_json(run / "plan.json", {"name": "churn", "started": 1_767_225_600.0, "reason": "a test"})
    monkeypatch.setenv(RUN_DIR, str(run))
    return run


def test_a_step_that_works_tells_its_cost_and_its_facts(folder: Path) -> None:
    with recorded("ingest"):
        progress("reading", 0.5)
        note(rows=10)
    step = fold(read_events(folder)[0])["ingest"]
    assert step.status == "done"
    assert step.facts == {"rows": 10}
    assert step.peak_mb > 1


def test_a_foreseen_failure_ends_the_process_with_its_code_and_its_table(folder: Path) -> None:
    with pytest.raises(SystemExit) as end, recorded("validate"):
        raise DataRejected("column 'age' is missing", [{"column": "age", "rule": "present"}])
    assert end.value.code == 3
    failure = read_run(folder, open_run=False).failure
    assert failure is not None
    assert failure["kind"] == "DataRejected"
    assert failure["report"] == [{"column": "age", "rule": "present"}]


def test_a_full_disk_in_any_step_is_nobodys_bug(folder: Path) -> None:
    with pytest.raises(SystemExit) as end, recorded("transform"):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/rows.parquet")
    assert end.value.code == 4
    failure = read_run(folder, open_run=False).failure
    assert failure is not None
    assert failure["message"] == "No space left on device (/data/rows.parquet). Free some space and type the same command again."


def test_a_bug_keeps_its_traceback(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), recorded("train"):
        raise ZeroDivisionError
    assert fold(read_events(folder)[0])["train"].status == "failed"


def test_steps_before_one_that_ran_were_reused(folder: Path) -> None:
    with recorded("train"):
        pass
    statuses = {name: step.status for name, step in fold(read_events(folder)[0]).items()}
    assert statuses["ingest"] == statuses["transform"] == "reused"
    assert statuses["evaluate"] == "waiting"


def test_half_a_line_is_left_for_the_next_look(folder: Path) -> None:
    emit("started")
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "fin')
    events, offset = read_events(folder)
    assert len(events) == 1
    assert read_events(folder, offset) == ([], offset)


def test_a_run_that_never_said_how_it_ended_was_killed(folder: Path) -> None:
    with recorded("ingest"):
        pass
    assert read_run(folder, open_run=True).status == "running"
    assert [r.status for r in list_runs(Workspace(folder.parents[3]))] == ["killed"]


def test_without_a_run_folder_the_events_go_to_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    del os.environ[RUN_DIR]
    with caplog.at_level("INFO"):
        emit("started")
    assert '"event": "started"' in caplog.text
