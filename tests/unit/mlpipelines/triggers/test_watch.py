"""What gives cause to train again although nobody posts anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlpipelines.freshness import mark_of_files
from mlpipelines.own_code import mark_of_work
from mlpipelines.project_file import load_project
from mlpipelines.triggers.decide import Signal
from mlpipelines.triggers.facts import Look
from mlpipelines.triggers.projects import Trained
from mlpipelines.triggers.starts import Training
from mlpipelines.triggers.watch import Watch
from mlserving.review.agreement import share

CHURN = """
name: churn
team: growth
task: classification
source: {kind: parquet, path: rows}
features: {pages: integer}
label: {column: left}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project.yaml").write_text(CHURN)
    (tmp_path / "features.py").write_text("one = 1\n")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "monday.parquet").write_bytes(b"rows")
    return tmp_path


def a_look(folder: Path, *, trained: bool = True) -> Look:
    """A look right after a training of what lies in the folder."""
    project = load_project(folder)
    made_from = Training(at=100.0, data=mark_of_files(project.source, folder), work=mark_of_work(project, folder, "v1"))
    seen = Trained(project=project, folder=folder)
    return Look(at=200.0, trained=seen, open_run="", training=made_from if trained else None, new_labels=0, right=None)


def signals(watch: Watch, look: Look) -> list[Signal]:
    """What two looks tell: the first sees a change, the second sees that it stays."""
    watch.causes(look)
    return [cause.signal for cause in watch.causes(look)]


def test_nothing_changed_is_no_cause(folder: Path) -> None:
    assert signals(Watch(lambda: "v1"), a_look(folder)) == []


def test_a_new_file_is_new_data_and_one_cause_however_often_it_is_seen(folder: Path) -> None:
    look, watch = a_look(folder), Watch(lambda: "v1")
    (folder / "rows" / "tuesday.parquet").write_bytes(b"more rows")
    (first,) = [cause for _ in range(2) for cause in watch.causes(look)]
    (again,) = watch.causes(look)
    assert first.signal is Signal.NEW_DATA
    assert again.key == first.key


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("features.py", "one = 2\n", [Signal.NEW_CODE]),
        ("schema.pbtxt", "feature {}", []),
        ("project.yaml", CHURN + "training: {epochs: 3}\n", [Signal.NEW_CODE]),
        ("project.yaml", CHURN + "retraining: {cooldown_hours: 1}\nschedule: {cron: '0 5 * * 1'}\ndescription: said better\n", []),
        ("test_features.py", "assert True\n", []),
        ("README.md", "words", []),
    ],
)
def test_what_may_make_another_model_is_new_code_and_nothing_else_is(folder: Path, file: str, text: str, expected: list[Signal]) -> None:
    before = a_look(folder)
    (folder / file).write_text(text)
    assert signals(Watch(lambda: "v1"), replace(before, trained=a_look(folder).trained)) == expected


def test_another_millrace_is_new_code(folder: Path) -> None:
    assert signals(Watch(lambda: "v2"), a_look(folder)) == [Signal.NEW_CODE]


def test_a_millrace_that_is_replaced_while_we_go_on_is_new_code_once(folder: Path) -> None:
    look, runs_with = a_look(folder), ["v1"]
    watch = Watch(lambda: runs_with[0])
    assert signals(watch, look) == []
    runs_with[0] = "v2"
    assert signals(watch, look) == [Signal.NEW_CODE]
    assert look.training is not None
    trained_by_it = replace(look.training, work=mark_of_work(look.trained.project, folder, "v2"))
    assert signals(watch, replace(look, training=trained_by_it)) == []


def test_what_a_model_can_be_asked_is_new_code_and_what_is_decided_on_its_scores_is_not(folder: Path) -> None:
    look, watch = a_look(folder), Watch(lambda: "v1")
    (folder / "decisions.py").write_text("COLUMNS = ()\n")
    assert signals(watch, look) == []
    (folder / "project.yaml").write_text(CHURN + "deployment: {explanations: {}}\n")
    assert signals(watch, replace(look, trained=replace(look.trained, project=load_project(folder)))) == [Signal.NEW_CODE]


def test_new_files_of_an_incremental_source_are_new_data_and_rows_of_a_database_are_not_to_be_seen(folder: Path) -> None:
    (folder / "project.yaml").write_text(
        CHURN.replace("path: rows}", "path: rows, incremental: true}").replace("{pages", "{at: timestamp, pages") + "time: at\n"
    )
    look = a_look(folder)
    (folder / "rows" / "tuesday.parquet").write_bytes(b"more rows")
    assert signals(Watch(lambda: "v1"), look) == [Signal.NEW_DATA]
    (folder / "project.yaml").write_text(CHURN.replace("kind: parquet, path: rows", "kind: sql, url: 'sqlite://', table: t"))
    assert signals(Watch(lambda: "v1"), a_look(folder)) == []


def test_what_is_still_being_written_is_not_new_yet(folder: Path) -> None:
    look, watch = a_look(folder), Watch(lambda: "v1")
    for size in range(5):
        (folder / "rows" / "tuesday.parquet").write_bytes(b"x" * (size + 1))
        assert watch.causes(look) == []
    assert [cause.signal for cause in watch.causes(look)] == [Signal.NEW_DATA]


def test_the_first_training_is_a_person_s(folder: Path) -> None:
    assert signals(Watch(lambda: "v2"), a_look(folder, trained=False)) == []


def test_runs_that_do_not_tell_what_they_were_made_from_are_left_alone(folder: Path) -> None:
    look = replace(a_look(folder), training=Training(at=100.0))
    assert signals(Watch(lambda: "v2"), look) == []


@pytest.mark.parametrize(
    ("right", "of", "expected"),
    [(190, 200, []), (140, 200, [Signal.CORRECTIONS]), (14, 20, []), (0, 20, [Signal.CORRECTIONS])],
    ids=["agree", "disagree", "too few to be sure", "few, and all wrong"],
)
def test_reviewers_disagree_when_they_surely_do(folder: Path, right: int, of: int, expected: list[Signal]) -> None:
    (folder / "project.yaml").write_text(CHURN + "retraining: {corrections: 0.2}\n")
    look = replace(a_look(folder), right=share(right, of))
    assert signals(Watch(lambda: "v1"), look) == expected
    (folder / "project.yaml").write_text(CHURN)
    assert signals(Watch(lambda: "v1"), replace(a_look(folder), right=share(right, of))) == []  # not asked for
