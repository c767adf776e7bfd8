"""From the contract's columns to what the model reads, as one TensorFlow graph: any columns, by their types.

Story: nothing here names a column, so that a feature which is added to `feature_views.yaml` and `project.yaml` needs no code. A number becomes its place
among the training rows' numbers, from 0 (the smallest) to 1 (the largest): counts and sums have long tails, and a place has none. Beside it stands its
size on a logarithmic scale, for what lies beyond the last quantile is what a few accounts in a thousand do, and they are looked for. A text becomes
the number of its value. What is missing is said too, since "no payment ever" is not "a payment of 0".
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

QUANTILES = 200
"""Steps of the empirical distribution; values between two of them are interpolated."""
FARTHEST = 8.0


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract.

    `places` [batch, numbers] from 0 to 1, `sizes` [batch, numbers] around 0, `missing` [batch, numbers] 1 where there is none, and an int64 [batch] for
    each text, `text_<name>`.
    """
    texts = sorted(name for name, values in inputs.items() if values.dtype == tf.string)
    numbers = tf.stack([tf.cast(inputs[name], tf.float32) for name in sorted(set(inputs) - set(texts))], axis=1)
    outputs = {"places": places_of(numbers), "sizes": sizes_of(numbers), "missing": tf.cast(tf.math.is_nan(numbers), tf.float32)}
    for name in texts:
        outputs[f"text_{name}"] = tft.compute_and_apply_vocabulary(
            inputs[name], num_oov_buckets=1, frequency_threshold=5, vocab_filename=name
        )
    return outputs


def places_of(numbers: tf.Tensor) -> tf.Tensor:
    """The place of each number among the training rows' in the same column; 0 where it is missing. [batch, numbers]."""
    bounds = tft.quantiles(numbers, num_buckets=QUANTILES, epsilon=0.001, reduce_instance_dims=False)  # without what is missing
    return known(tf.where(tf.math.is_nan(numbers), numbers, places_among(known(numbers), bounds)))


def places_among(numbers: tf.Tensor, bounds: tf.Tensor) -> tf.Tensor:
    """The share of `bounds` [numbers, n], ascending quantiles, that is smaller than each of `numbers` [batch, numbers]; half of those that are equal counts too.

    Many features are 0 for most accounts, so a value may be several quantiles at once: its place is the middle of them. Between two it is interpolated.
    """
    values = tf.transpose(numbers)
    below, through = (tf.searchsorted(bounds, values, side=side) for side in ("left", "right"))
    place = tf.cast(below + through, tf.float32) / 2.0 + _between(bounds, values, below, through)
    return tf.transpose(place) / tf.cast(tf.shape(bounds)[1], tf.float32)


def sizes_of(numbers: tf.Tensor) -> tf.Tensor:
    """The logarithm of one and the value, signed, in standard deviations from its mean; at most `FARTHEST`; 0 where it is missing."""
    logarithms = tf.sign(numbers) * tf.math.log1p(tf.abs(numbers))
    mean, variance = (statistic(logarithms, reduce_instance_dims=False) for statistic in (tft.mean, tft.var))  # without what is missing
    return known(tf.clip_by_value((logarithms - mean) / tf.maximum(tf.sqrt(variance), 1e-3), -FARTHEST, FARTHEST))


def known(numbers: tf.Tensor) -> tf.Tensor:
    """0 in place of what is missing."""
    return tf.where(tf.math.is_nan(numbers), tf.zeros_like(numbers), numbers)


def _between(bounds: tf.Tensor, values: tf.Tensor, below: tf.Tensor, through: tf.Tensor) -> tf.Tensor:
    """How far a value that is no quantile itself lies between its neighbours, from -0.5 to 0.5; 0 at a quantile and outside of them."""
    last = tf.shape(bounds)[1] - 1
    low, high = (tf.gather(bounds, tf.clip_by_value(place, 0, last), batch_dims=1) for place in (below - 1, below))
    inside = (below == through) & (below > 0) & (below <= last)
    return tf.where(inside, (values - low) / tf.where(high > low, high - low, tf.ones_like(high)) - 0.5, tf.zeros_like(values))
