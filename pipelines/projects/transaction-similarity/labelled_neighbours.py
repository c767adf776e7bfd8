"""The index beside the encoder: embeddings of labelled rows, searched inside the served graph, and the vote of the nearest.

Story: `model.finish` makes it from the training rows after every training, and without one when labels were added
(docs/decisions/0016-labels-enter-without-training.md). A new label therefore counts as soon as a version with it is published.

The search is exact: one product with all rows of the index and the largest of it. What that costs, and from where on an approximate index
would pay, is measured in docs/models/transaction-similarity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

_QUERIES_AT_ONCE = 128
_TIE = 1e-4

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Keys = npt.NDArray[np.bytes_] | npt.NDArray[np.object_]


class _Index(NamedTuple):
    embeddings: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor


@keras.saving.register_keras_serializable("transaction_similarity")
class LabelledNeighbours(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Unit embeddings [batch, n] → `label` (class id), `confidence`, `similarity`, all [batch].

    Every row of the index votes for its label with exp(cosine / `temperature`) times its weight, so that at the temperature of 0.02 a row whose
    cosine is 0.06 below the nearest one's has a twentieth of its vote: the near ones decide, as many as there are. A vote of the k nearest
    would jump where the k-th of them changes places with the next, and two machines that round differently would answer differently.
    (Goldberger et al., "Neighbourhood Components Analysis", 2004, has this rule.)

    `confidence` is the winner's share of the votes; `similarity` the cosine of the nearest row: low where nothing like it was ever labelled,
    however sure the vote. Of labels with the same votes the first in the list of classes wins.

    `why` has the rows whose votes weigh most: their keys, class ids, and shares of all votes, [batch, `reasons`] each.
    """

    def __init__(self, rows: int, size: int, classes: int, *, temperature: float = 0.02, reasons: int = 5, **options: Any) -> None:
        super().__init__(**options)
        self.rows, self.size, self.classes, self.temperature = rows, size, classes, temperature
        self.reasons = min(reasons, rows)
        self.keys = np.full(rows, b"")
        self.embeddings = self.add_weight(shape=(rows, size), initializer="zeros", trainable=False, name="embeddings", dtype="float32")
        self.labels = self.add_weight(shape=(rows,), initializer="zeros", trainable=False, name="labels", dtype="int64")
        self.weights_of_rows = self.add_weight(shape=(rows,), initializer="ones", trainable=False, name="weights", dtype="float32")

    def fill(self, embeddings: Floats, labels: Ids, weights: Floats, keys: Keys) -> None:
        """Set the index: [rows, size], [rows], [rows], [rows]. It is kept sorted by label, which makes counting votes cheap."""
        order = np.argsort(labels, kind="stable")
        self.keys = keys[order]
        for variable, values in ((self.embeddings, embeddings), (self.labels, labels), (self.weights_of_rows, weights)):
            variable.assign(values[order])

    def call(self, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        """See the class."""
        return {
            name: tf.ensure_shape(value, [None])
            for name, value in _in_parts(embedding, partial(self._voted, self._read()), _ANSWERS).items()
        }

    def why(self, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        """`explained_by`, `explained_by_label` and `attributions`, the weightiest first: see the class."""
        found = _in_parts(embedding, partial(self._weightiest, self._read()), _REASONS)
        return {name: tf.ensure_shape(value, [None, self.reasons]) for name, value in found.items()}

    def _read(self) -> _Index:
        """Outside of the loop that searches it: TensorFlow leaves no loop away that reads a variable, not where the embedding alone is asked for."""
        return _Index(*(tf.convert_to_tensor(variable.value) for variable in (self.embeddings, self.labels, self.weights_of_rows)))

    def _votes(self, index: _Index, embedding: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of each row of the index for each query [rows, batch], and the cosine of the nearest [batch]."""
        cosines = tf.matmul(index.embeddings, embedding, transpose_b=True)
        nearest = tf.reduce_max(cosines, axis=0)
        return tf.exp((cosines - nearest) / self.temperature) * index.weights[:, tf.newaxis], nearest

    def _weightiest(self, index: _Index, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        votes, _ = self._votes(index, embedding)
        found = tf.math.top_k(tf.transpose(votes / tf.reduce_sum(votes, axis=0)), k=self.reasons)
        return {
            "explained_by": tf.gather(tf.constant(self.keys), found.indices),
            "explained_by_label": tf.gather(index.labels, found.indices),
            "attributions": found.values,
        }

    def _voted(self, index: _Index, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        votes, nearest = self._votes(index, embedding)
        counted = tf.math.unsorted_segment_sum(votes, index.labels, self.classes)  # [classes, batch]
        shares = counted / tf.reduce_sum(counted, axis=0)
        preferred = tf.linspace(0.0, -_TIE, self.classes)[:, tf.newaxis]
        winner = tf.argmax(shares + preferred, axis=0)
        return {
            "label": winner,
            "confidence": tf.gather(tf.transpose(shares), winner, axis=1, batch_dims=1),
            "similarity": nearest,
        }

    def compute_output_spec(self, embedding: Any) -> Any:
        """Stated, so that Keras need not trace the loop."""
        return {name: keras.KerasTensor((embedding.shape[0],), dtype=kind.name) for name, kind in _ANSWERS.items()}

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        own = {"rows": self.rows, "size": self.size, "classes": self.classes, "temperature": self.temperature, "reasons": self.reasons}
        return {**super().get_config(), **own}


_ANSWERS = {"label": tf.int64, "confidence": tf.float32, "similarity": tf.float32}
_REASONS = {"explained_by": tf.string, "explained_by_label": tf.int64, "attributions": tf.float32}


def _in_parts(
    embedding: tf.Tensor, search: Callable[[tf.Tensor], dict[str, tf.Tensor]], kinds: Mapping[str, tf.DType]
) -> dict[str, tf.Tensor]:
    """What `search` finds, some queries at a time, since each takes a number for every row of the index."""
    parts = -(-tf.shape(embedding)[0] // _QUERIES_AT_ONCE)
    found = {name: tf.TensorArray(kind, parts, infer_shape=False) for name, kind in kinds.items()}

    def answer(part: tf.Tensor, so_far: dict[str, tf.TensorArray]) -> tuple[tf.Tensor, dict[str, tf.TensorArray]]:
        some = embedding[part * _QUERIES_AT_ONCE : (part + 1) * _QUERIES_AT_ONCE]
        return part + 1, {name: so_far[name].write(part, value) for name, value in search(some).items()}

    _, arrays = tf.while_loop(lambda part, _: part < parts, answer, (tf.constant(0), found), parallel_iterations=1)
    return {name: array.concat() for name, array in arrays.items()}


def chosen(labels: Ids, most: int) -> Ids:
    """Which rows an index of at most `most` holds: all, or of each class the newest, as many of one as of another as far as they last.

    Args:
        labels: of all rows, oldest first.
        most: rows of the index.

    Returns:
        Places in `labels`, ascending.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    newest_first = np.arange(len(labels))[::-1]
    by_class = newest_first[np.argsort(labels[newest_first], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[by_class], prepend=-1))
    rank = np.arange(len(labels)) - np.repeat(starts, np.diff(np.append(starts, len(labels))))
    return np.sort(by_class[np.argsort(rank, kind="stable")[:most]])
