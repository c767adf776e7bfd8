"""Counting what was asked, column by column, in memory that does not grow with the rows.

A number is counted between the places at which the training distribution would be cut (`distances.cut_points`), a text value by
itself as long as there are not too many; nothing else of a row is kept. What is missing is spelled as clients spell it, which have
no null to send: "" for text, NaN for floats, -1 for integers (`mlserving.client.request`), each only where training did not know
it as a value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlserving.statistics.columns import RANKED_VALUES, Bucket, Column, Numbers, Texts
from mlserving.statistics.distances import cut_points

MOST_VALUES = 20_000
"""Text values counted one by one; beyond, the rarer half is let go, and what was let go is only part of the total."""


class NumberCounter:
    """Numbers between the cuts of a reference. Each cut has a count of its own, for values pile up."""

    def __init__(self, reference: Numbers) -> None:
        self._cuts = np.array(cut_points(reference), np.float64)
        self._counts = np.zeros(2 * len(self._cuts) + 1, np.int64)
        self._sum, self._minimum, self._maximum = 0.0, np.inf, -np.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Count `values`, none of which is NaN."""
        if not len(values):
            return
        places = np.searchsorted(self._cuts, values, "left") + np.searchsorted(self._cuts, values, "right")
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(values[np.isfinite(values)].sum())
        self._minimum, self._maximum = min(self._minimum, float(values.min())), max(self._maximum, float(values.max()))

    def numbers(self) -> Numbers | None:
        """What was counted; None where nothing was."""
        total = int(self._counts.sum())
        if not total:
            return None
        bounds = [-np.inf, *self._cuts, np.inf]
        buckets = []
        for place, count in enumerate(self._counts):
            low, high = (bounds[place // 2], bounds[place // 2 + 1]) if place % 2 == 0 else (bounds[(place + 1) // 2],) * 2
            buckets.append(Bucket(low=float(low), high=float(high), count=float(count)))
        return Numbers(buckets=tuple(buckets), minimum=self._minimum, maximum=self._maximum, mean=self._sum / total)


class TextCounter:
    """Text values, the frequent ones for certain."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._total, self._let_go = 0, 0

    def add(self, values: pa.Array) -> None:
        """Count `values`, none of which is null."""
        self._total += len(values)
        for entry in pc.value_counts(values):
            self._counts[entry["values"].as_py()] += entry["counts"].as_py()
        if len(self._counts) > MOST_VALUES:
            kept = self._counts.most_common(MOST_VALUES // 2)
            self._let_go += len(self._counts) - len(kept)
            self._counts = Counter(dict(kept))

    def texts(self) -> Texts | None:
        """What was counted; None where nothing was."""
        if not self._total:
            return None
        listed = dict(self._counts.most_common(RANKED_VALUES))
        return Texts(counts={value: float(count) for value, count in listed.items()}, total=float(self._total), distinct=self.distinct)

    @property
    def distinct(self) -> int:
        """Different values seen; too high where values were let go and came again."""
        return len(self._counts) + self._let_go

    def share_outside(self, known: frozenset[str]) -> float:
        """The share of values that are not among `known`."""
        inside = sum(count for value, count in self._counts.items() if value in known)
        return 1 - inside / self._total if self._total else 0.0


@dataclass(slots=True)
class ColumnCounter:
    """One column of what was asked, counted as `reference` needs it."""

    reference: Column
    rows: int = 0
    missing: int = 0
    unreadable: str = ""
    """The type in the log, where it is not one that training had."""
    _known: frozenset[str] = frozenset()
    _numbers: NumberCounter | None = field(default=None)
    _texts: TextCounter | None = field(default=None)

    def __post_init__(self) -> None:
        if self.reference.numbers is not None:
            self._numbers = NumberCounter(self.reference.numbers)
        if self.reference.texts is not None:
            self._texts, self._known = TextCounter(), frozenset(self.reference.texts.counts)

    def add(self, values: pa.Array) -> None:
        """Count a column of a batch: scalars or lists."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        self.rows += len(values)
        if _is_list(values.type):
            flat, parents = _flattened(values)
            kept = self._present(flat)
            self.missing += len(values) - len(np.unique(parents[kept]))
        else:
            flat, kept = values, self._present(values)
            self.missing += int(len(values) - kept.sum())
        self._count(flat.filter(pa.array(kept)))

    def add_absent(self, rows: int) -> None:
        """Count `rows` of a batch that has no such column."""
        self.rows += rows
        self.missing += rows

    def column(self) -> Column:
        """What was counted."""
        numbers = self._numbers.numbers() if self._numbers else None
        texts = self._texts.texts() if self._texts else None
        return Column(name=self.reference.name, rows=self.rows, missing=self.missing, numbers=numbers, texts=texts)

    @property
    def new_share(self) -> float | None:
        """The share of values that training did not list; None for numbers."""
        return self._texts.share_outside(self._known) if self._texts else None

    def _count(self, present: pa.Array) -> None:
        if self._numbers is not None and _is_number(present.type):
            self._numbers.add(np.asarray(present.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64))
        elif self._texts is not None and _is_text(present.type):
            self._texts.add(present.cast(pa.string(), safe=False) if _is_utf8(present.type) else _decoded(present))
        elif (self._numbers or self._texts) and len(present):
            self.unreadable = str(present.type)

    def _present(self, values: pa.Array) -> npt.NDArray[np.bool_]:
        present = pc.is_valid(values)
        if pa.types.is_floating(values.type):
            present = pc.and_(present, pc.invert(pc.fill_null(pc.is_nan(values), True)))
        elif _is_text(values.type) and "" not in self._known:
            present = pc.and_(present, pc.fill_null(pc.greater(pc.binary_length(values), 0), False))
        elif pa.types.is_signed_integer(values.type) and self._negative_is_missing:
            present = pc.and_(present, pc.fill_null(pc.not_equal(values, pa.scalar(-1, values.type)), False))
        return np.asarray(present.to_numpy(zero_copy_only=False), np.bool_)

    @property
    def _negative_is_missing(self) -> bool:
        return self.reference.numbers is None or self.reference.numbers.minimum > -1


def _flattened(values: pa.Array) -> tuple[pa.Array, npt.NDArray[Any]]:
    return pc.list_flatten(values), np.asarray(pc.list_parent_indices(values).to_numpy(zero_copy_only=False))


def _decoded(values: pa.Array) -> pa.Array:
    """Bytes as text; what is no UTF-8 is shown as such."""
    return pa.array([value.decode(errors="replace") for value in values.to_pylist()], pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_utf8(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(_is_utf8(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
