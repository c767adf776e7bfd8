"""Why a prediction is what it is: how much of its score each feature makes, against a row to compare with.

Two methods, both complete: what the features make adds up to the score minus the score of the row to compare with.

`shapley` asks any model. The project's raw features are put from the asked row into the row to compare with, one after the other, and what the
score gains as a feature comes is its part; averaged over orders, that is the Shapley value (Shapley, 1953). Orders are sampled
(Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009; Štrumbelj and Kononenko, 2010), each with its
reverse (Mitchell et al., "Sampling Permutations for Shapley Value Estimation", 2022). They are part of the graph: one question, one answer.

`integrated_gradients` asks a model whose transformed features are all floats: it adds up the score's gradient along the straight way from the
row to compare with (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017), at the points of Gauss and Legendre.

`export.py` puts either into the exported graph; decision 0017 says why there are two. Everything here is TensorFlow on request inputs
except `row_to_compare_with`, which reads the training rows once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from mlpipelines.errors import ConfigError
from mlpipelines.project import ColumnType, Project
from mlpipelines.transformation import raw_features

EXPLAINED_BY, ATTRIBUTIONS, BASE = "explained_by", "attributions", "base_score"
"""What an explained answer holds beside the usual outputs: names of features [batch, n] and their parts [batch, n], the largest first whatever
its sign, and the score of the row to compare with [batch]. A model's own `explain` says them of whatever it answers by."""
EXPLAINED_BY_LABEL = "explained_by_label"
"""The label of each of `EXPLAINED_BY` [batch, n], where these are rows."""

COMMON = 10
"""A text that so many training rows have may stand in the row to compare with."""
_AT_ONCE = 8
"""Orders that are tried in one call of the model."""
_SEED = 17

Row = dict[str, Any]
Tensors = dict[str, tf.Tensor]
Score = Callable[[Tensors], tf.Tensor]
"""Features of some copies of the batch, one after the other, to the score of each row."""


def row_to_compare_with(project: Project, files: Sequence[Path]) -> Row:
    """`deployment.explanations.compare_with`, and for what it does not name a typical value of the training rows in `files`.

    Typical is the median of a number, integer or time, and the most frequent text where `COMMON` rows have it; else the value is missing. No value
    that only few rows have leaves the training rows by this way, apart from numbers.
    """
    explanations = project.deployment.explanations
    given = explanations.compare_with if explanations else {}
    return {name: _given(given[name], kind) if name in given else _typical(name, kind, files) for name, kind in project.features.items()}


def _given(value: Any, kind: ColumnType) -> Any:
    return raw_features.missing(kind) if value is None else value


def _typical(name: str, kind: ColumnType, files: Sequence[Path]) -> Any:
    if raw_features.is_list(kind) or kind == "bytes":
        return raw_features.missing(kind)
    chunks = [chunk for file in files for chunk in pq.read_table(file, columns=[name])[name].chunks]
    known = pc.drop_null(pa.chunked_array(chunks)) if chunks else pa.array([], pa.int64())
    if not len(known):
        return raw_features.missing(kind)
    if kind != "string":
        return pc.quantile(known, 0.5, interpolation="lower")[0].as_py()
    counted = pa.table(pc.value_counts(known.cast(pa.string())).flatten(), ["value", "rows"])
    first = counted.sort_by([("rows", "descending"), ("value", "ascending")]).slice(0, 1).to_pylist()[0]
    return first["value"] if first["rows"] >= COMMON else raw_features.missing(kind)


def orders_of(features: int, samples: int) -> npt.NDArray[np.int32]:
    """Orders of so many features [orders, features], each with its reverse: all there are, if `samples` are enough, else drawn by a fixed seed."""
    if math.factorial(min(features, 20)) <= samples:
        return np.array(list(itertools.permutations(range(features))), np.int32)
    random = np.random.default_rng(_SEED)
    drawn = [random.permutation(features) for _ in range((samples + 1) // 2)]
    return np.array([order for each in drawn for order in (each, each[::-1])], np.int32)


def shapley(score: Score, asked: Tensors, compared: Tensors, orders: npt.NDArray[np.int32]) -> tf.Tensor:
    """What each feature makes of the score of each row [batch, features], in the order of `asked`.

    Args:
        score: of rows that have some features of the one and some of the other; they add up exactly to the difference of both ends.
        asked: the features, [batch] or [batch, n].
        compared: the same of one row, [1] or [1, n].
        orders: from `orders_of`.
    """
    count, features = orders.shape
    at_once = max(size for size in range(1, _AT_ONCE + 1) if count % size == 0)
    places = np.argsort(orders, axis=1).astype(np.int32)  # of each feature, in each order
    filled = places[:, None, :] < np.arange(features + 1)[:, None]  # [orders, features + 1, features]: whether a row has the asked value
    blocks = tf.constant(filled.reshape(-1, at_once * (features + 1), features))
    places_of = tf.constant(places.reshape(-1, at_once, features))
    batch = tf.shape(next(iter(asked.values())))[0]

    def more(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        block = blocks[number]
        rows = {name: _chosen(block[:, i], asked[name], compared[name]) for i, name in enumerate(asked)}
        values = tf.reshape(score(rows), [at_once, features + 1, batch])
        gains = tf.gather(values[:, 1:] - values[:, :-1], places_of[number], batch_dims=1)  # from the place in the order to the feature
        return number + 1, total + tf.transpose(tf.reduce_sum(gains, axis=0))

    started = tf.zeros(tf.stack([batch, features]))
    shapes = [tf.TensorShape([]), tf.TensorShape([None, features])]
    _, total = tf.while_loop(lambda number, _: number < len(blocks), more, [tf.constant(0), started], shapes)
    return total / count


def _chosen(filled: tf.Tensor, asked: tf.Tensor, compared: tf.Tensor) -> tf.Tensor:
    """The batch once for each of `filled` [copies], with the asked values where it is true: [copies * batch] or [copies * batch, n]."""
    flags = tf.reshape(filled, [-1, *[1] * len(asked.shape)])
    copies = tf.where(flags, asked[tf.newaxis], compared[tf.newaxis])
    return tf.reshape(copies, tf.concat([[-1], tf.shape(asked)[1:]], axis=0))


def integrated_gradients(score: Score, asked: Tensors, compared: Tensors, points: int) -> tf.Tensor:
    """What each feature makes of the score of each row [batch, features], a feature of several numbers by their sum.

    Args:
        score: differentiable.
        asked: float features, [batch] or [batch, n].
        compared: the same of one row, [1] or [1, n].
        points: on the way; the parts add up to the difference of both ends the better the more there are.

    Raises:
        ConfigError: the score has no gradient.
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    at, weight = tf.constant((nodes + 1) / 2, tf.float32), tf.constant(weights / 2, tf.float32)
    way = {name: asked[name] - compared[name] for name in asked}

    def more(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        here = {name: compared[name] + at[number] * way[name] for name in asked}
        with tf.GradientTape() as tape:
            tape.watch(here)
            value = tf.reduce_sum(score(here))
        slopes = tape.gradient(value, here)
        if all(slope is None for slope in slopes.values()):
            raise ConfigError(
                "deployment.explanations.method is integrated_gradients, and the model's score has no gradient. Set it to shapley in project.yaml."
            )
        parts = [_summed(way[name], slope) for name, slope in slopes.items()]
        return number + 1, total + weight[number] * tf.stack(parts, axis=1)

    batch = tf.shape(next(iter(asked.values())))[0]
    started = tf.zeros(tf.stack([batch, len(asked)]))
    shapes = [tf.TensorShape([]), tf.TensorShape([None, len(asked)])]
    return tf.while_loop(lambda number, _: number < points, more, [tf.constant(0), started], shapes)[1]


def _summed(way: tf.Tensor, slope: tf.Tensor | None) -> tf.Tensor:
    made = tf.zeros_like(way) if slope is None else way * slope
    return tf.reduce_sum(tf.reshape(made, [tf.shape(way)[0], -1]), axis=1)


def as_tensor(kind: ColumnType, value: Any) -> tf.Tensor:
    """A value of the row to compare with, as requests have it: [1], or [1, 1] for a list."""
    dtype = raw_features.tensorflow_dtype(kind)
    return tf.constant([[value]] if raw_features.is_list(kind) else [value], dtype)


def require_free_names(given: Mapping[str, tf.Tensor]) -> None:
    """Refuse a model whose answers have the names that explanations use.

    Raises:
        ConfigError: naming them.
    """
    if taken := sorted({EXPLAINED_BY, ATTRIBUTIONS, BASE} & set(given)):
        raise ConfigError(
            f"model.py answers {', '.join(taken)}, which explanations have of their own. Name it otherwise, then `millrace run` again."
        )


def require_floats(features: Mapping[str, tf.Tensor]) -> None:
    """Refuse integrated gradients where a transformed feature has none.

    Raises:
        ConfigError: naming the features.
    """
    others = [name for name, value in features.items() if not value.dtype.is_floating]
    if others:
        raise ConfigError(
            f"deployment.explanations.method is integrated_gradients, and the transformed features {', '.join(sorted(others))} are no floats. "
            "Set it to shapley in project.yaml, which explains by the raw features and asks any model."
        )


def ranked(names: Sequence[str], attributions: tf.Tensor) -> Tensors:
    """Names and parts of each row, the largest part first."""
    order = tf.argsort(tf.abs(attributions), axis=1, direction="DESCENDING", stable=True)
    return {EXPLAINED_BY: tf.gather(tf.constant(list(names)), order), ATTRIBUTIONS: tf.gather(attributions, order, batch_dims=1)}
