"""The layers of the encoder: a transaction to pieces, each piece a row of a table, and a vector brought to unit length.

Story: `model.build` strings them together. A piece is a letter n-gram or a word of the descriptor, or a fact together with another one
(*this merchant in this range of amounts*); it is hashed to a row, so that no list of merchants has to be kept and a merchant that
training never saw is still made of letters that it did. Hashing: Weinberger et al., "Feature Hashing for Large Scale Multitask
Learning", 2009; n-grams of letters: Bojanowski et al., "Enriching Word Vectors with Subword Information", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

LETTERS = 22
"""Letters of a descriptor that are read; a card statement shows no more."""
WORDS = 5
_PRIME, _ODD = 1_000_003, -7046029254386353131  # the second is the 64-bit golden ratio as a signed integer


def mixed(*values: tf.Tensor) -> tf.Tensor:
    """One int64 for int64 tensors of one shape, elementwise; products wrap around."""
    state = tf.zeros_like(values[0])
    for value in values:
        state = (state + value) * _ODD
        state = tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, tf.constant(31, tf.int64)))
    return state


class _Pieces(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Row numbers [batch, width] from the features' dict; 0 stands for "no piece"."""

    width = 0

    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows
        self.supports_jit = False  # XLA has no strings

    def placed(self, hashed: tf.Tensor, here: tf.Tensor) -> tf.Tensor:
        """A row from 1 on for each hash that is here."""
        return tf.where(here, tf.cast(tf.math.floormod(mixed(hashed), self.rows - 1) + 1, tf.int32), 0)

    def compute_output_spec(self, inputs: Mapping[str, Any]) -> Any:
        """Stated, since Keras would have to trace strings to find it out."""
        return keras.KerasTensor((next(iter(inputs.values())).shape[0], self.width), dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "rows": self.rows}


@keras.saving.register_keras_serializable("transaction_similarity")
class TextPieces(_Pieces):
    """Letter 3- to 5-grams of the descriptor, digits all alike, and the words of the brand."""

    grams = (3, 4, 5)
    width = sum(LETTERS - n + 1 for n in grams) + WORDS

    def call(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """See the class."""
        spaced = tf.strings.join([" ", tf.strings.regex_replace(inputs["merchant"], "[0-9]", "0"), " "])
        letters = tf.cast(tf.io.decode_raw(spaced, tf.uint8, fixed_length=LETTERS), tf.int64)
        pieces = []
        for n in self.grams:
            ends = letters[:, n - 1 :]
            codes = tf.zeros_like(ends) + n
            for place in range(n):
                codes = codes * _PRIME + letters[:, place : place + LETTERS - n + 1]
            pieces.append(self.placed(codes, ends > 0))
        words = tf.strings.split(inputs["brand"]).to_tensor("", shape=[None, WORDS])
        return tf.concat([*pieces, self.placed(tf.strings.to_hash_bucket_fast(words, 1 << 40), words != "")], axis=1)


CROSSES: tuple[tuple[str, ...], ...] = (
    ("merchant",),
    ("brand",),
    ("stem",),
    ("cost_centre",),
    ("team",),
    ("vat",),
    ("bucket",),
    ("pence",),
    ("merchant", "cost_centre"),
    ("brand", "cost_centre"),
    ("brand", "team"),
    ("brand", "vat"),
    ("brand", "bucket"),
    ("stem", "bucket"),
    ("merchant", "pence"),
    ("cost_centre", "bucket"),
    ("cost_centre", "vat"),
    ("vat", "bucket"),
)
"""Facts that are looked up together, for each row."""


@keras.saving.register_keras_serializable("transaction_similarity")
class CrossPieces(_Pieces):
    """A piece for every entry of `CROSSES`."""

    width = len(CROSSES)

    def call(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """See the class."""
        pence = inputs["pence"]
        size = tf.cast(tf.math.log1p(tf.cast(tf.abs(pence), tf.float32) / 100.0) * 3.0, tf.int64)
        facts = {
            **{name: tf.strings.to_hash_bucket_fast(inputs[name], 1 << 40) for name in ("merchant", "brand")},
            "stem": tf.strings.to_hash_bucket_fast(tf.strings.substr(inputs["merchant"], 0, 5), 1 << 40),
            **{name: inputs[name] for name in ("cost_centre", "team", "vat")},
            "pence": pence,
            "bucket": size + tf.cast(pence < 0, tf.int64) * 100,
        }
        crossed = [mixed(*(facts[name] for name in names)) + salt for salt, names in enumerate(CROSSES)]
        stacked = tf.stack(crossed, axis=1)
        return self.placed(stacked, tf.ones_like(stacked, tf.bool))


@keras.saving.register_keras_serializable("transaction_similarity")
class PieceTable(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A vector for each piece, at random at first: summed over the pieces of a row by the square root of their number (`together`), or side by side.

    A piece that training never saw keeps its random vector: it says nothing of a class, but the same in every row that has it, and by that the rows of
    a new kind of merchant find each other. `spread` is the standard deviation of these vectors: the larger, the more an unknown name counts beside
    known pieces. Pieces are dropped while training with chance `drop`, so that the encoder learns to do without the merchant's whole name.
    """

    def __init__(self, rows: int, size: int, *, together: bool, drop: float = 0.0, spread: float = 0.15, **options: Any) -> None:
        super().__init__(**options)
        self.rows, self.size, self.together, self.drop, self.spread = rows, size, together, drop, spread
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table."""
        del input_shape
        at_first = keras.initializers.RandomNormal(stddev=self.spread)
        self.table = self.add_weight(shape=(self.rows, self.size), initializer=at_first, name="table")

    def call(self, pieces: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[batch, n] → [batch, size], or [batch, n * size] side by side."""
        here = pieces > 0
        if training and self.drop:
            here &= keras.random.uniform(tf.shape(pieces), seed=self.seed_generator) >= self.drop
        counted = tf.cast(here, self.compute_dtype)
        vectors = tf.cast(tf.gather(self.table.value, pieces), self.compute_dtype) * counted[..., tf.newaxis]
        if not self.together:
            return tf.reshape(vectors, [-1, pieces.shape[1] * self.size])
        return tf.reduce_sum(vectors, axis=1) / tf.sqrt(tf.maximum(tf.reduce_sum(counted, axis=1, keepdims=True), 1.0))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """See `call`."""
        count = input_shape[1]
        assert count is not None
        return (input_shape[0], self.size if self.together else count * self.size)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        own = {"rows": self.rows, "size": self.size, "together": self.together, "drop": self.drop, "spread": self.spread}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("transaction_similarity")
class UnitLength(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Each vector over its length, in float32 whatever the precision before it: cosines are then plain products."""

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """[batch, n] → [batch, n]."""
        return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=1, epsilon=1e-12)
