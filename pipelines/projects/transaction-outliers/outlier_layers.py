"""Keras layers that hide features, rebuild them, and say how far a row is from what is rebuilt.

Story: `model.py` builds its autoencoder from these. `HiddenInTurn` makes of each row as many as it has features, each with another one
hidden; the three distances hold a rebuilt feature against the true one, each in its own unit but all of the size that a normal
distribution's standard deviations have; `Reasons` is what is served in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

LETTERS = 24
"""How much of a text is read; a card statement shows 22 letters."""
SYMBOLS = 128
GRAMS = (2, 3, 4)
ROWS = 8192
"""Letter n-grams are hashed into so many embeddings."""
RANGE = 3.0
"""A rebuilt number lies at most so many spreads from the middle of all rows."""
SUREST = 0.05
"""Spreads; while it learns, nothing is rebuilt with more certainty than this."""


@keras.saving.register_keras_serializable("outliers")
class Letters(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Texts [batch] as letter codes [batch, LETTERS] from 1 to 127, after a space; 0 where a text has ended."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no strings

    def call(self, text: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.cast(tf.io.decode_raw(tf.strings.join([" ", text]), tf.uint8, fixed_length=LETTERS), tf.int32) % SYMBOLS

    def compute_output_spec(self, text: Any) -> Any:
        """Stated, since Keras would have to trace strings to find it out."""
        return keras.KerasTensor((text.shape[0], LETTERS), dtype="int32")


@keras.saving.register_keras_serializable("outliers")
class PiecesOfText(keras.layers.Layer):  # type: ignore[misc]
    """Letters [batch, LETTERS] as the mean of their n-grams' embeddings [batch, width]; the n-grams are hashed into `ROWS` of them."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table; row 0 is "no letters here"."""
        del input_shape
        self.table = self.add_weight(shape=(ROWS, self.width), name="table", initializer="random_normal")

    def call(self, letters: tf.Tensor) -> tf.Tensor:
        """See the class."""
        codes, pieces = tf.cast(letters, tf.int64), []
        for length in range(1, max(GRAMS) + 1):
            last = tf.cast(letters[:, length - 1 :], tf.int64)
            codes = last if length == 1 else codes[:, :-1] * SYMBOLS + last
            if length in GRAMS:
                pieces.append(tf.where(last > 0, tf.math.floormod(codes * 2_654_435_761 + length, ROWS - 1) + 1, 0))
        rows = tf.concat(pieces, axis=1)
        here = tf.cast(rows > 0, self.compute_dtype)[..., tf.newaxis]
        return tf.reduce_sum(tf.gather(self.table, rows) * here, axis=1) / tf.maximum(tf.reduce_sum(here, axis=1), 1.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """See the class."""
        return (input_shape[0], self.width)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("outliers")
class HiddenInTurn(keras.layers.Layer):  # type: ignore[misc]
    """Features side by side [batch, sum of widths] → [batch, features, sum of widths + features]: each hidden once, and which one it is.

    A hidden feature is all zeros.
    """

    def __init__(self, widths: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.widths = tuple(widths)
        of = np.repeat(np.arange(len(self.widths)), self.widths)
        turn = np.arange(len(self.widths))[:, None]
        self._visible = (of != turn).astype("float32")
        self._which = np.eye(len(self.widths), dtype="float32")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """See the class."""
        visible = features[:, tf.newaxis, :] * tf.constant(self._visible, features.dtype)
        which = tf.broadcast_to(tf.constant(self._which, features.dtype), tf.concat([tf.shape(features)[:1], self._which.shape], axis=0))
        return tf.concat([visible, which], axis=2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """See the class."""
        return (input_shape[0], len(self.widths), sum(self.widths) + len(self.widths))

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "widths": self.widths}


@keras.saving.register_keras_serializable("outliers")
class NumberDistance(keras.layers.Layer):  # type: ignore[misc]
    """Loss and distance [batch, 1] of numbers [batch] from what is rebuilt [batch, 2]: a middle and a spread of a Laplace distribution.

    The distance counts rebuilt spreads, above 0 where the number is larger than rebuilt. A spread below `narrowest` counts as that: where
    nearly all rows agree, a small difference is no large distance.
    """

    def __init__(self, narrowest: float, **options: Any) -> None:
        super().__init__(**options)
        self.narrowest = narrowest

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """See the class."""
        number, rebuilt = inputs
        away, spread = number - RANGE * tf.tanh(rebuilt[:, 0]), SUREST + tf.nn.softplus(rebuilt[:, 1])
        loss = tf.abs(away) / spread + tf.math.log(2 * spread)
        return loss[:, tf.newaxis], (away / tf.maximum(spread, self.narrowest))[:, tf.newaxis]

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "narrowest": self.narrowest}


@keras.saving.register_keras_serializable("outliers")
class CategoryDistance(keras.layers.Layer):  # type: ignore[misc]
    """Loss and distance [batch, 1] of categories [batch] from what is rebuilt, logits [batch, categories].

    The distance is the deviance residual: what a number would have to lie away, in spreads of a normal distribution, to be as much less likely than
    the likeliest one (McCullagh and Nelder, *Generalized Linear Models*, 1989).
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """See the class."""
        category, logits = inputs
        chances = tf.nn.log_softmax(logits)
        own = tf.gather(chances, category, batch_dims=1)
        distance = tf.sqrt(2 * (tf.reduce_max(chances, axis=1) - own))
        return -own[:, tf.newaxis], distance[:, tf.newaxis]


@keras.saving.register_keras_serializable("outliers")
class LetterDistance(keras.layers.Layer):  # type: ignore[misc]
    """Loss and distance [batch, 1] of texts, letters [batch, LETTERS], from what each letter is foretold as, logits [batch, LETTERS, SYMBOLS].

    Both are the mean surprise of a letter, in nats; 0 for a text without any.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """See the class."""
        letters, logits = inputs
        surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=letters[:, 1:], logits=logits[:, :-1])  # the first is a space
        here = tf.cast(letters[:, 1:] > 0, surprise.dtype)
        mean = tf.reduce_sum(surprise * here, axis=1, keepdims=True) / tf.maximum(tf.reduce_sum(here, axis=1, keepdims=True), 1.0)
        return mean, mean


@keras.saving.register_keras_serializable("outliers")
class TrimmedMean(keras.layers.Layer):  # type: ignore[misc]
    """Adds the mean loss of a batch as the model's loss, leaving out the `share` of rows that lose most; hands the distances on.

    Takes losses and distances, both [batch, features].
    """

    def __init__(self, share: float, **options: Any) -> None:
        super().__init__(**options)
        self.share = share

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """See the class."""
        losses, distances = inputs
        rows = tf.reduce_mean(losses, axis=1)
        kept = tf.maximum(1, tf.cast(tf.math.ceil(tf.cast(tf.size(rows), tf.float32) * (1 - self.share)), tf.int32))
        self.add_loss(tf.reduce_mean(-tf.math.top_k(-rows, k=kept).values))
        return tf.identity(distances)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """See the class."""
        return input_shape[1]

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "share": self.share}


@keras.saving.register_keras_serializable("outliers")
class Reasons(keras.layers.Layer):  # type: ignore[misc]
    """What is served for distances [batch, features]: `score` [batch, 1], `flagged` [batch], `reasons` and `distances` [batch, count].

    A distance is told in multiples of what is usual for its feature; the farthest is the first reason. The score is the fourth root of the mean
    of their fourth powers: a feature that is far off counts for more than several that are a little. `flagged`: above the threshold.
    """

    def __init__(self, names: Sequence[str], usual: Sequence[float], count: int, threshold: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.names, self.usual, self.count, self.threshold = tuple(names), tuple(usual), count, threshold

    def scores(self, distances: tf.Tensor) -> tf.Tensor:
        """[batch, 1]."""
        return _score_of(self._told(distances))

    def _told(self, distances: tf.Tensor) -> tf.Tensor:
        return distances / tf.constant(self.usual, distances.dtype)

    def call(self, distances: tf.Tensor) -> dict[str, tf.Tensor]:
        """See the class."""
        told = self._told(distances)
        farthest = tf.math.top_k(tf.abs(told), k=self.count).indices
        score = _score_of(told)
        return {
            "score": score,
            "flagged": score[:, 0] > self.threshold,
            "reasons": tf.gather(tf.constant(self.names), farthest),
            "distances": tf.gather(told, farthest, batch_dims=1),
        }

    def compute_output_spec(self, distances: Any) -> Any:
        """Stated, since Keras does not know of texts as outputs."""
        rows = distances.shape[0]
        shapes = {"score": ((rows, 1), "float32"), "flagged": ((rows,), "bool")}
        shapes |= {"reasons": ((rows, self.count), "string"), "distances": ((rows, self.count), "float32")}
        return {name: keras.KerasTensor(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "names": self.names, "usual": self.usual, "count": self.count, "threshold": self.threshold}


def _score_of(told: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(told**4, axis=1, keepdims=True) ** 0.25
