"""How Millrace writes rows: Parquet with the same bytes for the same rows, so that a file's hash stands for its content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.artifacts import KEY

ROW_GROUP = 65_536
"""Rows: large enough to compress, small enough to shuffle and to hold a few in memory."""


def write_rows(path: Path, rows: pa.Table, places: npt.NDArray[np.int64] | None = None) -> None:
    """Write the rows at `places` (all, where not given) in that order, one row group at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = rows.schema.remove_metadata()
    repeating: list[str] | bool = [field.name for field in schema if field.name != KEY and pa.types.is_string(field.type)]
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=repeating or False) as writer:
        count = rows.num_rows if places is None else len(places)
        for start in range(0, count, ROW_GROUP):
            part = rows.slice(start, ROW_GROUP) if places is None else rows.take(pa.array(places[start : start + ROW_GROUP]))
            writer.write_table(part.replace_schema_metadata(None), row_group_size=ROW_GROUP)


def read_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of one file."""
    table: Any = pq.read_table(path, columns=columns, partitioning=None)
    return table


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
