"""Where numbers pile up, counted value by value beside TensorFlow Data Validation's histogram.

Its histogram has buckets of equal count. Where numbers pile up (ages, codes, zeros, round amounts) a pile is cut wherever a bucket is full, and how
much of it lies on which side is not told: up to a bucket's share of the rows, at every cut. Two halves of one table then lie as far apart
as drift does. So columns with at most `MOST_VALUES` different values are counted exactly, and a histogram in which each pile has a
bucket of its own goes into the feature's `custom_stats`, which the format has for this; `mlserving.statistics.columns` reads it in the
other's place. Columns with more values than that hardly have piles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlserving.statistics.columns import PILES

MOST_VALUES = 50_000
_ALL_PILES = 500
"""With so few different values each is a pile; else one that holds a five-hundredth of all."""
_BETWEEN = 200
"""Values between piles share buckets of about a two-hundredth of all."""

Counted = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
"""Different values, ascending, and how often each occurs."""


@dataclass(slots=True)
class Piles:
    """Counts of the columns that have not had too many values so far."""

    counts: dict[str, Counted] = field(default_factory=dict)
    many: set[str] = field(default_factory=set)
    """Columns that have more."""

    def add(self, described: pa.RecordBatch) -> None:
        """Count a batch in the form that TFDV reads: every column a list."""
        for name, column in zip(described.schema.names, described.columns, strict=True):
            kind = column.type.value_type
            if name not in self.many and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                values = np.asarray(pc.list_flatten(column).drop_null().to_numpy(zero_copy_only=False), np.float64)
                self._take(name, np.unique(values[~np.isnan(values)], return_counts=True))

    def __add__(self, other: Piles) -> Piles:
        """Both together."""
        merged = Piles(many=self.many | other.many)
        for side in (self, other):
            for name, counted in side.counts.items():
                if name not in merged.many:
                    merged._take(name, counted)
        return merged

    def write(self, features: Iterable[Any]) -> None:
        """Put the histograms into `FeatureNameStatistics` messages."""
        for feature in features:
            counted = self.counts.get(feature.path.step[0])
            if counted is not None and len(counted[0]):
                histogram = feature.custom_stats.add(name=PILES).histogram
                for low, high, count in buckets(*counted):
                    histogram.buckets.add(low_value=low, high_value=high, sample_count=count)

    def _take(self, name: str, more: Counted) -> None:
        known = self.counts.pop(name, None)
        counted = more if known is None else _together(known, more)
        if len(counted[0]) > MOST_VALUES:
            self.many.add(name)
        else:
            self.counts[name] = counted


def _together(one: Counted, other: Counted) -> Counted:
    values, places = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    return values, np.bincount(places, np.concatenate([one[1], other[1]])).astype(np.int64)


def buckets(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> list[tuple[float, float, int]]:
    """(low, high, count): above `low` and not above `high`, or the pile at `low == high`."""
    total = int(counts.sum())
    pile = np.full(len(values), len(values) <= _ALL_PILES) | (counts >= max(total / _ALL_PILES, 2))
    found: list[tuple[float, float, int]] = []
    held = 0
    last = float(np.nextafter(values[0], -np.inf))
    for place, (value, count, alone) in enumerate(zip(values.tolist(), counts.tolist(), pile.tolist(), strict=True)):
        if alone:
            found.append((value, value, count))
            last = value
            continue
        held += count
        if held * _BETWEEN >= total or place + 1 == len(values) or pile[place + 1]:
            found.append((last, value, held))
            last, held = value, 0
    return found
