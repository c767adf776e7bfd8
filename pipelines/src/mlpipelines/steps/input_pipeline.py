"""Transformed Parquet files as `tf.data` batches, quickly enough that the model never waits.

Python touches a window of rows at a time (see `row_windows`), never a batch and never a row: threads read row groups (Arrow
lets go of the interpreter meanwhile), one numpy gather for each column shuffles the window, and TensorFlow cuts it into
batches by itself. While the model trains on a window, the next one is made. Training is an endless stream, so that reading
goes on while the model is validated; `benchmarks/input_pipeline.py` measures rows a second.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from mlpipelines.artifacts import LABEL
from mlpipelines.errors import DataRejected
from mlpipelines.project_code import FeatureSpec
from mlpipelines.steps.row_windows import Piece, RowGroup, Shard, cut_windows, epoch_order, shuffled_rows, window_rows

Columns = dict[str, np.ndarray]
"""Arrays of [rows, *shape], by feature name; the label under `LABEL`."""

WEIGHT = "__weight"
WINDOW_BYTES = 512 * 2**20
"""A window holds no more than about this, whatever `training.shuffle_rows` says: rows may be images."""
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


def training_batches(
    split: Split,
    *,
    batch_size: int,
    shuffle_rows: int,
    seed: int,
    shard: Shard = Shard(),  # noqa: B008 (frozen)
    epoch: int = 0,
    step: int = 0,
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Shuffled batches without end, from `step` of `epoch` on: (features[, label[, weight]]), each [batch_size, *shape].

    An epoch has `steps_per_epoch(shard.rows(split.rows), batch_size)` batches; rows that fill no batch are left out, other
    ones each epoch. `weights` is the weight of each class id, for the labels `class` and `flag`.
    """
    rows = shard.rows(split.rows)
    batch = min(batch_size, rows)
    window = window_rows(min(shuffle_rows, _rows_in(split, WINDOW_BYTES)), batch)

    def windows() -> Iterator[Columns]:
        number, first = epoch, step
        with _Reader(split) as reader:
            while True:
                yield from _epoch(reader, shard, window=window, batch=batch, seed=seed, epoch=number, first=first, weights=weights)
                number, first = number + 1, 0

    return _batched(windows, split, batch=batch, whole=True, weighted=weights is not None).apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )


def ordered_batches(split: Split, *, batch_size: int, shard: Shard = Shard()) -> tf.data.Dataset:  # noqa: B008 (frozen)
    """One pass in the order of the files: (features[, label]); the last batch may be smaller."""
    window = window_rows(min(50_000, _rows_in(split, WINDOW_BYTES)), batch_size)

    def windows() -> Iterator[Columns]:
        with _Reader(split) as reader:
            for pieces in cut_windows(split.groups, shard=shard, rows=window):
                yield reader.read(pieces)

    batches = _batched(windows, split, batch=batch_size, whole=False, weighted=False)
    return batches.apply(tf.data.experimental.assert_cardinality(math.ceil(shard.rows(split.rows) / batch_size)))


def first_batch(split: Split, *, rows: int) -> tuple[Any, ...]:
    """A batch of up to `rows` rows as tensors: (features[, label]). To build a model with."""
    group = split.groups[0]
    with _Reader(split) as reader:
        columns = reader.read([Piece(group=group, start=0, stop=min(rows, group.rows))])
    tensors = {name: tf.constant(array, split.tensors[name].dtype) for name, array in columns.items()}
    return ({name: tensors[name] for name in split.features}, *([tensors[LABEL]] if split.label else []))


def non_finite_features(split: Split) -> dict[str, int]:
    """How many values of each float feature are NaN or infinite, for those that have any."""
    floats = {name: spec for name, spec in split.features.items() if spec.dtype.startswith("float")}
    counts = dict.fromkeys(floats, 0)
    with _Reader(Split(groups=split.groups, features=floats, label=None, bytes_per_row=0)) as reader:
        for group in split.groups:
            for name, array in reader.read([Piece(group=group, start=0, stop=group.rows)]).items():
                counts[name] += int(array.size - np.isfinite(array).sum())
    return {name: count for name, count in counts.items() if count}


def label_counts(split: Split) -> np.ndarray:
    """Rows of each class id, for the labels `class` (as many as there are classes) and `flag` (two)."""
    if split.label is None:
        raise ValueError("there is no label to count")
    size = split.label.classes if split.label.kind == "class" else 2
    counts = np.zeros(size, np.int64)
    with _Reader(Split(groups=split.groups, features={}, label=split.label, bytes_per_row=0)) as reader:
        for group in split.groups:
            counts += np.bincount(reader.read([Piece(group=group, start=0, stop=group.rows)])[LABEL], minlength=size)
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


class _Reader:
    """Reads pieces of row groups in parallel, in order. What it decoded it keeps, up to `KEPT_BYTES`, for the next epoch."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="row-groups")
        self._kept: dict[RowGroup, Columns] = {}
        self._room = KEPT_BYTES
        self._last: tuple[RowGroup, Columns] | None = None
        """The group in which the last window ended; the next one begins in it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, pieces: Sequence[Piece]) -> Columns:
        """The rows of `pieces`, one after the other."""
        groups = list(self._pool.map(self._group, [piece.group for piece in pieces]))
        self._last = (pieces[-1].group, groups[-1])
        for piece, group in zip(pieces, groups, strict=True):
            self._keep(piece.group, group)
        parts = [{name: array[p.start : p.stop] for name, array in group.items()} for p, group in zip(pieces, groups, strict=True)]
        return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _keep(self, group: RowGroup, columns: Columns) -> None:
        size = max(sum(array.nbytes for array in columns.values()), int(group.rows * self._split.bytes_per_row))
        if group not in self._kept and size <= self._room:
            self._kept[group] = columns
            self._room -= size

    def _group(self, group: RowGroup) -> Columns:
        if self._last is not None and self._last[0] == group:
            return self._last[1]
        kept = self._kept.get(group)
        return self._decoded(group) if kept is None else kept

    def _decoded(self, group: RowGroup) -> Columns:
        names = list(self._split.tensors)
        try:
            with pq.ParquetFile(group.file, memory_map=True) as file:
                table = file.read_row_group(group.index, columns=names, use_threads=False)
            return to_arrays(table, self._split)
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise DataRejected(f"{group.file}, row group {group.index}, cannot be read: {error}. {_AGAIN}") from error


def to_arrays(table: pa.Table, split: Split) -> Columns:
    """The features (and the label, where there is one) of rows that were read, as arrays [rows, *shape].

    Raises:
        ValueError, pa.ArrowInvalid: a column does not have the shape or type that the manifest promises.
    """
    return {
        name: _array(table[name].combine_chunks(), spec, split.label if name == LABEL else None) for name, spec in split.tensors.items()
    }


def _array(values: pa.Array, spec: FeatureSpec, label: LabelSpec | None) -> np.ndarray:
    if label is not None and label.kind == "classes":
        return _multi_hot(values, label.classes)
    while pa.types.is_nested(values.type):
        values = values.flatten()
    if spec.dtype == "string":
        array = values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    else:
        array = values.to_numpy(zero_copy_only=False).astype(spec.dtype, copy=False)
    return np.asarray(array).reshape(-1, *spec.shape)


def _multi_hot(lists: pa.ListArray, classes: int) -> np.ndarray:
    """[rows, classes] of 0 and 1 from lists of class ids."""
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    hot = np.zeros((len(lists), classes), np.float32)
    hot[np.repeat(np.arange(len(lists)), lengths), lists.flatten().to_numpy()] = 1.0
    return hot


def _epoch(
    reader: _Reader, shard: Shard, *, window: int, batch: int, seed: int, epoch: int, first: int, weights: np.ndarray | None
) -> Iterator[Columns]:
    """The windows of one epoch from batch `first` on, shuffled; only whole batches."""
    plans = cut_windows(epoch_order(reader._split.groups, seed=seed, epoch=epoch), shard=shard, rows=window)  # noqa: SLF001 (one module)
    done, skipped = divmod(first * batch, window)
    for number, pieces in list(enumerate(plans))[done:]:
        count = sum(piece.rows for piece in pieces)
        order = shuffled_rows(count, seed=seed, epoch=epoch, window=number)[skipped : count // batch * batch]
        skipped = 0
        if len(order):
            columns = {name: array[order] for name, array in reader.read(pieces).items()}
            yield {**columns, WEIGHT: weights[columns[LABEL]]} if weights is not None else columns


def _rows_in(split: Split, size: int) -> int:
    """How many rows fit into `size` bytes once they are arrays."""
    arrays = sum(8 * math.prod(spec.shape) for spec in split.tensors.values())
    return max(1, int(size / max(arrays, split.bytes_per_row)))


def _batched(windows: Any, split: Split, *, batch: int, whole: bool, weighted: bool) -> tf.data.Dataset:
    """Cut windows into batches of `batch` rows, inside TensorFlow."""
    specs = {**split.tensors, **({WEIGHT: FeatureSpec(dtype="float32")} if weighted else {})}
    signature = {name: tf.TensorSpec([None, *spec.shape], spec.dtype) for name, spec in specs.items()}

    def batches(window: dict[str, tf.Tensor]) -> tf.data.Dataset:
        rows = tf.shape(next(iter(window.values())), out_type=tf.int64)[0]
        return tf.data.Dataset.range(0, rows, batch).map(lambda start: one(window, start))

    def one(window: dict[str, tf.Tensor], start: tf.Tensor) -> tuple[Any, ...]:
        rows = {name: tensor[start : start + batch] for name, tensor in window.items()}
        if whole:
            rows = {name: tf.ensure_shape(tensor, [batch, *specs[name].shape]) for name, tensor in rows.items()}
        return ({name: rows[name] for name in split.features}, *(rows[name] for name in (LABEL, WEIGHT) if name in rows))

    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF  # every worker reads its own shard
    options.experimental_optimization.inject_prefetch = False  # it would hide from `waiting` how long the model waits
    stream = tf.data.Dataset.from_generator(windows, output_signature=signature).prefetch(1)
    return stream.flat_map(batches).prefetch(tf.data.AUTOTUNE).with_options(options)
