"""Where a training goes on after it was killed: weights, optimizer, place in the data, and what was learned about when to stop.

A checkpoint is one file, written beside its name, flushed and renamed: a SIGKILL leaves the last one or the new one. The
best epoch's weights lie in a file of their own, written only when an epoch was the best so far. The folder's name is a
fingerprint of everything that makes two trainings the same, so a changed project never picks up an old one.

Keras' `BackupAndRestore` writes in place and forgets early stopping's count and the history, hence our own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

log = logging.getLogger(__name__)

Weights = list[np.ndarray]
_STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Early stopping's memory. Pure: `after` gives the next one."""

    monitor: str
    patience: int
    min_delta: float
    larger_is_better: bool
    best: float | None = None
    best_epoch: int = 0
    """Counted from 1; 0: none yet."""
    wait: int = 0

    def after(self, epoch: int, value: float) -> Self:
        """What is known after `epoch` (from 1) ended with `value`."""
        gain = 0.0 if self.best is None else (value - self.best if self.larger_is_better else self.best - value)
        if self.best is None or gain > self.min_delta:
            return replace(self, best=value, best_epoch=epoch, wait=0)
        return replace(self, wait=self.wait + 1)

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return self.wait >= self.patience


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where a training stands."""

    epoch: int = 0
    """Epochs that are complete."""
    step: int = 0
    """Steps done in the epoch after them."""
    steps: int = 0
    """Steps done in all."""
    history: tuple[Mapping[str, float], ...] = ()
    patience: Patience | None = None

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights count: the best, or without early stopping the last."""
        return self.patience.best_epoch if self.patience else self.epoch

    @property
    def stopped_early(self) -> bool:
        """Whether early stopping has had enough."""
        return self.patience is not None and self.patience.exhausted

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingState:
        """From what `to_json` gave."""
        patience = Patience(**values["patience"]) if values["patience"] else None
        return cls(**{**values, "history": tuple(values["history"]), "patience": patience})


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The folder of one training."""

    folder: Path

    def save(self, state: TrainingState, weights: Weights) -> None:
        """Write a checkpoint and remove the ones before it."""
        current = self.folder / f"step-{state.steps:010d}-{state.epoch:05d}.npz"
        _write(current, weights, json.dumps(state.to_json()))
        kept = {current, self._best_file(state.best_epoch)}
        for old in self.folder.glob("*.npz"):
            if old not in kept:
                old.unlink()

    def save_best(self, epoch: int, weights: Weights) -> None:
        """Keep the weights of `epoch`; the next `save` forgets the ones before."""
        _write(self._best_file(epoch), weights, "")

    def best(self, epoch: int) -> Weights:
        """The weights that `save_best` kept for `epoch`."""
        return _read(self._best_file(epoch))[0]

    def latest(self) -> tuple[TrainingState, Weights] | None:
        """The newest checkpoint that can be read."""
        for file in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                weights, text = _read(file)
                return TrainingState.from_json(json.loads(text)), weights
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
                log.warning("%s cannot be read and is passed over: %s", file, error)
        return None

    def forget_others(self, *, before: float) -> None:
        """Remove trainings of the same project that were given up: not written since `before` (seconds since 1970)."""
        for other in self.folder.parent.glob("*/"):
            if other != self.folder and other.stat().st_mtime < before:
                shutil.rmtree(other, ignore_errors=True)

    def delete(self) -> None:
        """Forget this training."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _best_file(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:05d}.npz"


def fingerprint(parts: Sequence[object]) -> str:
    """A name for a training: the hash of everything that it follows from, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _write(path: Path, weights: Weights, text: str) -> None:
    """`weights` as an uncompressed .npz, without holding it in memory a second time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"w{i:05d}": array for i, array in enumerate(weights)} | {_STATE: np.array(text)}
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with fresh.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _read(path: Path) -> tuple[Weights, str]:
    with np.load(path, allow_pickle=False) as arrays:
        names = sorted(name for name in arrays.files if name != _STATE)
        return [arrays[name] for name in names], str(arrays[_STATE])
