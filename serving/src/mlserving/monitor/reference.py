"""What a version carries of its training: how its features and its answers were distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlserving import store
from mlserving.monitor import settings
from mlserving.monitor.settings import MonitorSettings
from mlserving.statistics.columns import Column, columns_of, read_statistics

PREDICTIONS = "predictions"
"""The name of the data set, in a version's statistics, that describes what it answered on the sealed test set."""
SLICE = "slice "
"""Begins the name of a data set that describes the training rows of one slice; `<column>=<value>` follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Of one version. Without statistics nothing can be said about drift, and everything else still can."""

    settings: MonitorSettings = field(default_factory=MonitorSettings)
    features: Mapping[str, Column] = field(default_factory=dict)
    outputs: Mapping[str, Column] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Column]] = field(default_factory=dict)
    """By `<column>=<value>`, the features of those training rows alone: a slice is held against itself, for slices differ."""

    @property
    def has_statistics(self) -> bool:
        """Whether drift can be measured."""
        return bool(self.features)


def read_reference(folder: Path, override: MonitorSettings | None = None) -> Reference:
    """What the version in `folder` carries. `override` takes the place of the settings that it carries.

    Raises:
        ConfigError: a file of it is damaged.
    """
    wanted = override or settings.of_version(folder)
    path = folder / store.TRAINING_STATISTICS
    if not path.is_file():
        return Reference(settings=wanted)
    datasets = read_statistics(path).datasets
    answers = [columns_of(dataset) for dataset in datasets if dataset.name == PREDICTIONS]
    pieces = {dataset.name.removeprefix(SLICE): columns_of(dataset) for dataset in datasets if dataset.name.startswith(SLICE)}
    whole = [columns_of(dataset) for dataset in datasets if dataset.name != PREDICTIONS and not dataset.name.startswith(SLICE)]
    return Reference(settings=wanted, features=whole[0] if whole else {}, outputs=answers[0] if answers else {}, slices=pieces)
