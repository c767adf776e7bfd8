"""Three losses over the pairs of a batch: what lies near is to be alike, and the other way round.

Story: a batch's embeddings are compared with each other, all at once, and each loss picks ("mines") the pairs that still have something to
teach. Labels are class ids; an embedding has unit length, so the squared distance of two is 2 - 2 cos. `training.parameters.loss` of
project.yaml names one; `LOSSES` is the table.

- `contrastive`: Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006.
- `triplet`: Schroff, Kalenichenko, Philbin, "FaceNet", 2015 (semi-hard negatives); Hermans, Beyer, Leibe, "In Defense of the Triplet
  Loss for Person Re-Identification", 2017 (the hardest of the batch).
- `multi-similarity`: Wang, Han, Huang, Dong, Scott, "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

_FAR = 1e9


class PairLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """Ids [batch] or [batch, 1] and unit embeddings [batch, n] → each row's part of the loss [batch].

    A row without a partner of its class in the batch has no positive pair; what its negatives teach still counts.
    """

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """See the class."""
        ids = tf.reshape(y_true, [-1])
        embedding = tf.cast(y_pred, tf.float32)
        cosines = tf.matmul(embedding, embedding, transpose_b=True)
        same = tf.equal(ids[:, tf.newaxis], ids[tf.newaxis, :])
        alike = tf.logical_and(same, tf.logical_not(tf.eye(tf.shape(ids)[0], dtype=tf.bool)))
        return self.of_pairs(cosines, alike, tf.logical_not(same))

    def of_pairs(self, cosines: tf.Tensor, alike: tf.Tensor, different: tf.Tensor) -> tf.Tensor:
        """Cosines and which pairs are of one class, of two; all [batch, batch] → [batch]."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("transaction_similarity")
class Contrastive(PairLoss):
    """Squared distance of what is alike; for what differs, the squared part of the distance that is short of `margin`.

    Only negatives within the margin are averaged: the others are learned, and their zeros would drown the rest.
    """

    def __init__(self, margin: float = 1.0, name: str = "contrastive", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.margin = margin

    def of_pairs(self, cosines: tf.Tensor, alike: tf.Tensor, different: tf.Tensor) -> tf.Tensor:
        """See the class."""
        distance = _distances(cosines)
        short = tf.maximum(self.margin - distance, 0.0)
        near = tf.logical_and(different, short > 0.0)
        return _mean(tf.square(distance), alike) + _mean(tf.square(short), near)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable("transaction_similarity")
class Triplet(PairLoss):
    """Of each row, its partner is to lie nearer than what differs, by `margin` of distance.

    `mining`: `hard` takes the farthest partner and the nearest stranger; `semi-hard` takes every partner, each with the nearest stranger that is
    farther than it (the farthest stranger where none is), which cannot collapse everything to one point early in training.
    """

    def __init__(self, margin: float = 0.2, mining: str = "semi-hard", name: str = "triplet", **options: Any) -> None:
        super().__init__(name=name, **options)
        if mining not in ("hard", "semi-hard"):
            raise ValueError(f"training.parameters.mining is {mining!r}; triplets are mined 'hard' or 'semi-hard'")
        self.margin, self.mining = margin, mining

    def of_pairs(self, cosines: tf.Tensor, alike: tf.Tensor, different: tf.Tensor) -> tf.Tensor:
        """See the class."""
        distance = _distances(cosines)
        paired = tf.reduce_any(alike, axis=1) & tf.reduce_any(different, axis=1)
        if self.mining == "hard":
            farthest = tf.reduce_max(tf.where(alike, distance, -_FAR), axis=1)
            nearest = tf.reduce_min(tf.where(different, distance, _FAR), axis=1)
            return tf.where(paired, tf.maximum(farthest - nearest + self.margin, 0.0), 0.0)
        stranger = _next_farther(distance, different)
        return tf.where(paired, _mean(tf.maximum(distance - stranger + self.margin, 0.0), alike), 0.0)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "margin": self.margin, "mining": self.mining}


@keras.saving.register_keras_serializable("transaction_similarity")
class MultiSimilarity(PairLoss):
    """Pairs that are harder than the row's easiest of the other kind, less `slack`, each weighed by how it lies to the others.

    The soft sums pull partners above the cosine `base` (steepness `pull`) and push strangers below it (steepness `push`); the names in the
    paper are lambda, alpha, beta, and epsilon for `slack`.
    """

    def __init__(
        self,
        pull: float = 2.0,
        push: float = 40.0,
        base: float = 0.5,
        slack: float = 0.1,
        name: str = "multi_similarity",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self.pull, self.push, self.base, self.slack = pull, push, base, slack

    def of_pairs(self, cosines: tf.Tensor, alike: tf.Tensor, different: tf.Tensor) -> tf.Tensor:
        """See the class."""
        farthest_partner = tf.reduce_min(tf.where(alike, cosines, _FAR), axis=1, keepdims=True)
        nearest_stranger = tf.reduce_max(tf.where(different, cosines, -_FAR), axis=1, keepdims=True)
        partners = tf.logical_and(alike, cosines - self.slack < nearest_stranger)
        strangers = tf.logical_and(different, cosines + self.slack > farthest_partner)
        pulled = _soft_sum(-self.pull * (cosines - self.base), partners) / self.pull
        pushed = _soft_sum(self.push * (cosines - self.base), strangers) / self.push
        return pulled + pushed

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "pull": self.pull, "push": self.push, "base": self.base, "slack": self.slack}


LOSSES: Mapping[str, type[PairLoss]] = {"contrastive": Contrastive, "triplet": Triplet, "multi-similarity": MultiSimilarity}


def _distances(cosines: tf.Tensor) -> tf.Tensor:
    """Euclidean distances between unit vectors. The root has no slope at zero, where the clip stops it."""
    return tf.sqrt(tf.maximum(2.0 - 2.0 * cosines, 1e-6))


def _mean(values: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Each row's mean over `where`; 0 where there is nothing."""
    counted = tf.cast(where, tf.float32)
    return tf.reduce_sum(values * counted, axis=1) / tf.maximum(tf.reduce_sum(counted, axis=1), 1.0)


def _soft_sum(exponents: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """log(1 + sum of exp) of each row over `where`, without overflow."""
    with_zero = tf.pad(tf.where(where, exponents, -_FAR), [[0, 0], [1, 0]])
    return tf.reduce_logsumexp(with_zero, axis=1)


def _next_farther(distance: tf.Tensor, different: tf.Tensor) -> tf.Tensor:
    """For each pair, the distance of the row's nearest stranger that lies farther than the pair; its farthest stranger where none does.

    Sorted once and looked up, since comparing every pair with every stranger would take memory for batch³ numbers.
    """
    strangers = tf.sort(tf.where(different, distance, _FAR), axis=1)
    count = tf.reduce_sum(tf.cast(different, tf.int32), axis=1, keepdims=True)
    place = tf.searchsorted(strangers, distance, side="right")
    return tf.gather(strangers, tf.maximum(tf.minimum(place, count - 1), 0), axis=1, batch_dims=1)
