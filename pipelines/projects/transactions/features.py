"""From a transaction as the bank books it to what the model reads, as one TensorFlow graph.

Story: `transform` runs this over all rows, and the same graph is part of the served model, so that a feature is never computed in two
ways. It stays small on purpose: text leaves as cleaned text, and `model.py` takes it to pieces while it trains, since a
hundred n-gram numbers for each row would cost more to write and read than to compute.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tensorflow_transform as tft

DAY_SECONDS = 86_400
RARE = 5
"""Cost centres with fewer rows than this share one number."""


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract. Every output is [batch], except `numbers`: [batch, 7]."""
    merchant = cleaned(inputs["merchant"])
    day = inputs["booked_at"] // DAY_SECONDS
    return {
        "merchant": merchant,
        "brand": tf.strings.strip(tf.strings.regex_replace(merchant, r"[0-9]+", " ")),
        "vat": _numbered(inputs["vat"], "vat"),
        "team": _numbered(inputs["team"], "team"),
        "cost_centre": _numbered(inputs["cost_centre"], "cost_centre", rare=RARE),
        "pence": _pence(inputs["amount"]),
        "numbers": _numbers(inputs["amount"], day),
        "weekday": (day + 3) % 7,
        # how long before the newest training row: never read by the model, weighs the training rows
        "age_days": tft.max(day) - day,
    }


def cleaned(text: tf.Tensor) -> tf.Tensor:
    """Lower case, letters and digits only, single spaces. What is no letter in any encoding becomes a space."""
    return tf.strings.strip(tf.strings.regex_replace(tf.strings.lower(text), r"[^a-z0-9]+", " "))


def _numbered(text: tf.Tensor, name: str, *, rare: int | None = None) -> tf.Tensor:
    """A number for each known value; one more for all that are not known."""
    given = tf.where(tf.strings.length(text) > 0, text, tf.fill(tf.shape(text), "(missing)"))
    return tft.compute_and_apply_vocabulary(given, num_oov_buckets=1, frequency_threshold=rare, vocab_filename=name)


def _pence(amount: tf.Tensor) -> tf.Tensor:
    """The amount in hundredths, refunds negative; 0 where it is missing."""
    return tf.cast(tf.round(_present(amount) * 100.0), tf.int64)


def _numbers(amount: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """[batch, 7]: size, refund, whole, tens, hundredths, and the season as a point on a circle."""
    size = tf.abs(_present(amount))
    pence = tf.round(size * 100.0)
    year = tf.cast(day, tf.float32) * (2.0 * math.pi / 365.25)
    columns = [
        tft.scale_to_z_score(tf.math.log1p(size)),
        _flag(amount < 0.0),
        _flag(tf.equal(pence % 100.0, 0.0)),
        _flag(tf.equal(pence % 1000.0, 0.0)),
        (pence % 100.0) / 100.0,
        tf.sin(year),
        tf.cos(year),
    ]
    return tf.stack(columns, axis=1)


def _present(amount: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_nan(amount), tf.zeros_like(amount), amount)


def _flag(condition: tf.Tensor) -> tf.Tensor:
    return tf.cast(condition, tf.float32)
