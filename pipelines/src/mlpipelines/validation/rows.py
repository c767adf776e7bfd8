"""Reads rows back: those that an anomaly is about, so that a person sees what the rule saw, and the label's classes.

Only the column in question (and the key, where a value is missing) is read, file by file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlpipelines.artifacts import KEY, Data, SplitName
from mlpipelines.project import ColumnType
from mlpipelines.validation.anomalies import Anomaly, Pick, shortened
from mlpipelines.validation.label_rules import ClassCounts

EXAMPLES = 3
_SPLITS: tuple[SplitName, ...] = ("train", "validation")


def with_examples(anomaly: Anomaly, data: Path, column_type: ColumnType | None) -> Anomaly:
    """The anomaly with up to three different values of its rows, and with their share where it was not known.

    Args:
        anomaly: it is returned as it is where it names no rows.
        data: a `Data` artifact.
        column_type: of `project.yaml`; timestamps are shown as times.
    """
    pick = anomaly.pick
    if pick is None:
        return anomaly
    splits = _SPLITS if anomaly.split is None else (anomaly.split,)
    matching, rows = 0, 0
    values: dict[str, None] = {}
    for batch in _batches([file for split in splits for file in Data(data).source_files(split)], anomaly.column):
        mask = _mask(batch.column(0), pick)
        rows += batch.num_rows
        matching += pc.sum(mask).as_py() or 0
        if len(values) < EXAMPLES:
            values.update(dict.fromkeys(_shown(batch.filter(mask), pick, column_type)))
    share = anomaly.share if anomaly.share is not None else matching / max(rows, 1)
    shown = tuple(values) or tuple(shortened(value) for value in pick.values if pick.kind == "among")  # gone: named, not found
    return replace(anomaly, share=share, examples=shown[:EXAMPLES])


def count_classes(data: Path, column: str) -> ClassCounts:
    """Rows of each class of the label, in both splits together. Whole numbers read as text without a point; a list counts each item."""
    counts: dict[str, float] = {}
    rows = 0
    for batch in _batches([file for split in _SPLITS for file in Data(data).source_files(split)], column):
        label = batch.column(0)
        rows += len(label)
        items = pc.list_flatten(label) if pa.types.is_list(label.type) or pa.types.is_large_list(label.type) else label
        for entry in pc.value_counts(items if pa.types.is_floating(items.type) else _as_binary(items)).to_pylist():
            value = entry["values"]
            if value is not None:
                name = value.decode(errors="replace") if isinstance(value, bytes) else f"{value:g}"
                counts[name] = counts.get(name, 0) + entry["counts"]
    return ClassCounts(rows=rows, counts=counts)


def _batches(files: Sequence[Path], column: str) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            if column in names:
                yield from file.iter_batches(columns=list(dict.fromkeys([column, *({KEY} & names)])))


def _mask(column: pa.Array, pick: Pick) -> pa.Array:
    """Which rows are meant, [rows], never null. A list is meant if any of its values is."""
    if pick.kind == "any":
        return pc.is_valid(column)
    if pick.kind == "missing":
        return pc.is_null(column, nan_is_null=True)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _any_of(column, _mask(pc.list_flatten(column), pick))
    if pick.kind == "between":
        number = column.cast(pa.float64())
        low, high = pick.low, pick.high
        upper = pc.less(number, high) if pick.without_high else pc.less_equal(number, high)
        inside = pc.equal(number, low) if low == high else pc.and_(pc.greater(number, low), upper)
        return pc.fill_null(inside, False)
    column = _as_binary(column)
    among = pc.is_in(column, value_set=pa.array([value.encode() for value in pick.values], type=column.type), skip_nulls=True)
    return among if pick.kind == "among" else pc.and_(pc.invert(among), pc.is_valid(column))


def _any_of(lists: pa.Array, mask: pa.Array) -> pa.Array:
    meant = pc.unique(pc.filter(pc.list_parent_indices(lists), mask))
    return pc.is_in(pa.array(range(len(lists)), type=meant.type), value_set=meant)


def _as_binary(column: pa.Array) -> pa.Array:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    return column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())


def _shown(rows: pa.RecordBatch, pick: Pick, column_type: ColumnType | None) -> list[str]:
    first = rows.slice(0, 50 * EXAMPLES)
    if pick.kind == "missing":
        keys = first.column(KEY).to_pylist() if KEY in first.schema.names else []
        return [f"{KEY} {shortened(str(key))}" for key in keys[:EXAMPLES]]
    column = first.column(0)
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    return list(dict.fromkeys(_text(value, column_type) for value in column.to_pylist()))[:EXAMPLES]


def _text(value: Any, column_type: ColumnType | None) -> str:
    if isinstance(value, bytes) and column_type == "bytes":
        return f"{len(value):,} bytes"
    if isinstance(value, bytes):
        return shortened(value.decode(errors="replace"))
    if isinstance(value, list):
        return shortened(", ".join(_text(item, column_type) for item in value))
    if column_type == "timestamp" and isinstance(value, int):
        return _time(value)
    return shortened(f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value))


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
