"""Transformed Parquet files as `tf.data` batches, quickly enough that the model never waits.

Python touches a window of rows at a time (see `row_windows`), never a batch and never a row: `transformed_rows` reads it
shuffled, and TensorFlow cuts it into batches by itself. While the model trains on a window, the next one is made. Training
is an endless stream, so that reading goes on while the model is validated. `benchmarks/input_pipeline.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from mlpipelines.artifacts import LABEL
from mlpipelines.project_code import FeatureSpec
from mlpipelines.training.row_windows import Piece, Shard, cut_windows, epoch_order, shuffled_rows, window_rows
from mlpipelines.training.transformed_rows import Columns, RowReader, Split

WEIGHT = "__weight"
_BATCHES_AHEAD = 4
WINDOW_BYTES = 512 * 2**20
"""A window holds no more than about this, whatever `training.shuffle_rows` says: rows may be images."""


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
    window = window_rows(min(shuffle_rows, split.rows_within(WINDOW_BYTES)), batch)

    def windows() -> Iterator[Columns]:
        number, first = epoch, step
        with RowReader(split) as reader:
            while True:
                yield from _epoch(reader, shard, window=window, batch=batch, seed=seed, epoch=number, first=first, weights=weights)
                number, first = number + 1, 0

    return _batched(windows, split, batch=batch, whole=True, weighted=weights is not None).apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )


def ordered_batches(split: Split, *, batch_size: int, shard: Shard = Shard()) -> tf.data.Dataset:  # noqa: B008 (frozen)
    """One pass in the order of the files: (features[, label]); the last batch may be smaller."""
    window = window_rows(min(50_000, split.rows_within(WINDOW_BYTES)), batch_size)

    def windows() -> Iterator[Columns]:
        with RowReader(split) as reader:
            for pieces in cut_windows(split.groups, shard=shard, rows=window):
                yield reader.read(pieces)

    batches = _batched(windows, split, batch=batch_size, whole=False, weighted=False)
    return batches.apply(tf.data.experimental.assert_cardinality(math.ceil(shard.rows(split.rows) / batch_size)))


def first_batch(split: Split, *, rows: int) -> tuple[Any, ...]:
    """A batch of up to `rows` rows as tensors: (features[, label]). To build a model with."""
    group = split.groups[0]
    with RowReader(split) as reader:
        columns = reader.read([Piece(group=group, start=0, stop=min(rows, group.rows))])
    tensors = {name: tf.constant(array, split.tensors[name].dtype) for name, array in columns.items()}
    return ({name: tensors[name] for name in split.features}, *([tensors[LABEL]] if split.label else []))


def _epoch(
    reader: RowReader, shard: Shard, *, window: int, batch: int, seed: int, epoch: int, first: int, weights: np.ndarray | None
) -> Iterator[Columns]:
    """The windows of one epoch from batch `first` on, shuffled; only whole batches."""
    plans = cut_windows(epoch_order(reader.split.groups, seed=seed, epoch=epoch), shard=shard, rows=window)
    done, skipped = divmod(first * batch, window)
    for number, pieces in list(enumerate(plans))[done:]:
        count = sum(piece.rows for piece in pieces)
        if count // batch * batch > skipped:
            shuffled = reader.read(pieces, shuffled_rows(count, seed=seed, epoch=epoch, window=number))
            columns = {name: array[skipped : count // batch * batch] for name, array in shuffled.items()}
            yield {**columns, WEIGHT: weights[columns[LABEL]]} if weights is not None else columns
        skipped = 0


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
    # Its thread sleeps for up to a minute between two looks, and ending an iterator may wait for it to wake up (TensorFlow 2.21):
    # more often than not a training ended with half a minute of nothing.
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False  # it would hide from `waiting` how long the model waits
    stream = tf.data.Dataset.from_generator(windows, output_signature=signature).prefetch(1)
    return stream.flat_map(batches).prefetch(_BATCHES_AHEAD).with_options(options)
