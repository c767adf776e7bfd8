"""Fitting a model so that it can be killed at any step and watched at every one.

`fit_model` runs Keras' `fit` from where the last checkpoint ends. `Course` keeps that place: it writes checkpoints, applies
early stopping and ends a training whose loss is no number any more. `Narrator` tells the run and TensorBoard how it goes.
"""

# ruff: noqa: ARG002  # callbacks have the arguments that Keras calls them with
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlpipelines.errors import ConfigError, ModelRejected
from mlpipelines.progress import progress
from mlpipelines.training.checkpoints import Checkpoints, Patience, TrainingState, Weights

log = logging.getLogger(__name__)

_EVERY_SECONDS = 2.0
_FIT = (0.1, 0.9)
"""Which part of the step's progress fitting is."""


def first_patience(monitor: str, patience: int, min_delta: float) -> Patience:
    """Early stopping before the first epoch. Losses and errors are better small, other metrics large."""
    small = any(word in monitor for word in ("loss", "error", "mae", "mse"))
    return Patience(monitor=monitor, patience=patience, min_delta=min_delta, larger_is_better=not small)


def snapshot(variables: list[Any]) -> Weights:
    """Values of Keras variables, in dtypes that numpy can write."""
    arrays = [tf.convert_to_tensor(variable).numpy() for variable in variables]
    return [array.astype(np.float32) if array.dtype.name == "bfloat16" else array for array in arrays]


def restore(variables: list[Any], weights: Weights) -> bool:
    """Give the variables their values back; False, and nothing done, where they are not the same variables."""
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in weights]:
        return False
    for variable, array in zip(variables, weights, strict=True):
        variable.assign(array)
    return True


def describe(epoch: int, epochs: int, logs: Mapping[str, float], *, rows_per_second: float, step: str = "") -> str:
    """One line about an epoch: `epoch 3/12 · loss 0.81 · val accuracy 0.71 · 52k rows/s`."""
    judged = [name for name in logs if name.startswith("val_")]
    shown = [name for name in ("loss", next((n for n in judged if n != "val_loss"), "val_loss")) if name in logs]
    values = [f"{name.replace('_', ' ')} {logs[name]:.4g}" for name in shown]
    speed = f"{rows_per_second / 1000:.0f}k rows/s" if rows_per_second >= 10_000 else f"{rows_per_second:.0f} rows/s"  # noqa: PLR2004 (reads better)
    return " · ".join([f"epoch {epoch}/{epochs}", *([step] if step else []), *values, speed])


class Course(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Keeps `state`, writes it, and stops the training when it should stop."""

    def __init__(
        self,
        state: TrainingState,
        *,
        checkpoints: Checkpoints,
        every: int,
        steps: int,
        writes: bool,
        diagnosis: Callable[[], list[dict[str, object]]],
    ) -> None:
        super().__init__()
        self.state = state
        self._checkpoints = checkpoints
        self._every, self._steps = every, steps
        self._writes = writes
        self._diagnosis = diagnosis
        self._offset = state.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count, and write a checkpoint when it is time."""
        self._check(logs or {})
        before = self.state
        step = self._offset + batch + 1
        self.state = replace(before, step=step, steps=before.steps + step - before.step)
        if step < self._steps and self.state.steps // self._every > before.steps // self._every:  # an epoch's end writes its own
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the epoch and write a checkpoint."""
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self._check(metrics)
        before, self._offset = self.state, 0
        patience = before.patience.after(epoch + 1, self._monitored(before.patience, metrics)) if before.patience else None
        self.state = replace(before, epoch=epoch + 1, step=0, history=(*before.history, metrics), patience=patience)
        if patience and patience.best_epoch == epoch + 1:
            weights = snapshot(self.model.variables)
            if self._writes:
                self._checkpoints.save_best(epoch + 1, weights)
        self._save()
        self.model.stop_training = self.state.stopped_early

    def _save(self) -> None:
        weights = snapshot([*self.model.variables, *self.model.optimizer.variables])  # every worker: a read may need all of them
        if self._writes:
            self._checkpoints.save(self.state, weights)

    def _monitored(self, patience: Patience, metrics: Mapping[str, float]) -> float:
        if patience.monitor not in metrics:
            raise ConfigError(
                f"training.early_stopping.monitor is {patience.monitor!r}, which the model does not report; "
                f"it reports {', '.join(sorted(metrics))}. Correct project.yaml or the metrics in build(), then `millrace run` again."
            )
        return metrics[patience.monitor]

    def _check(self, logs: Mapping[str, float]) -> None:
        loss = logs.get("loss")
        if loss is None or math.isfinite(loss):
            return
        self._checkpoints.delete()
        found = self._diagnosis()
        columns = ", ".join(str(row["feature"]) for row in found)
        cause = f"The transformed features {columns} hold NaN or infinite values" if found else "The transformed features are all finite"
        advice = (
            "fill them in features.py"
            if found
            else "lower the learning rate or clip gradients in build(), and look for a log or division of 0"
        )
        raise ModelRejected(
            f"The loss became {loss} in epoch {self.state.epoch + 1}, step {self.state.step + 1}. {cause}: {advice}, then `millrace run` again.",
            report=found,
        )


class Narrator(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Says how it goes: to the run each epoch and every two seconds, to TensorBoard each epoch."""

    def __init__(self, course: Course, *, epochs: int, steps: int, rows_per_step: int, logs: Path | None) -> None:
        super().__init__()
        self._course = course
        self._epochs, self._steps, self._rows = epochs, steps, rows_per_step
        self._writers = {name: tf.summary.create_file_writer(str(logs / name)) for name in ("train", "validation")} if logs else {}
        for number, metrics in enumerate(course.state.history):
            self._write(number, metrics)
        self._since = (0.0, 0)
        self._said = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start measuring."""
        self._said = time.monotonic()
        self._since = (self._said, self._course.state.steps)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Say something if nothing was said for a while."""
        now = time.monotonic()
        if now - self._said >= _EVERY_SECONDS:
            self._said = now
            state = self._course.state
            self._say(state.epoch + 1, logs or {}, f"step {state.step}/{self._steps}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tell run and TensorBoard."""
        self._say(epoch + 1, logs or {}, "")
        self._write(epoch, logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        """Put everything on disk."""
        for writer in self._writers.values():
            writer.flush()

    def _say(self, epoch: int, logs: Mapping[str, float], step: str) -> None:
        began, first = self._since
        done = self._course.state.steps
        speed = (done - first) * self._rows / max(1e-6, time.monotonic() - began)
        share = done / max(1, self._epochs * self._steps)
        progress(describe(epoch, self._epochs, logs, rows_per_second=speed, step=step), round(_FIT[0] + share * (_FIT[1] - _FIT[0]), 4))

    def _write(self, epoch: int, logs: Mapping[str, float]) -> None:
        for name, value in logs.items() if self._writers else ():
            split = "validation" if name.startswith("val_") else "train"
            with self._writers[split].as_default(), tf.device("CPU"):
                _write_scalar(f"epoch_{name.removeprefix('val_')}", float(value), epoch)


def _write_scalar(name: str, value: float, step: int) -> None:
    """What `tf.summary.scalar` writes; that one needs TensorBoard itself, which training does not."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=metadata)


def fit_model(
    model: keras.Model,
    *,
    course: Course,
    callbacks: list[keras.callbacks.Callback],
    batches: Callable[[int, int], Any],
    validation: Any,
    epochs: int,
    steps: int,
) -> None:
    """Fit `model` from `course.state` to `epochs`. `batches(epoch, step)` are training batches without end from there on.

    `callbacks` are called in their order, `course` among them.
    """
    if course.state.step:
        epoch = course.state.epoch
        rest = {"initial_epoch": epoch, "epochs": epoch + 1, "steps_per_epoch": steps - course.state.step}
        _fit(model, batches(epoch, course.state.step), validation, callbacks, rest)
    if course.state.epoch < epochs and not course.state.stopped_early:
        rest = {"initial_epoch": course.state.epoch, "epochs": epochs, "steps_per_epoch": steps}
        _fit(model, batches(course.state.epoch, 0), validation, callbacks, rest)


def _fit(model: keras.Model, batches: Any, validation: Any, callbacks: list[keras.callbacks.Callback], rest: dict[str, int]) -> None:
    model.fit(batches, validation_data=validation, callbacks=callbacks, verbose=0, shuffle=False, **rest)
