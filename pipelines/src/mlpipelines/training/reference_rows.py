"""The rows by which `publish` knows that the exported model is the trained one.

Up to a thousand validation rows as a client would send them, and beside them what the model in memory answered for the same
rows as *Beam* transformed them: so a difference in the transform shows as well as one in the model.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from mlpipelines.artifacts import KEY, Data, Transformed
from mlpipelines.training.transformed_rows import Columns, Split, to_arrays
from mlserving.workspace import write_whole

ROWS = 1000


def write_reference(path: Path, *, data: Data, transformed: Transformed, split: Split, answer: Callable[[Columns], Columns]) -> int:
    """Write `artifacts.Model.reference` and return its rows. `answer` gives the outputs for transformed features.

    Args:
        path: where to.
        data: the raw rows.
        transformed: the same rows, transformed.
        split: how the validation rows' columns become arrays.
        answer: the model in memory.
    """
    keys = choose_keys(_keys(data.files("validation")), _keys(transformed.files("validation")))
    raw = _rows(data.files("validation"), keys)
    features = to_arrays(_rows(transformed.files("validation"), keys), split)
    outputs = answer({name: features[name] for name in split.features})
    for name, values in outputs.items():
        raw = raw.append_column(f"expected/{name}", _column(values))
    sink = pa.BufferOutputStream()
    pq.write_table(raw, sink)
    write_whole(path, sink.getvalue().to_pybytes())
    return int(raw.num_rows)


def choose_keys(raw: pa.Array, transformed: pa.Array, rows: int = ROWS) -> pa.Array:
    """Up to `rows` keys that name one row in both, spread evenly by the hash of the key: the same rows in every run."""
    both = pc.unique(transformed)
    for keys in (raw, transformed):
        counted = pc.value_counts(keys)
        single = counted.field("values").filter(pc.equal(counted.field("counts"), 1))
        both = both.filter(pc.is_in(both, value_set=single))
    hashes = np.array([zlib.crc32(key.encode()) for key in both.to_pylist()], np.uint32)
    return both.take(pa.array(np.argsort(hashes, kind="stable")[:rows]))


def _keys(files: list[Path]) -> pa.Array:
    return pa.concat_arrays([pq.read_table(file, columns=[KEY])[KEY].combine_chunks().cast(pa.string()) for file in files])


def _rows(files: list[Path], keys: pa.Array) -> pa.Table:
    """The rows with these keys, in the order of the keys."""
    found = ds.dataset([str(file) for file in files], format="parquet").to_table(filter=pc.is_in(pc.field(KEY), value_set=keys))
    places = pc.index_in(found[KEY].combine_chunks(), value_set=keys)
    return found.take(pc.sort_indices(places))


def _column(values: Any) -> pa.Array:
    """[rows] as it is, [rows, n] as a list of n, bytes as text."""
    flat = pa.array(values.reshape(-1))
    if pa.types.is_binary(flat.type):
        flat = flat.cast(pa.string())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))
