"""What a training did and what it cost: the facts that MLflow, `millrace compare` and the run's summary show.

Written by `train` as `training.json` into the model's folder, last of all, so that a folder with it is complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlpipelines.errors import ConfigError
from mlpipelines.workspace import read_json, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """One training of one model. Times are of this process; a resumed run's steps before `resumed_from_step` are not in them."""

    train_rows: int
    validation_rows: int
    batch_size: int
    """Rows in one step, over all replicas."""
    steps_per_epoch: int
    steps: int
    """Steps that the model was trained for, those before a resumption included."""
    resumed_from_step: int = 0
    """0: it started at the beginning."""
    epochs_run: int
    best_epoch: int
    """The epoch, counted from 1, whose weights the model has."""
    stopped_early: bool
    history: tuple[Mapping[str, float], ...]
    """Loss and metrics after each epoch; names with `val_` are of the validation rows. In an epoch that was resumed in its
    middle, the others count from there."""
    seconds: float
    """The whole step: reading, building, fitting, exporting."""
    fit_seconds: float
    examples_per_second: float
    """Training rows in a second of training steps, validation and checkpoints not counted."""
    step_ms_mean: float
    step_ms_p50: float
    step_ms_p95: float
    input_wait_share: float | None
    """Share of the training steps' time in which the model waited for rows. None where replicas fetch theirs in the background."""
    peak_memory_mb: float
    """Largest resident set of the process."""
    peak_gpu_memory_mb: float | None = None
    devices: tuple[str, ...]
    strategy: str
    replicas: int
    precision: str
    parameters: int
    """Weights of the model, trainable or not."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python and of the frameworks."""
    reused: Mapping[str, Any] = field(default_factory=dict)
    """Where nothing was trained: the `version` that was, and the `data_hash` of the rows that it was trained on."""

    def best_metrics(self) -> Mapping[str, float]:
        """Loss and metrics of the best epoch."""
        return self.history[self.best_epoch - 1] if self.history else {}

    def headline(self) -> dict[str, float]:
        """The numbers that a page or a table shows first, by name."""
        cost = {
            "epochs": float(self.epochs_run),
            "best_epoch": float(self.best_epoch),
            "seconds": self.seconds,
            "examples_per_second": self.examples_per_second,
            "step_ms_p50": self.step_ms_p50,
            "peak_memory_mb": self.peak_memory_mb,
            "parameters": float(self.parameters),
        }
        optional = {"input_wait_share": self.input_wait_share, "peak_gpu_memory_mb": self.peak_gpu_memory_mb}
        return {**self.best_metrics(), **cost, **{name: value for name, value in optional.items() if value is not None}}

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingReport:
        """A report from what `to_json` gave.

        Raises:
            ConfigError: a field is missing or unknown.
        """
        try:
            return cls(**{**values, "history": tuple(values["history"]), "devices": tuple(values["devices"])})
        except (KeyError, TypeError) as error:
            raise ConfigError(f"This is not a training report: {error}. `millrace run` writes a new one.") from error

    def write(self, path: Path) -> None:
        """To `path`, whole."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> TrainingReport:
        """From `path`.

        Raises:
            ConfigError: the file is not a training report.
        """
        return cls.from_json(read_json(path))
