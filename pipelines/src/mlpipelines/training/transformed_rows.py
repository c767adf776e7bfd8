"""The transformed Parquet files of a split: what is in them, and their row groups as numpy arrays, read in parallel.

No TensorFlow here. Threads read row groups (Arrow lets go of the interpreter meanwhile) and every column becomes one array;
what was decoded stays in memory as far as it fits. `input_pipeline` makes batches of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.artifacts import LABEL
from mlpipelines.errors import DataRejected
from mlpipelines.project_code import FeatureSpec
from mlpipelines.training.row_windows import Piece, RowGroup

Columns = dict[str, np.ndarray]
"""Arrays of [rows, *shape], by feature name; the label under `LABEL`."""

KEPT_BYTES = 512 * 2**20
"""Decoded row groups that stay in memory from epoch to epoch; lists decode slowly."""
_AGAIN = "Run `millrace run` again from transform (`--no-cache`)."


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpec:
    """How `LABEL` becomes a tensor: `class` and `flag` int64 [batch], `number` float32 [batch], `classes` 0/1 float32 [batch, classes]."""

    kind: Literal["class", "classes", "flag", "number"]
    classes: int = 0

    @property
    def tensor(self) -> FeatureSpec:
        """Its dtype and shape."""
        if self.kind == "classes":
            return FeatureSpec(dtype="float32", shape=(self.classes,))
        return FeatureSpec(dtype="float32" if self.kind == "number" else "int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split on disk, and what its columns become."""

    groups: tuple[RowGroup, ...]
    features: Mapping[str, FeatureSpec]
    label: LabelSpec | None
    bytes_per_row: float
    """As Parquet holds them, uncompressed; for how large a window may be."""

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(group.rows for group in self.groups)

    def rows_within(self, size: int) -> int:
        """How many rows fit into `size` bytes once they are arrays; at least one."""
        arrays = sum(8 * math.prod(spec.shape) for spec in self.tensors.values())
        return max(1, int(size / max(arrays, self.bytes_per_row)))

    @property
    def tensors(self) -> dict[str, FeatureSpec]:
        """Features, and the label where there is one."""
        return {**self.features, **({LABEL: self.label.tensor} if self.label else {})}


def open_split(files: Sequence[Path], features: Mapping[str, FeatureSpec], label: LabelSpec | None) -> Split:
    """Read the footers of `files`.

    Raises:
        DataRejected: a file is not Parquet, or lacks a column that the manifest promises.
    """
    groups: list[RowGroup] = []
    size = 0
    wanted = {*features, *([LABEL] if label else [])}
    for file in files:
        try:
            footer = pq.read_metadata(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataRejected(f"{file} cannot be read as Parquet: {error}. {_AGAIN}") from error
        missing = wanted.difference(footer.schema.to_arrow_schema().names)
        if missing:
            raise DataRejected(f"{file} has no column {', '.join(sorted(missing))}. {_AGAIN}")
        sizes = [(footer.row_group(i).num_rows, footer.row_group(i).total_byte_size) for i in range(footer.num_row_groups)]
        groups += [RowGroup(file=file, index=i, rows=rows) for i, (rows, _) in enumerate(sizes) if rows]
        size += sum(group_size for _, group_size in sizes)
    rows = sum(group.rows for group in groups)
    return Split(groups=tuple(groups), features=features, label=label, bytes_per_row=size / max(1, rows))


class RowReader:
    """Reads pieces of row groups in parallel, in order. What it decoded it keeps, up to `KEPT_BYTES`, for the next epoch."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self._pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="row-groups")
        self._kept: dict[RowGroup, Columns] = {}
        self._room = KEPT_BYTES
        self._last: tuple[RowGroup, Columns] | None = None
        """The group in which the last window ended; the next one begins in it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, pieces: Sequence[Piece], places: np.ndarray | None = None) -> Columns:
        """The rows of `pieces`, one after the other, or each at its place among `places` (a permutation)."""
        groups = list(self._pool.map(self._group, [piece.group for piece in pieces]))
        self._last = (pieces[-1].group, groups[-1])
        for piece, group in zip(pieces, groups, strict=True):
            self._keep(piece.group, group)
        parts = [(group, piece.start, piece.stop) for piece, group in zip(pieces, groups, strict=True)]
        if places is None and len(parts) == 1:
            return {name: array[parts[0][1] : parts[0][2]] for name, array in groups[0].items()}
        return {name: _placed([group[name][start:stop] for group, start, stop in parts], places) for name in groups[0]}

    def _keep(self, group: RowGroup, columns: Columns) -> None:
        size = max(sum(array.nbytes for array in columns.values()), int(group.rows * self.split.bytes_per_row))
        if group not in self._kept and size <= self._room:
            self._kept[group] = columns
            self._room -= size

    def _group(self, group: RowGroup) -> Columns:
        if self._last is not None and self._last[0] == group:
            return self._last[1]
        kept = self._kept.get(group)
        return self._decoded(group) if kept is None else kept

    def _decoded(self, group: RowGroup) -> Columns:
        names = list(self.split.tensors)
        try:
            with pq.ParquetFile(group.file, memory_map=True) as file:
                table = file.read_row_group(group.index, columns=names, use_threads=False)
            return to_arrays(table, self.split)
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise DataRejected(f"{group.file}, row group {group.index}, cannot be read: {reason}. {_AGAIN}") from error


def to_arrays(table: pa.Table, split: Split) -> Columns:
    """The features (and the label, where there is one) of rows that were read, as arrays [rows, *shape].

    Raises:
        ValueError, pa.ArrowInvalid: a column does not have the shape or type that the manifest promises.
    """
    return {
        name: _array(table[name].combine_chunks(), spec, split.label if name == LABEL else None) for name, spec in split.tensors.items()
    }


def _placed(parts: Sequence[np.ndarray], places: np.ndarray | None) -> np.ndarray:
    """The rows of all parts in one array: one pass, where joining and then shuffling would be two."""
    if places is None:
        return np.concatenate(parts)
    rows, begin = np.empty((len(places), *parts[0].shape[1:]), parts[0].dtype), 0
    for part in parts:
        rows[places[begin : begin + len(part)]] = part
        begin += len(part)
    return rows


def _flat(values: pa.Array) -> pa.Array:
    """The elements of (nested) lists. `flatten` copies where a list might be null, so lists that are none are cut out."""
    while pa.types.is_nested(values.type):
        if pa.types.is_fixed_size_list(values.type) and values.null_count == 0:
            size = values.type.list_size
            values = values.values.slice(values.offset * size, len(values) * size)
        else:
            values = values.flatten()
    return values


def _array(values: pa.Array, spec: FeatureSpec, label: LabelSpec | None) -> np.ndarray:
    if label is not None and label.kind == "classes":
        return _multi_hot(values, label.classes)
    flat = _flat(values)
    if spec.dtype == "string":
        array = flat.cast(pa.binary()).to_numpy(zero_copy_only=False)
    else:
        array = flat.to_numpy(zero_copy_only=False).astype(spec.dtype, copy=False)
    return np.asarray(array).reshape(-1, *spec.shape)


def _multi_hot(lists: pa.ListArray, classes: int) -> np.ndarray:
    """[rows, classes] of 0 and 1 from lists of class ids."""
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    hot = np.zeros((len(lists), classes), np.float32)
    hot[np.repeat(np.arange(len(lists)), lengths), lists.flatten().to_numpy()] = 1.0
    return hot


def non_finite_features(split: Split) -> dict[str, int]:
    """How many values of each float feature are NaN or infinite, for those that have any."""
    floats = {name: spec for name, spec in split.features.items() if spec.dtype.startswith("float")}
    counts = dict.fromkeys(floats, 0)
    with RowReader(Split(groups=split.groups, features=floats, label=None, bytes_per_row=0)) as reader:
        for group in split.groups:
            for name, array in reader.read([Piece(group=group, start=0, stop=group.rows)]).items():
                counts[name] += int(array.size - np.isfinite(array).sum())
    return {name: count for name, count in counts.items() if count}


def label_counts(split: Split) -> np.ndarray:
    """Rows that have each class id, for the labels `class` and `classes` (as many as there are classes) and `flag` (two)."""
    if split.label is None:
        raise ValueError("there is no label to count")
    size = 2 if split.label.kind == "flag" else split.label.classes
    counts = np.zeros(size, np.int64)
    with RowReader(Split(groups=split.groups, features={}, label=split.label, bytes_per_row=0)) as reader:
        for group in split.groups:
            labels = reader.read([Piece(group=group, start=0, stop=group.rows)])[LABEL]
            counts += labels.sum(axis=0, dtype=np.int64) if split.label.kind == "classes" else np.bincount(labels, minlength=size)
    return counts


def class_weights(counts: np.ndarray, kind: Literal["none", "balanced", "sqrt"]) -> np.ndarray | None:
    """The weight of each class: inverse frequency or its square root, scaled so that rows weigh 1 on average. None for `none`."""
    if kind == "none":
        return None
    weights = 1.0 / np.maximum(counts, 1)
    if kind == "sqrt":
        weights = np.sqrt(weights)
    mean: float = (weights * counts).sum() / max(1, counts.sum())
    return np.asarray(weights / mean, np.float32)
