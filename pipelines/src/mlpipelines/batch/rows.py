"""A batch of raw rows, judged row by row: what the model can be asked, and what cannot be scored with the reason.

`ingest` refuses a whole table over one wrong value, which is right for training. Here everybody else's prediction is still owed, so
a row that cannot be cast, or that misses what may not be missing, is set aside and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlpipelines.batch.columns import ROW, Columns
from mlpipelines.ingestion.canonical import ARROW_TYPES, Repairs, canonical_array, offenders
from mlpipelines.project import ColumnType

_BROKEN = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError)
_SHOWN = 60
_REASON = "reason"
Reasons = npt.NDArray[np.object_]
"""Why each row cannot be scored [rows]; None where it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Raw rows, cast, with what is wrong with them."""

    rows: pa.RecordBatch
    """The columns of `Columns.types`, cast; null where the value could not be."""
    reasons: Reasons


def judge_rows(batch: pa.RecordBatch, columns: Columns) -> Judged:
    """Cast the columns of `batch` (the file's names) and find the rows that cannot be asked."""
    reasons: Reasons = np.full(batch.num_rows, None, dtype=object)
    cast = [_cast(batch.column(columns.theirs[name]), name, kind, reasons) for name, kind in columns.types.items()]
    rows = pa.RecordBatch.from_arrays(cast, schema=pa.schema([pa.field(n, ARROW_TYPES[k]) for n, k in columns.types.items()]))
    for name, kind in columns.project.features.items():
        if kind in ("integer", "timestamp"):
            _require_values(rows.column(name), name, reasons)
    key = columns.project.key
    if key in columns.types:
        _require_values(rows.column(key), key, reasons)
    return Judged(rows=rows, reasons=reasons)


def prediction_ids(
    columns: Columns, rows: pa.RecordBatch, places: npt.NDArray[np.int64], *, model: str, version: int, file: str
) -> list[str]:
    """An id for each row that is the same whenever the same row is scored by the same version: 32 hexadecimal digits.

    By the project's key, and its time where the file has it (who is scored every day is predicted every day); in a file without
    the key by `file` and the row's place in it.

    Args:
        columns: of the file.
        rows: cast rows; the key is never null.
        places: the rows' places in the file, from 0.
        model: the model's name.
        version: its version.
        file: the file's name and content hash.
    """
    project = columns.project
    root = blake2b(f"{project.name}\0{model}\0{version}\0".encode(), digest_size=16)
    if project.key is None or project.key not in columns.types:
        root.update(b"row\0" + file.encode("utf-8", "surrogateescape") + b"\0")
        return [_hashed(root, str(place)) for place in places.tolist()]
    root.update(b"key\0")
    keys = rows.column(project.key).cast(pa.string()).to_pylist()
    if project.time is None or project.time not in columns.types:
        return [_hashed(root, key) for key in keys]
    return [
        _hashed(root, f"{key}\0{'' if time is None else time}")
        for key, time in zip(keys, rows.column(project.time).to_pylist(), strict=True)
    ]


def _hashed(root: Any, text: str) -> str:
    digest = root.copy()
    digest.update(text.encode())
    found: str = digest.hexdigest()
    return found


def _cast(values: pa.Array, name: str, kind: ColumnType, reasons: Reasons) -> pa.Array:
    try:
        return canonical_array(values, kind, Repairs())
    except _BROKEN:
        wrong = offenders(values, kind, len(values))
    if not wrong:  # only all of them together cannot be cast: nobody's row in particular, so everybody's
        wrong = list(range(len(values)))
    for place in wrong:
        _reject(reasons, place, f"column {name!r}: {repr(values[place].as_py())[:_SHOWN]} cannot be read as {kind}")
    mask = np.zeros(len(values), dtype=np.bool_)
    mask[wrong] = True
    return canonical_array(values.take(pa.array(np.arange(len(values)), mask=mask)), kind, Repairs())


def _require_values(values: pa.Array, name: str | None, reasons: Reasons) -> None:
    for place in np.flatnonzero(np.asarray(values.is_null())).tolist():
        _reject(reasons, place, f"column {name!r} is missing")


def _reject(reasons: Reasons, place: int, reason: str) -> None:
    """The first reason stands."""
    if reasons[place] is None:
        reasons[place] = reason


def rejected_rows(batch: pa.RecordBatch, places: npt.NDArray[np.int64], reasons: Sequence[str]) -> pa.RecordBatch:
    """Raw rows as they are told to people: where they stood, why they could not be scored, what they held."""
    raw = [batch.column(at) for at, name in enumerate(batch.schema.names) if name not in (ROW, _REASON)]
    head = [pa.array(places, pa.int64()), pa.array(reasons, pa.string())]
    return pa.RecordBatch.from_arrays([*head, *raw], schema=rejected_schema(batch.schema))


def rejected_schema(raw: pa.Schema) -> pa.Schema:
    """The columns of a file of rejected rows, for raw rows of this schema."""
    theirs = [pa.field(field.name, field.type) for field in raw if field.name not in (ROW, _REASON)]
    return pa.schema([pa.field(ROW, pa.int64()), pa.field(_REASON, pa.string()), *theirs])
