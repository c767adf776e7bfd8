"""What a training costs, measured while it runs: step times, waiting for rows, memory, and a TF Profiler trace of every run.

Waiting is measured where it happens. `waiting` puts two clocks around the end of the input pipeline: TensorFlow asks for a
batch, the first clock is read, the batch is waited for, the second clock is read. The trace goes to `logs/train/plugins`,
where TensorBoard looks for it.
"""

# ruff: noqa: ARG002  # callbacks have the arguments that Keras calls them with
from __future__ import annotations

import logging
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Of the steps after the first, which compiles."""

    steps: int
    seconds: float
    """Of those steps together."""
    mean_ms: float
    p50_ms: float
    p95_ms: float
    wait_share: float | None


def step_times(seconds: list[tuple[float, int]], waited: float | None) -> StepTimes:
    """Summarise measurements (seconds, steps they cover); `waited` is the part of them spent without a batch."""
    measured = seconds[1:] or seconds
    if not measured:
        return StepTimes(steps=0, seconds=0.0, mean_ms=0.0, p50_ms=0.0, p95_ms=0.0, wait_share=None)
    each = np.array([1000 * duration / steps for duration, steps in measured])
    total, steps = sum(duration for duration, _ in measured), sum(steps for _, steps in measured)
    p50, p95 = np.percentile(each, [50, 95])
    share = None if waited is None else round(min(1.0, waited / total), 4)
    return StepTimes(steps=steps, seconds=total, mean_ms=1000 * total / steps, p50_ms=float(p50), p95_ms=float(p95), wait_share=share)


def profiled_steps(wanted: tuple[int, int], *, steps: int, at_once: int) -> tuple[int, int]:
    """First and last step, from 1, of the trace: `wanted`, moved so that a run of only `steps` steps has one.

    `at_once` is the model's `steps_per_execution`: a trace begins where a call into TensorFlow does.
    """
    first = max(1, min(wanted[0], steps))
    first -= (first - 1) % at_once
    return first, max(first, min(wanted[1], steps))


def waiting(dataset: tf.data.Dataset, seconds: tf.Variable) -> tf.data.Dataset:
    """`dataset`, adding to `seconds` (float64) how long each batch was waited for."""

    def add(asked: tf.Tensor, *batch: Any) -> Any:
        seconds.assign_add(tf.timestamp() - asked)
        return batch

    clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
    return tf.data.Dataset.zip((clock, dataset)).map(lambda asked, batch: add(asked, *batch))


def peak_memory_mb() -> float:
    """The process's largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_gpu_memory_mb() -> float | None:
    """What TensorFlow used at most on the GPU that used most; None without one."""
    gpus = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")]
    return max((tf.config.experimental.get_memory_info(gpu)["peak"] / 2**20 for gpu in gpus), default=None)


class StepClock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Measures each call into TensorFlow. Stands first among the callbacks, so that the others' time is not counted."""

    def __init__(self, wait: tf.Variable | None) -> None:
        super().__init__()
        self._wait = wait
        self._begun = (0.0, 0)
        self._measured: list[tuple[float, int]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._begun = (time.perf_counter(), batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop it. What was waited for the first batch is not counted: everything is still being opened."""
        started, first = self._begun
        self._measured.append((time.perf_counter() - started, batch - first + 1))
        if self._wait is not None and len(self._measured) == 1:
            self._wait.assign(0.0)

    def times(self) -> StepTimes:
        """What was measured so far."""
        return step_times(self._measured, None if self._wait is None else float(self._wait.numpy()))


class Trace(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """A TF Profiler trace of a few steps."""

    def __init__(self, folder: Path, *, first: int, last: int) -> None:
        super().__init__()
        self._folder = folder
        self._first, self._last = first, last
        self._seen = 0
        self._state = "before"

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Start the trace before its first step."""
        if self._state == "before" and self._seen + 1 >= self._first:
            self._start()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write the trace after its last step."""
        self._seen += self._at_once()
        if self._state == "on" and self._seen >= self._last:
            self._stop()

    def on_train_end(self, logs: Any = None) -> None:
        """Write it at the latest now."""
        if self._state == "on":
            self._stop()

    def _at_once(self) -> int:
        return int(getattr(self.model, "steps_per_execution", 1) or 1)

    def _start(self) -> None:
        self._state = "on"
        try:
            tf.profiler.experimental.start(str(self._folder))
        except tf.errors.AlreadyExistsError:
            self._state = "off"
            log.warning("Another profiler is running in this process; this training has no trace.")

    def _stop(self) -> None:
        self._state = "off"
        tf.profiler.experimental.stop()
