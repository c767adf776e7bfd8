"""What became known of predictions: of each row the label that arrived last, found by id.

Held in memory as Arrow, about a hundred bytes a label; the predictions that they are looked up for are not held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mlserving.predictions.records import TIME

_SCHEMA = pa.schema(
    [("key", pa.string()), ("truth", pa.string()), ("labelled_at", TIME), ("received_at", TIME), ("source", pa.string())]
)


@dataclass(frozen=True, slots=True)
class Labels:
    """The last label of each row that has one."""

    table: pa.Table

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch]) -> Labels:
        """From batches of the labels' log, in any order."""
        parts = [_narrow(batch) for batch in batches]
        table = pa.Table.from_batches(parts, _SCHEMA).sort_by([("received_at", "ascending"), ("labelled_at", "ascending")])
        columns = [name for name in _SCHEMA.names if name != "key"]
        last = table.group_by("key", use_threads=False).aggregate([(name, "last") for name in columns])
        return cls(last.rename_columns([name.removesuffix("_last") for name in last.column_names]).select(_SCHEMA.names).combine_chunks())

    def beside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`truth`, `labelled_at`, `received_at` and `source` for each row of a batch of predictions; null where there is no label."""
        places = pc.index_in(_keys(batch), value_set=self.table["key"])
        found = {name: self.table[name].combine_chunks() for name in _SCHEMA.names if name != "key"}
        return pa.RecordBatch.from_arrays([_taken(column, places) for column in found.values()], list(found))


def _taken(column: pa.Array | pa.ChunkedArray, places: pa.Array) -> pa.Array:
    taken = column.take(places)
    return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


def _narrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [_keys(batch), batch["label"], batch["labelled_at"], batch["received_at"], batch["source"]]
    return pa.RecordBatch.from_arrays([column.cast(field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def _keys(batch: pa.RecordBatch) -> pa.Array:
    return pc.binary_join_element_wise(batch["prediction_id"].cast(pa.string()), batch["row"].cast(pa.string()), "/")
