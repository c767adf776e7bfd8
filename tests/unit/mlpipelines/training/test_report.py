"""What a training leaves behind about itself: its report, its place in a checkpoint, its line for the reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.training.checkpoints import Checkpoints, Patience, TrainingState, fingerprint
from mlpipelines.training.loop import describe, first_patience
from mlpipelines.training.profile import profiled_steps, step_times
from mlpipelines.training.report import TrainingReport

REPORT = TrainingReport(
    train_rows=1000,
    validation_rows=100,
    batch_size=100,
    steps_per_epoch=10,
    steps=20,
    epochs_run=2,
    best_epoch=1,
    stopped_early=True,
    history=({"loss": 0.5, "val_loss": 0.4}, {"loss": 0.3, "val_loss": 0.6}),
    seconds=3.0,
    fit_seconds=2.0,
    examples_per_second=1000.0,
    step_ms_mean=2.0,
    step_ms_p50=1.0,
    step_ms_p95=4.0,
    input_wait_share=None,
    peak_memory_mb=500.0,
    devices=("CPU",),
    strategy="one",
    replicas=1,
    precision="float32",
    parameters=12,
    versions={"keras": "3"},
)
PATIENCE = Patience(monitor="val_loss", patience=2, min_delta=0.1, larger_is_better=False)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "training.json")
    assert TrainingReport.read(tmp_path / "training.json") == REPORT


def test_something_else_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text('{"history": [], "devices": []}')
    with pytest.raises(ConfigError, match="not a training report"):
        TrainingReport.read(tmp_path / "training.json")


def test_the_headline_has_the_best_epochs_metrics_and_only_what_was_measured() -> None:
    headline = REPORT.headline()
    assert (headline["loss"], headline["val_loss"], headline["best_epoch"]) == (0.5, 0.4, 1)
    assert "input_wait_share" not in headline
    assert replace(REPORT, input_wait_share=0.2).headline()["input_wait_share"] == 0.2


def test_patience_ends_after_so_many_epochs_without_enough_gain() -> None:
    state = PATIENCE
    seen = []
    for epoch, loss in enumerate([1.0, 0.5, 0.45, 0.3, 0.29, 0.28], start=1):
        state = state.after(epoch, loss)
        seen.append((state.best_epoch, state.exhausted))
    assert seen == [(1, False), (2, False), (2, False), (4, False), (4, False), (4, True)]


@pytest.mark.parametrize(("metric", "larger"), [("val_loss", False), ("val_accuracy", True), ("val_auc", True), ("val_mae", False)])
def test_losses_are_better_small_and_other_metrics_large(metric: str, larger: bool) -> None:
    assert first_patience(metric, 1, 0.0).larger_is_better is larger


def state_at(epoch: int, step: int, steps: int) -> TrainingState:
    return TrainingState(epoch=epoch, step=step, steps=steps, history=({"loss": 1.0},) * epoch, patience=PATIENCE.after(1, 0.7))


def test_the_newest_checkpoint_is_found_with_the_best_epochs_weights(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "one")
    checkpoints.save_best(1, [np.full(3, 0.1)])
    checkpoints.save(state_at(1, 0, 10), [np.zeros((2, 2)), np.array(1)])
    checkpoints.save(state_at(1, 4, 14), [np.ones((2, 2)), np.array(2)])
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == state_at(1, 4, 14)
    assert np.array_equal(found[1][0], np.ones((2, 2)))
    assert np.array_equal(checkpoints.best(1)[0], np.full(3, 0.1))
    assert len(list((tmp_path / "one").iterdir())) == 2


def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "one")
    checkpoints.save(state_at(1, 0, 10), [np.zeros(2)])
    (tmp_path / "one" / "step-0000000020-00002.npz").write_bytes(b"PK half a file")
    found = checkpoints.latest()
    assert found is not None
    assert found[0].steps == 10


def test_no_checkpoint_no_state(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest() is None


def test_trainings_that_were_given_up_are_forgotten(tmp_path: Path) -> None:
    ours, other = Checkpoints(tmp_path / "ours"), Checkpoints(tmp_path / "other")
    for each in (ours, other):
        each.save(state_at(1, 0, 10), [np.zeros(2)])
    ours.forget_others(before=0.0)
    assert other.latest() is not None
    ours.forget_others(before=4e9)
    assert other.latest() is None
    assert ours.latest() is not None


def test_a_fingerprint_changes_with_any_part() -> None:
    assert fingerprint([{"a": 1, "b": 2}, "x"]) == fingerprint([{"b": 2, "a": 1}, "x"])
    assert fingerprint([{"a": 1}, "x"]) != fingerprint([{"a": 1}, "y"])


@pytest.mark.parametrize(
    ("steps", "at_once", "traced"),
    [(100, 1, (5, 15)), (10, 1, (5, 10)), (3, 1, (3, 3)), (1, 1, (1, 1)), (100, 8, (1, 15)), (100, 4, (5, 15))],
)
def test_a_run_of_any_length_has_a_trace(steps: int, at_once: int, traced: tuple[int, int]) -> None:
    assert profiled_steps((5, 15), steps=steps, at_once=at_once) == traced


def test_step_times_leave_out_the_first_step_which_compiles() -> None:
    times = step_times([(9.0, 1), *[(0.010, 1)] * 8, (0.040, 2)], waited=0.03)
    assert times.steps == 10
    assert times.mean_ms == pytest.approx(12)
    assert times.p50_ms == pytest.approx(10)
    assert times.wait_share == pytest.approx(0.25)


def test_an_epoch_reads_as_one_line() -> None:
    logs = {"loss": 0.8123, "accuracy": 0.7, "val_loss": 0.9, "val_accuracy": 0.7111}
    assert describe(3, 12, logs, rows_per_second=52_300) == "epoch 3/12 · loss 0.8123 · val accuracy 0.7111 · 52k rows/s"
    assert describe(1, 2, {"loss": 1.0}, rows_per_second=900, step="step 4/9") == "epoch 1/2 · step 4/9 · loss 1 · 900 rows/s"
