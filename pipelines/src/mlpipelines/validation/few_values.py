"""Numeric columns that hold few values, counted value by value beside TensorFlow Data Validation's histogram.

Its histogram has buckets of equal count. Where numbers pile up (ages, codes, whole hours) a pile is cut wherever a bucket is full, and how much of
it lies on which side is not told: up to a bucket's share of the rows, at every cut. Two halves of one table then lie as far apart as
drift does. So where a column has at most `MOST_VALUES` values, their counts go into the feature's `custom_stats`, which the
format has for this, and `mlserving.statistics.columns` reads them in the histogram's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlserving.statistics.columns import VALUE_COUNTS

MOST_VALUES = 1000


@dataclass(slots=True)
class FewValues:
    """Counts of the columns that have had few values so far."""

    counts: dict[str, Counter[float]] = field(default_factory=dict)
    many: set[str] = field(default_factory=set)
    """Columns that have more."""

    def add(self, described: pa.RecordBatch) -> None:
        """Count a batch in the form that TFDV reads: every column a list."""
        for name, column in zip(described.schema.names, described.columns, strict=True):
            kind = column.type.value_type
            if name not in self.many and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                self._add(name, pc.value_counts(pc.list_flatten(column).drop_null()))

    def __add__(self, other: FewValues) -> FewValues:
        """Both together."""
        names = (self.counts.keys() | other.counts.keys()) - self.many - other.many
        merged = FewValues(many=self.many | other.many)
        for name in sorted(names):
            merged.counts[name] = self.counts.get(name, Counter()) + other.counts.get(name, Counter())
            merged.let_go(name)
        return merged

    def write(self, features: Iterable[Any]) -> None:
        """Put the counts into `FeatureNameStatistics` messages."""
        for feature in features:
            counted = self.counts.get(feature.path.step[0])
            if counted:
                histogram = feature.custom_stats.add(name=VALUE_COUNTS).rank_histogram
                for value, count in sorted(counted.items()):
                    histogram.buckets.add(label=repr(value), sample_count=count)

    def let_go(self, name: str) -> None:
        """Stop counting a column that has too many values."""
        if len(self.counts[name]) > MOST_VALUES:
            del self.counts[name]
            self.many.add(name)

    def _add(self, name: str, found: pa.StructArray) -> None:
        counted = self.counts.setdefault(name, Counter())
        if len(found) <= MOST_VALUES:
            for value, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
                counted[float(value)] += count
            self.let_go(name)
        else:
            del self.counts[name]
            self.many.add(name)
