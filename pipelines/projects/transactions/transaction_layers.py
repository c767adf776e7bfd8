"""Keras layers that take a transaction to pieces and give each piece a row in a table.

Story: `model.py` builds its classifier from these. `PiecesOfText` and `Crosses` have no weights: they turn text and numbers into row numbers
by hashing, with 0 for "no piece here". The other three own the tables. Everything is integer arithmetic on dense tensors, so it
runs inside the training step, on any device, and goes into the exported model as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

LETTERS = 24
"""How much of a merchant's name is read; a card statement shows 22 letters."""
WORDS = 5
GRAMS = (2, 3, 4, 5)
_FACTORS = (-7046029254386353131, -4417276706812531889, 1609587929392839161)
"""Odd 64-bit constants of the xxHash family, as signed integers; products wrap around."""
_WORD_RANGE = 1 << 40

CROSSES: tuple[tuple[str, ...], ...] = (
    ("merchant",),
    ("brand",),
    ("stem",),
    ("cost_centre",),
    ("team",),
    ("vat",),
    ("bucket",),
    ("fine_bucket",),
    ("cents",),
    ("pence",),
    ("merchant", "cost_centre"),
    ("brand", "cost_centre"),
    ("stem", "cost_centre"),
    ("merchant", "team"),
    ("merchant", "vat"),
    ("stem", "vat"),
    ("merchant", "bucket"),
    ("stem", "bucket"),
    ("merchant", "cents"),
    ("merchant", "pence"),
    ("cost_centre", "bucket"),
    ("cost_centre", "vat"),
    ("cost_centre", "pence"),
    ("vat", "bucket"),
    ("merchant", "cost_centre", "vat"),
    ("merchant", "vat", "bucket"),
)
"""What is looked up together, for each row; and each word of the brand with the cost centre beside these."""


def mixed(*values: tf.Tensor) -> tf.Tensor:
    """Hash int64 tensors of one shape, elementwise, to one int64: multiply, shift, multiply, value by value."""
    state = tf.zeros_like(values[0]) + 1
    for value in values:
        state = (tf.bitwise.bitwise_xor(state, value) + _FACTORS[2]) * _FACTORS[0]
        state = tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, tf.constant(29, tf.int64))) * _FACTORS[1]
        state = tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, tf.constant(32, tf.int64)))
    return state


def row_of(hashed: tf.Tensor, rows: int) -> tf.Tensor:
    """A table row from 1 on for each hash; row 0 stays for "nothing"."""
    return tf.cast(tf.math.floormod(hashed, rows - 1) + 1, tf.int32)


@keras.saving.register_keras_serializable("transactions")
class PiecesOfText(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Rows for the letter n-grams of the merchant and for the words of the brand.

    Takes `merchant` and `brand`, strings [batch]; gives int32 [batch, 91], 0 where a name has no more pieces.
    """

    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows
        self.supports_jit = False  # XLA has no strings

    def call(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """See the class."""
        spaced = tf.strings.join([" ", tf.strings.regex_replace(inputs["merchant"], "[0-9]", "0"), " "])
        letters = tf.cast(tf.io.decode_raw(spaced, tf.uint8, fixed_length=LETTERS), tf.int64)
        codes, codes_of_length = [], letters
        for length in range(2, max(GRAMS) + 1):
            last = letters[:, length - 1 :]
            codes_of_length = codes_of_length[:, :-1] * 257 + last
            if length in GRAMS:
                codes.append(tf.where(last > 0, codes_of_length * 8 + length, 0))
        every = tf.concat([*codes, words_of(inputs["brand"])], axis=1)
        return tf.where(every == 0, 0, row_of(mixed(every), self.rows))

    def compute_output_shape(self, input_shape: Mapping[str, tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """See the class."""
        return (input_shape["merchant"][0], sum(LETTERS - n + 1 for n in GRAMS) + WORDS)

    def compute_output_spec(self, inputs: Mapping[str, Any]) -> Any:
        """Stated, since Keras would have to trace strings to find it out."""
        return keras.KerasTensor(self.compute_output_shape({name: value.shape for name, value in inputs.items()}), dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "rows": self.rows}


@keras.saving.register_keras_serializable("transactions")
class Crosses(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Rows for every combination in `CROSSES`, and for each word of the brand with the cost centre.

    Takes the features' dict, each [batch]; gives int32 [batch, len(CROSSES) + WORDS].
    """

    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows
        self.supports_jit = False  # XLA has no strings

    def call(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """See the class."""
        facts = facts_of(inputs)
        crossed = [
            mixed(tf.fill(tf.shape(facts["vat"]), tf.constant(salt, tf.int64)), *(facts[n] for n in names))
            for salt, names in enumerate(CROSSES)
        ]
        words = words_of(inputs["brand"])
        with_centre = mixed(words, tf.broadcast_to(facts["cost_centre"][:, None], tf.shape(words)))
        return tf.concat([row_of(tf.stack(crossed, axis=1), self.rows), tf.where(words == 0, 0, row_of(with_centre, self.rows))], axis=1)

    def compute_output_shape(self, input_shape: Mapping[str, tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """See the class."""
        return (input_shape["merchant"][0], len(CROSSES) + WORDS)

    def compute_output_spec(self, inputs: Mapping[str, Any]) -> Any:
        """Stated, since Keras would have to trace strings to find it out."""
        return keras.KerasTensor(self.compute_output_shape({name: value.shape for name, value in inputs.items()}), dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "rows": self.rows}


class Table(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A row of numbers for each piece, all zero at first: `votes` for the classes, `width` for the network.

    Row 0 is "no piece", and pieces are dropped while training with chance `drop`. Each row that a batch names is fetched once,
    however often it is named, so that its gradient is one row as well.
    """

    def __init__(self, rows: int, votes: int, width: int, drop: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.rows, self.votes, self.width, self.drop = rows, votes, width, drop
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table."""
        del input_shape
        self.table = self.add_weight(shape=(self.rows, self.votes + self.width), initializer="zeros", name="table")

    def kept(self, pieces: tf.Tensor, training: bool | None) -> tf.Tensor:
        """[batch, n]: whether a piece counts."""
        here = pieces > 0
        if training and self.drop:
            here &= keras.random.uniform(tf.shape(pieces), seed=self.seed_generator) >= self.drop
        return here

    def fetched(self, pieces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows that are named [distinct, votes + width], and which of them each piece is, like `pieces`."""
        distinct, place = tf.unique(tf.reshape(pieces, [-1]))
        return tf.cast(tf.gather(self.table, distinct), self.compute_dtype), tf.reshape(place, tf.shape(pieces))

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "rows": self.rows, "votes": self.votes, "width": self.width, "drop": self.drop}


@keras.saving.register_keras_serializable("transactions")
class SumOfPieces(Table):
    """The pieces' votes over the square root of their number [batch, votes], and the mean of the rest [batch, width]."""

    def call(self, pieces: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """See the class."""
        where = tf.where(self.kept(pieces, training))
        rows, place = self.fetched(tf.gather_nd(pieces, where))
        of, batch = tf.cast(where[:, 0], tf.int32), tf.shape(pieces)[0]
        summed = tf.sparse.segment_sum(rows, place, of, num_segments=batch)
        number = tf.maximum(tf.math.unsorted_segment_sum(tf.ones_like(of, self.compute_dtype), of, batch), 1.0)[:, tf.newaxis]
        return summed[:, : self.votes] / tf.sqrt(number), summed[:, self.votes :] / number


@keras.saving.register_keras_serializable("transactions")
class EachPiece(Table):
    """The pieces' votes over the square root of their number [batch, votes], and the rest side by side [batch, n * width]."""

    def call(self, pieces: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """See the class."""
        kept = self.kept(pieces, training)
        rows, place = self.fetched(pieces)
        where = tf.where(kept)
        votes = tf.sparse.segment_sum(rows[:, : self.votes], tf.gather_nd(place, where), where[:, 0], num_segments=tf.shape(pieces)[0])
        counted = tf.cast(kept, self.compute_dtype)
        number = tf.maximum(tf.reduce_sum(counted, axis=1, keepdims=True), 1.0)
        side_by_side = tf.gather(rows[:, self.votes :], place) * counted[..., tf.newaxis]
        return votes / tf.sqrt(number), tf.reshape(side_by_side, [-1, pieces.shape[1] * self.width])


def facts_of(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What `CROSSES` names, each an int64 [batch]."""
    pence, size = inputs["pence"], tf.abs(inputs["pence"])
    logarithm = tf.math.log1p(tf.cast(size, tf.float32) / 100.0)
    refund = tf.cast(pence < 0, tf.int64) * 100
    return {
        "merchant": tf.strings.to_hash_bucket_fast(inputs["merchant"], _WORD_RANGE),
        "brand": tf.strings.to_hash_bucket_fast(inputs["brand"], _WORD_RANGE),
        "stem": tf.strings.to_hash_bucket_fast(tf.strings.substr(inputs["merchant"], 0, 5), _WORD_RANGE),
        "cost_centre": inputs["cost_centre"],
        "team": inputs["team"],
        "vat": inputs["vat"],
        "pence": pence,
        "cents": size % 100,
        "bucket": tf.cast(logarithm * 3.0, tf.int64) + refund,
        "fine_bucket": tf.cast(logarithm * 8.0, tf.int64) + refund,
    }


def words_of(text: tf.Tensor) -> tf.Tensor:
    """[batch, WORDS] int64: a hash for each of the first words, 0 where there are no more."""
    words = tf.strings.split(text).to_tensor("", shape=[None, WORDS])
    return tf.where(words == "", tf.constant(0, tf.int64), tf.strings.to_hash_bucket_fast(words, _WORD_RANGE) + 1)
