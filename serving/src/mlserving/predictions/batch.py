"""Rows that wait to become files: collected by model, day, version and signature, so that all rows of a file have the same columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from mlserving.predictions.decode import Column, Decoded
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.records import PREDICTION_FIELDS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Key = tuple[str, str, int, str]
"""Model, day, version, signature."""


def time_of(exchange: Exchange) -> datetime:
    """When it arrived. Raises OverflowError where that is no time."""
    return _EPOCH + timedelta(microseconds=exchange.time_us)


class Batch:
    """What was taken from the spool and is not in a file yet."""

    def __init__(self) -> None:
        self.rows = 0
        self._groups: defaultdict[Key, list[Group]] = defaultdict(list)

    def add(self, exchange: Exchange, decoded: Decoded) -> None:
        """Collect the rows of an exchange."""
        key = (exchange.model, f"{time_of(exchange):%Y-%m-%d}", exchange.version, decoded.signature)
        group = next((each for each in self._groups[key] if each.fits(decoded)), None)
        if group is None:
            group = Group(exchange.model, exchange.version, time_of(exchange))
            self._groups[key].append(group)
        group.add(exchange, decoded)
        self.rows += decoded.rows

    def groups(self) -> Iterator[Group]:
        """Each is one file."""
        for groups in self._groups.values():
            yield from groups


@dataclass(slots=True)
class _Values:
    type: pa.DataType
    values: list[Any]


class Group:
    """Rows of one file: lists by column."""

    def __init__(self, model: str, version: int, time: datetime) -> None:
        self.model, self.version, self.time = model, version, time
        self.rows = 0
        self._fixed: dict[str, list[Any]] = {name: [] for name in PREDICTION_FIELDS.names}
        self._columns: dict[str, _Values] = {}

    def fits(self, decoded: Decoded) -> bool:
        """Whether the columns that both have are of the same types."""
        return all(name not in self._columns or self._columns[name].type == column.type for name, column in decoded.columns.items())

    def add(self, exchange: Exchange, decoded: Decoded) -> None:
        """Append the rows."""
        rows = decoded.rows
        for name, value in (
            ("prediction_id", exchange.prediction_id), ("time", exchange.time_us), ("model", exchange.model), ("version", exchange.version),
            ("track", exchange.track), ("protocol", exchange.protocol), ("signature", decoded.signature),
            ("latency_ms", exchange.latency_us / 1000),
        ):  # fmt: skip
            self._fixed[name].extend([value] * rows)
        self._fixed["row"].extend(range(rows))
        self._fixed["label"].extend(decoded.labels)
        self._fixed["confidence"].extend(decoded.confidences)
        for name, column in decoded.columns.items():
            self._extend(name, column)
        self.rows += rows

    def table(self) -> pa.Table:
        """The rows as Arrow: the fixed columns, then the others by name."""
        fixed = [pa.array(self._fixed[field.name], field.type) for field in PREDICTION_FIELDS]
        others = {name: pa.array(self._padded(column), column.type) for name, column in sorted(self._columns.items())}
        schema = pa.schema([*PREDICTION_FIELDS, *(pa.field(name, array.type) for name, array in others.items())])
        return pa.Table.from_arrays([*fixed, *others.values()], schema=schema)

    def _extend(self, name: str, column: Column) -> None:
        if name not in self._columns:
            self._columns[name] = _Values(column.type, [])
        values = self._columns[name].values
        values.extend([None] * (self.rows - len(values)))  # exchanges that did not have it
        values.extend(column.values)

    def _padded(self, column: _Values) -> list[Any]:
        return column.values + [None] * (self.rows - len(column.values))
