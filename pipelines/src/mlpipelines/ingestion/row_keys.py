"""Which row is which: an identity for every row, and numbers drawn from it.

A project's key column gives a row its identity; without one it is a hash of the row's content, with an ordinal for exact
repeats, because two identical purchases are two purchases. Splits, the sealed test set and the removal of rows that were
read twice all go by this identity. Pure. The hash is `pandas.util.hash_array`, which is documented to be deterministic, so a
row keeps its identity over runs, machines and releases. The story goes on in `splits.py`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

Hashes = npt.NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MISSING = np.uint64(0x5851F42D4C957F2D)


def text_hashes(values: pa.Array, seed: str = "") -> Hashes:
    """A 64-bit hash of each string or binary value, which depends on `seed`; null counts as a value of its own."""
    encoded = values.dictionary_encode()
    distinct = np.asarray(encoded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
    key = hashlib.sha256(seed.encode()).hexdigest()[:16]
    table = np.append(hash_array(distinct, hash_key=key, categorize=False), _MISSING)
    return np.asarray(table[np.asarray(pc.fill_null(encoded.indices, len(distinct)))], dtype=np.uint64)


def mixed(hashes: Hashes, purpose: str) -> Hashes:
    """Other numbers from the same hashes, independent of them, one set for each `purpose` (the finaliser of SplitMix64)."""
    word = np.uint64(int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big"))
    z = hashes + word
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def content_hashes(rows: pa.Table) -> Hashes:
    """A hash of each row over all columns of `rows`, whatever their order."""
    return np.concatenate([np.zeros(0, dtype=np.uint64), *(_batch_hashes(batch) for batch in rows.to_batches())])


def _batch_hashes(batch: pa.RecordBatch) -> Hashes:
    combined = np.zeros(batch.num_rows, dtype=np.uint64)
    for name in sorted(batch.schema.names):
        combined = mixed(combined * _ODD ^ value_hashes(batch[name]), name)
    return combined


def content_keys(rows: pa.Table) -> pa.Array:
    """The identity of rows without a key: 16 hexadecimal digits, and `-2`, `-3`, … for the second, third, … identical row."""
    hashes = content_hashes(rows)
    keys = hexadecimal(hashes)
    ordinals = _ordinals(hashes)
    repeats = np.flatnonzero(ordinals)
    if not len(repeats):
        return keys
    suffixes = pa.array([f"-{n + 1}" for n in ordinals[repeats].tolist()], pa.string())
    renamed = pc.binary_join_element_wise(keys.take(pa.array(repeats)), suffixes, "")
    return pc.replace_with_mask(keys, pa.array(ordinals > 0), renamed)


def repeated(keys: pa.Array, limit: int = 3) -> tuple[int, list[tuple[str, int]]]:
    """How many keys occur more than once, and up to `limit` of them with how often."""
    if pc.count_distinct(keys).as_py() == len(keys):
        return 0, []
    counts = pc.value_counts(keys)
    often = counts.filter(pc.greater(counts.field("counts"), 1))
    shown = [(str(item["values"]), int(item["counts"])) for item in often.slice(0, limit).to_pylist()]
    return len(often), shown


def value_hashes(values: pa.Array) -> Hashes:
    """A hash of each value of any canonical type."""
    kind = values.type
    if pa.types.is_list(kind):
        return _list_hashes(values)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return text_hashes(values)
    numbers: npt.NDArray[Any] = np.asarray(pc.fill_null(values, 0))
    return np.where(np.asarray(values.is_null()), _MISSING, hash_array(numbers, categorize=False))


def _list_hashes(values: pa.ListArray) -> Hashes:
    """Each item's hash weighted by its place, summed; lengths count, so that an empty list is not a missing one."""
    lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0), dtype=np.int64)
    ends = np.cumsum(lengths)
    places = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    weighted = value_hashes(values.flatten()) * (2 * places.astype(np.uint64) + np.uint64(1))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    hashes = sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64) * _ODD
    return np.where(np.asarray(values.is_null()), _MISSING, hashes)


def _ordinals(hashes: Hashes) -> npt.NDArray[np.int64]:
    """0 for the first row with a hash, 1 for the second, and so on."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, np.int64)
    counts = np.diff(np.append(starts, len(ordered)))
    ordinals = np.empty(len(hashes), dtype=np.int64)
    ordinals[order] = np.arange(len(ordered)) - np.repeat(starts, counts)
    return ordinals


def hexadecimal(hashes: Hashes) -> pa.Array:
    """`f"{value:016x}"` for all at once, by writing Arrow's buffers."""
    digits = pa.py_buffer(hashes.astype(">u8").tobytes().hex().encode("ascii"))
    offsets = pa.py_buffer(np.arange(0, 16 * len(hashes) + 1, 16, dtype=np.int32).tobytes())
    return pa.StringArray.from_buffers(len(hashes), offsets, digits)
