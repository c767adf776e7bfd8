"""What statistics say about each column, free of protocol buffers.

Training leaves TensorFlow Data Validation's statistics behind, the monitor counts the same of what was asked. Both are read as these
classes, so that what is computed of them (`distances`, the rules of `mlpipelines.validation`) is pure, and a test can write a column
in one line.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from mlserving.errors import ConfigError

RANKED_VALUES = 2000
"""So many of a text column's most frequent values are counted one by one."""
PILES = "millrace/piles"
"""The name, among a feature's `custom_stats`, of a histogram in which each pile of equal numbers has a bucket of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """`count` values lie above `low` and not above `high`; `low == high` is a pile of equal values."""

    low: float
    high: float
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The distribution of a numeric column's values, missing ones left out, as buckets of about equal count."""

    buckets: tuple[Bucket, ...]
    """Ascending, and none reaches into the next."""
    minimum: float = math.nan
    maximum: float = math.nan
    mean: float = math.nan
    _up_to: tuple[float, ...] = field(init=False, repr=False, compare=False)
    """How many values lie in each bucket and those before it: shares and quantiles are asked for hundreds of times."""
    _highs: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_up_to", tuple(accumulate(bucket.count for bucket in self.buckets)))
        object.__setattr__(self, "_highs", tuple(bucket.high for bucket in self.buckets))

    @property
    def total(self) -> float:
        """How many values there are."""
        return self._up_to[-1] if self._up_to else 0.0

    def share_up_to(self, value: float) -> float:
        """The share of values that are not above `value`, even inside a bucket."""
        return self._share(value, pile=True)

    def share_below(self, value: float) -> float:
        """The share of values below `value`; differs from `share_up_to` where values pile up."""
        return self._share(value, pile=False)

    def quantile(self, share: float) -> float:
        """The value that `share` (0 to 1) of the values do not exceed, even inside a bucket."""
        wanted = share * self.total
        place = bisect_left(self._up_to, wanted)
        if place == len(self.buckets):
            return self.buckets[-1].high
        bucket = self.buckets[place]
        width = bucket.high - bucket.low
        if not math.isfinite(width) or not bucket.count:
            return bucket.low
        return bucket.low + width * (wanted - self._up_to[place] + bucket.count) / bucket.count

    def _share(self, value: float, *, pile: bool) -> float:
        if not self.total:
            return 0.0
        place = bisect_right(self._highs, value)
        held = self._up_to[place - 1] if place else 0.0
        if not pile:
            held -= sum(bucket.count for bucket in takewhile(lambda each: each.low == value, reversed(self.buckets[:place])))
        if place < len(self.buckets):
            held += self.buckets[place].count * _part_up_to(self.buckets[place], value)
        return held / self.total


def _part_up_to(bucket: Bucket, value: float) -> float:
    """Of a bucket that ends above `value`."""
    if bucket.low >= value:
        return 0.0
    width = bucket.high - bucket.low
    return (value - bucket.low) / width if math.isfinite(width) else 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """How often each value of a text column occurs: all of them, or the `RANKED_VALUES` most frequent."""

    counts: Mapping[str, float]
    total: float
    """How many values there are, those not in `counts` among them."""
    distinct: int = 0

    @property
    def complete(self) -> bool:
        """Whether `counts` holds every value."""
        return self.distinct <= len(self.counts)

    @property
    def cutoff(self) -> float:
        """No value outside `counts` occurs more often than this."""
        return 0.0 if self.complete else min(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of one set of rows. It has `numbers` or `texts`, or neither where every row lacks it."""

    name: str
    rows: int
    missing: int = 0
    numbers: Numbers | None = None
    texts: Texts | None = None

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return self.rows - self.missing

    @property
    def missing_share(self) -> float:
        """The share of rows without a value; 0 without rows."""
        return self.missing / self.rows if self.rows else 0.0


def read_statistics(path: Path) -> statistics_pb2.DatasetFeatureStatisticsList:
    """A file of TensorFlow Data Validation's statistics.

    Raises:
        ConfigError: it is missing or damaged.
    """
    from google.protobuf.message import DecodeError

    try:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ConfigError(f"{path} cannot be read as statistics: {error}. Run `millrace run PROJECT_DIR` again.") from error


def columns_of(dataset: Any) -> dict[str, Column]:
    """The columns that one `DatasetFeatureStatistics` describes."""
    rows = int(dataset.num_examples)
    return {feature.path.step[0]: _column(feature, rows) for feature in dataset.features}


def _column(feature: Any, rows: int) -> Column:
    numeric = feature.WhichOneof("stats") == "num_stats"
    common = feature.num_stats.common_stats if numeric else feature.string_stats.common_stats
    present = int(common.num_non_missing)
    return Column(
        name=feature.path.step[0],
        rows=rows,
        missing=rows - present,
        numbers=_numbers(feature) if numeric and present else None,
        texts=_texts(feature.string_stats) if not numeric and present else None,
    )


def _numbers(feature: Any) -> Numbers | None:
    stats = feature.num_stats
    exact = [custom.histogram for custom in feature.custom_stats if custom.name == PILES]
    quantiles = [h for h in stats.histograms if h.type == statistics_pb2.Histogram.QUANTILES]
    if not exact and not quantiles:
        return None
    buckets = tuple(Bucket(low=b.low_value, high=b.high_value, count=b.sample_count) for b in (exact or quantiles)[0].buckets)
    return Numbers(buckets=buckets, minimum=stats.min, maximum=stats.max, mean=stats.mean)


def _texts(stats: Any) -> Texts:
    counts = {bucket.label: bucket.sample_count for bucket in stats.rank_histogram.buckets}
    return Texts(counts=counts, total=float(stats.common_stats.tot_num_values), distinct=int(stats.unique))
