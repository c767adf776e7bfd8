"""From a transaction as the bank books it to what the encoder reads, as one TensorFlow graph.

Story: `transform` runs this over all rows, and the same graph is inside the served model, and stays as it is when new labels enter the
index: vocabularies and means are those of the rows that were trained on. Text leaves as cleaned text; `similarity_layers` takes it to pieces.
"""

from __future__ import annotations

import math

import tensorflow as tf
import tensorflow_transform as tft

DAY_SECONDS = 86_400
RARE = 5
"""Cost centres with fewer rows than this share one number."""


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract. Every output is [batch], except `numbers`: [batch, 6]."""
    merchant = cleaned(inputs["merchant"])
    day = inputs["booked_at"] // DAY_SECONDS
    amount = tf.where(tf.math.is_nan(inputs["amount"]), tf.zeros_like(inputs["amount"]), inputs["amount"])
    return {
        "merchant": merchant,
        "brand": tf.strings.strip(tf.strings.regex_replace(merchant, r"[0-9]+", " ")),
        "vat": _numbered(inputs["vat"], "vat"),
        "team": _numbered(inputs["team"], "team"),
        "cost_centre": _numbered(inputs["cost_centre"], "cost_centre", rare=RARE),
        "pence": tf.cast(tf.round(amount * 100.0), tf.int64),
        "numbers": _numbers(amount, day),
        "weekday": (day + 3) % 7,
        # before the newest row that was trained on; the encoder never reads it, the index weighs its rows by it
        "age_days": tft.max(day) - day,
    }


def cleaned(text: tf.Tensor) -> tf.Tensor:
    """Lower case, letters and digits only, single spaces."""
    return tf.strings.strip(tf.strings.regex_replace(tf.strings.lower(text), r"[^a-z0-9]+", " "))


def _numbered(text: tf.Tensor, name: str, *, rare: int | None = None) -> tf.Tensor:
    """A number for each known value; one more for all that are not known."""
    given = tf.where(tf.strings.length(text) > 0, text, tf.fill(tf.shape(text), "(missing)"))
    return tft.compute_and_apply_vocabulary(given, num_oov_buckets=1, frequency_threshold=rare, vocab_filename=name)


def _numbers(amount: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
    """[batch, 6]: size, refund, whole pounds, hundredths, and the season as a point on a circle."""
    size = tf.abs(amount)
    pence = tf.round(size * 100.0) % 100.0
    year = tf.cast(day, tf.float32) * (2.0 * math.pi / 365.25)
    columns = [
        tft.scale_to_z_score(tf.math.log1p(size)),
        tf.cast(amount < 0.0, tf.float32),
        tf.cast(tf.equal(pence, 0.0), tf.float32),
        pence / 100.0,
        tf.sin(year),
        tf.cos(year),
    ]
    return tf.stack(columns, axis=1)
