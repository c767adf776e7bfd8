"""From a booking to what the model reads, as one TensorFlow graph; it makes do with whatever features there are.

Story: `transform` runs this over all rows, and the same graph is part of the served model. Four kinds of features leave it: numbers, each in
spreads away from its own middle; categories, as numbers of a vocabulary; the merchant's text, cleaned; and hour and weekday of a time. Middle
and spread are quantiles, since the rows to learn from hold the odd ones too and a mean would follow them.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

TEXT = "merchant"
"""The feature that is read letter by letter; any other text is a category."""
MONEY = "amount"
"""The feature whose size is read in orders of magnitude, ten times as much being one step at 5 as at 5,000; and whose sign is a feature by itself."""
TIME = "booked_at"
FARTHEST = 30.0
"""Spreads; what lies farther out is as odd as this."""
_BUCKETS = 200


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract. Every output is [batch]: float32 numbers, int64 categories, text."""
    outputs: dict[str, tf.Tensor] = {}
    for name, value in inputs.items():
        if name == TIME:
            outputs |= {"hour": value // 3600 % 24, "weekday": (value // 86_400 + 3) % 7}  # 1 January 1970 was a Thursday
        elif name == MONEY:
            outputs |= {name: in_spreads(tf.math.log1p(tf.abs(value))), "refund": tf.cast(value < 0, tf.int64)}
        elif value.dtype != tf.string:
            outputs[name] = in_spreads(tf.cast(value, tf.float32))
        elif name == TEXT:
            outputs[name] = cleaned(value)
        else:
            outputs[name] = tft.compute_and_apply_vocabulary(value, num_oov_buckets=1, vocab_filename=name)
    return outputs


def cleaned(text: tf.Tensor) -> tf.Tensor:
    """Lower case, letters and digits only, single spaces; a digit is a digit."""
    plain = tf.strings.regex_replace(tf.strings.lower(text), r"[^a-z0-9]+", " ")
    return tf.strings.strip(tf.strings.regex_replace(plain, r"[0-9]", "0"))


def in_spreads(number: tf.Tensor) -> tf.Tensor:
    """How many spreads the number lies away from the middle of all rows; 0 where it is missing.

    A spread is what a standard deviation would be for the middle half of the rows or, where that is a single value, for nearly all of them.
    """
    known = tf.where(tf.math.is_nan(number), tf.zeros_like(number), number)
    limits = tf.reshape(tft.quantiles(known, num_buckets=_BUCKETS, epsilon=0.001), [-1])
    first, quarter, middle, three_quarters, last = (limits[int(_BUCKETS * share) - 1] for share in (0.005, 0.25, 0.5, 0.75, 0.995))
    spread = tf.maximum(tf.maximum((three_quarters - quarter) / 1.349, (last - first) / 5.152), 1e-6)  # both of a normal distribution
    away = tf.clip_by_value((known - middle) / spread, -FARTHEST, FARTHEST)
    return tf.where(tf.math.is_nan(number), tf.zeros_like(number), away)
