"""From whatever a source calls its types to the eight that `project.yaml` knows.

Every source hands over Arrow record batches; here each column becomes one of string, int64, float32, int64 seconds, binary
or a list of them (see `artifacts.Data`). What has one obvious meaning is converted: a whole float is an integer, ISO text is
a time, a JSON array in a text column is a list. What has none is refused with the rows that show it. Pure: Arrow in, Arrow
out. The story goes on in `row_keys.py`, which gives each row its identity.

Two kinds of damage are mended and counted instead of refused, because one bad byte should not stop a retrain: bytes that
are not UTF-8 become U+FFFD, and NUL, which neither TensorFlow's vocabularies nor PostgreSQL take, is removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import DataRejected
from mlpipelines.project import ColumnType

EXAMPLES = 3
ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "float": pa.float32(),
    "timestamp": pa.int64(),
    "bytes": pa.binary(),
    "[string]": pa.list_(pa.string()),
    "[integer]": pa.list_(pa.int64()),
    "[float]": pa.list_(pa.float32()),
}
_MISSING_MARKS = pa.array(["", "na", "n/a", "nan", "null", "none"])
_ZONED = r"\d[ T]\d{2}:\d{2}.*(Z|[+-]\d{2}(:?\d{2})?)$"
_EPOCH = r"^-?\d{9,11}$"  # fewer digits are as likely a date such as 20160401
_LATEST_SECOND = 10**11  # the year 5138: a larger number counts milliseconds or finer
_BROKEN = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError)


@dataclass(slots=True)
class Repairs:
    """What was mended in one column. Grows while batches are read."""

    broken_utf8: int = 0
    nul: int = 0
    null_items: int = 0

    def add(self, other: Repairs) -> None:
        """Count `other` in."""
        self.broken_utf8 += other.broken_utf8
        self.nul += other.nul
        self.null_items += other.null_items


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalBatch:
    """A batch in our names and types, and what was mended in each column that needed it."""

    rows: pa.RecordBatch
    repairs: Mapping[str, Repairs] = field(default_factory=dict)


def canonical_batch(
    batch: pa.RecordBatch, types: Mapping[str, ColumnType], *, theirs: Mapping[str, str], origin: str, first_row: int
) -> CanonicalBatch:
    """Cast the columns of `batch` to `types`.

    Args:
        batch: has at least the columns `theirs[name]` for each name of `types`.
        types: our column names and their types.
        theirs: our name → the source's name.
        origin: the file or table, for errors.
        first_row: how many rows of `origin` came before this batch, for errors.

    Raises:
        DataRejected: a value cannot be what `types` says; the report has up to three examples with their rows, counted from 1.
    """
    columns, repairs = [], {}
    for name, kind in types.items():
        mended = Repairs()
        values = batch.column(theirs[name])
        try:
            columns.append(canonical_array(values, kind, mended))
        except _BROKEN as error:
            raise _rejection(values, kind, name=name, theirs=theirs[name], origin=origin, first_row=first_row) from error
        if mended != Repairs():
            repairs[name] = mended
    schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in types.items()])
    return CanonicalBatch(rows=pa.RecordBatch.from_arrays(columns, schema=schema), repairs=repairs)


def canonical_array(values: pa.Array, kind: ColumnType, mended: Repairs) -> pa.Array:
    """`values` as the Arrow type of `kind`; repairs are added to `mended`.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError: some value has no such meaning.
    """
    values = _plain(values)
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), ARROW_TYPES[kind])
    if kind.startswith("["):
        return _to_list(values, _SCALARS[kind.strip("[]")], mended)
    return _SCALARS[kind](values, mended)


def _plain(values: pa.Array) -> pa.Array:
    """`values` without dictionary, extension or view around them."""
    kind = values.type
    if kind == pa.uuid():
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(values.storage)
    if pa.types.is_dictionary(kind):
        return _plain(values.dictionary_decode())
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return values.cast(pa.binary()).cast(pa.string(), safe=False)  # by way of binary: `_to_string` judges the bytes
    if pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return values.cast(pa.binary())
    return values


def _to_string(values: pa.Array, mended: Repairs) -> pa.Array:
    kind = values.type
    if pa.types.is_nested(kind):
        raise pa.ArrowInvalid(f"{kind} is not text")
    if pa.types.is_floating(kind):
        return _float_text(values)
    if not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
        return values.cast(pa.string())
    raw = values.cast(pa.binary())
    try:
        text = raw.cast(pa.string())
    except pa.ArrowInvalid:
        text = _repaired(raw, mended)
    nul = pc.sum(pc.match_substring(text, "\0")).as_py() or 0
    mended.nul += nul
    return pc.replace_substring(text, "\0", "") if nul else text


def _repaired(raw: pa.Array, mended: Repairs) -> pa.Array:
    texts = []
    for value in raw.to_pylist():
        try:
            texts.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append(value.decode("utf-8", "replace"))
            mended.broken_utf8 += 1
    return pa.array(texts, pa.string())


def _float_text(values: pa.Array) -> pa.Array:
    """Whole numbers without a fraction: an integer key that became a float, because a null came by, keeps its text."""
    numbers = _nan_to_null(values.cast(pa.float64()))
    whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**53))
    integers = pc.if_else(whole, numbers, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(integers, numbers.cast(pa.string()))


def _to_integer(values: pa.Array, mended: Repairs) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        text = _number_text(values, mended)
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            return text.cast(pa.float64()).cast(pa.int64())
    if pa.types.is_floating(kind):
        return _nan_to_null(values).cast(pa.int64())
    _refuse_times(kind)
    return values.cast(pa.int64())


def _to_float(values: pa.Array, mended: Repairs) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        values = _number_text(values, mended).cast(pa.float64())
    _refuse_times(kind)
    if not pa.types.is_floating(values.type):
        values = values.cast(pa.float64(), safe=False)
    return _nan_to_null(values).cast(pa.float32(), safe=False)


def _number_text(values: pa.Array, mended: Repairs) -> pa.Array:
    text = pc.utf8_trim_whitespace(_to_string(values, mended))
    missing = pc.is_in(pc.ascii_lower(text), value_set=_MISSING_MARKS)
    return pc.if_else(missing, pa.scalar(None, pa.string()), text) if pc.any(missing).as_py() else text


def _nan_to_null(values: pa.Array) -> pa.Array:
    """NaN and null both mean missing; only null is counted as such."""
    nan = pc.is_nan(values)
    return pc.if_else(nan, pa.scalar(None, values.type), values) if pc.any(nan).as_py() else values


def _refuse_times(kind: pa.DataType) -> None:
    if pa.types.is_temporal(kind):
        raise pa.ArrowInvalid(f"{kind} is a time, not a number")


def _to_timestamp(values: pa.Array, mended: Repairs) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _parsed_times(pc.utf8_trim_whitespace(_to_string(values, mended)))
    if pa.types.is_date(kind):
        return values.cast(pa.timestamp("s")).cast(pa.int64())
    if pa.types.is_timestamp(kind):
        return _floor_seconds(values)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        seconds = pc.floor(_nan_to_null(values)).cast(pa.int64()) if pa.types.is_floating(kind) else values.cast(pa.int64())
        return _plausible(seconds)
    raise pa.ArrowInvalid(f"{kind} is not a time")


def _floor_seconds(values: pa.Array) -> pa.Array:
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[values.type.unit]
    ticks = values.cast(pa.int64())
    if per_second == 1:
        return ticks
    whole = pc.divide(ticks, per_second)  # towards zero: before 1970 that is up
    return pc.if_else(pc.less(ticks, pc.multiply(whole, per_second)), pc.subtract(whole, 1), whole)


def _plausible(seconds: pa.Array) -> pa.Array:
    if pc.any(pc.greater_equal(pc.abs_checked(seconds), _LATEST_SECOND)).as_py():
        raise pa.ArrowInvalid("numbers as times count seconds since 1970; these are too large for that")
    return seconds


def _parsed_times(text: pa.Array) -> pa.Array:
    """ISO 8601 text, with or without offset (UTC then), or seconds since 1970 in nine to eleven digits."""
    nothing = pa.scalar(None, pa.string())
    text = pc.if_else(pc.equal(text, ""), nothing, text)
    zoned = pc.match_substring_regex(text, _ZONED)
    epoch = pc.match_substring_regex(text, _EPOCH)
    local = pc.and_(pc.invert(zoned), pc.invert(epoch))
    return pc.coalesce(
        _floor_seconds(pc.if_else(local, text, nothing).cast(pa.timestamp("us"))),
        _floor_seconds(pc.if_else(zoned, text, nothing).cast(pa.timestamp("us", "UTC"))),
        pc.if_else(epoch, text, nothing).cast(pa.int64()),
    )


def _to_bytes(values: pa.Array, mended: Repairs) -> pa.Array:  # noqa: ARG001 - one signature for all casts
    if not (pa.types.is_string(values.type) or pa.types.is_binary(values.type)):
        raise pa.ArrowInvalid(f"{values.type} is not bytes")
    return values.cast(pa.binary())


_Cast = Callable[[pa.Array, Repairs], pa.Array]
_SCALARS: dict[str, _Cast] = {
    "string": _to_string,
    "integer": _to_integer,
    "float": _to_float,
    "timestamp": _to_timestamp,
    "bytes": _to_bytes,
}


def _to_list(values: pa.Array, item: _Cast, mended: Repairs) -> pa.Array:
    """Lists without null items: those have no place in a sparse tensor, so they are left out and counted."""
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        values = _parsed_lists(_to_string(values, mended))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0), dtype=np.int64)
    items = _plain(values.flatten())
    items = item(items, mended) if not pa.types.is_null(items.type) else item(items.cast(pa.int64()), mended)
    valid = np.asarray(items.is_valid())
    if not valid.all():
        mended.null_items += int((~valid).sum())
        lengths = np.bincount(np.repeat(np.arange(len(values)), lengths)[valid], minlength=len(values))
        items = items.drop_null()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, items, mask=values.is_null())


def _parsed_lists(text: pa.Array) -> pa.Array:
    """JSON arrays in a text column, for sources that have no lists (CSV, most databases). Empty text is a missing list."""
    lists = [json.loads(value) if value else None for value in text.to_pylist()]
    if any(not isinstance(value, list) for value in lists if value is not None):
        raise ValueError("text in place of a list must be a JSON array")
    return pa.array(lists, pa.list_(pa.null())) if not any(lists) else pa.array(lists)


def _rejection(values: pa.Array, kind: ColumnType, *, name: str, theirs: str, origin: str, first_row: int) -> DataRejected:
    found = [(first_row + at + 1, repr(values[at].as_py())[:60]) for at in offenders(values, kind, EXAMPLES)]
    shown = ", ".join(f"{value} in row {row}" for row, value in found) or "no single value: only all of them together"
    named = f"{name!r}" if name == theirs else f"{name!r} (there: {theirs!r})"
    return DataRejected(
        f"{origin}: column {named} should be {kind} and is {values.type}, which cannot be read as {kind}: {shown}. "
        f"{_hint(kind)}Correct the source, or the column's type in project.yaml.",
        report=[{"column": name, "rule": f"type {kind}", "row": row, "example": value, "origin": origin} for row, value in found],
    )


def _hint(kind: ColumnType) -> str:
    if kind == "timestamp":
        return "A timestamp is a date or time type, ISO 8601 text (2016-04-01 or 2016-04-01T10:00:00Z) or whole seconds since 1970. "
    return 'A list is a list type or a JSON array such as ["a", "b"]. ' if kind.startswith("[") else ""


def offenders(values: pa.Array, kind: ColumnType, limit: int) -> list[int]:
    """The first `limit` positions of `values` whose value alone cannot be cast to `kind`, by halving: the cast itself is the only judge."""
    try:
        canonical_array(values, kind, Repairs())
    except _BROKEN:
        if len(values) <= 1:
            return [0] * len(values)
        half = len(values) // 2
        found = offenders(values[:half], kind, limit)
        if len(found) < limit:
            found += [half + at for at in offenders(values[half:], kind, limit - len(found))]
        return found
    return []
