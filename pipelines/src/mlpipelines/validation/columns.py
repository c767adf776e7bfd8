"""The statistics of a data set's splits, as the rules read them.

`steps.statistics` leaves TensorFlow Data Validation's statistics behind. What one says about a column is
`mlserving.statistics.columns`, which the monitor of a served model shares; here the splits are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

from mlpipelines.artifacts import Statistics
from mlpipelines.errors import ConfigError
from mlserving import errors as serving_errors
from mlserving.statistics import columns
from mlserving.statistics.columns import Column, columns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The columns of a data set: both splits together, and each split by itself."""

    whole: Mapping[str, Column]
    train: Mapping[str, Column]
    validation: Mapping[str, Column]
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of `train` and `validation`."""

    @property
    def total_rows(self) -> int:
        """Rows of both splits."""
        return sum(self.rows.values())


def read_snapshot(folder: Path) -> Snapshot:
    """Read a `Statistics` artifact.

    Raises:
        ConfigError: a file of it is missing or is not what `compute_statistics` writes.
    """
    files = Statistics(folder)
    whole, train, validation = (read_statistics(path) for path in (files.whole, files.of("train"), files.of("validation")))
    rows = {"train": int(train.datasets[0].num_examples), "validation": int(validation.datasets[0].num_examples)}
    return Snapshot(
        whole=columns_of(whole.datasets[0]),
        train=columns_of(train.datasets[0]),
        validation=columns_of(validation.datasets[0]),
        rows=rows,
    )


def read_statistics(path: Path) -> statistics_pb2.DatasetFeatureStatisticsList:
    """One file of a `Statistics` artifact.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        return columns.read_statistics(path)
    except serving_errors.ConfigError as error:
        raise ConfigError(str(error)) from error
