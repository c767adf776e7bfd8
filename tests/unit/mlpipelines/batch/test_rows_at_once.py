"""How many rows batch scoring holds at a time: few where they are large."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpipelines.batch.columns import Columns
from mlpipelines.batch.scoring import rows_at_once
from mlpipelines.project import Project

MEBIBYTE = 1 << 20
PROJECT = Project.model_validate(
    {
        "name": "images",
        "team": "catalogue",
        "task": "classification",
        "source": {"kind": "parquet", "path": "rows.parquet"},
        "features": {"image": "bytes"},
        "label": {"column": "kind"},
    }
)
COLUMNS = Columns(project=PROJECT, types={"image": "bytes"}, theirs={"image": "image"}, kept=())


@given(size=st.integers(0, MEBIBYTE), rows=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_images_are_held_by_their_size_and_never_more_than_some_hundred(size: int, rows: int) -> None:
    images = pa.array([os.urandom(size) for _ in range(rows)], pa.binary())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": images, "beside": ["a"] * rows}), sink)
    at_once = rows_at_once(pq.read_metadata(pa.BufferReader(sink.getvalue())), 0, COLUMNS)
    assert 1 <= at_once <= 256
    assert at_once * size <= 33 * MEBIBYTE
    assert at_once == 256 or (at_once + 1) * (size + 64) >= 31 * MEBIBYTE
