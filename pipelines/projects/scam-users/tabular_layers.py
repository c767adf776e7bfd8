"""Keras layers for tables of numbers: steps that a network can bend at, and many small networks that share most of their weights.

Story: `model.py` builds its ensemble from these. A plain network sees a number as one input and must learn each threshold by itself, which trees find at
once; `Steps` gives it the thresholds, and `OfEachNumber` a small embedding of each number by them. `SharedDense` is a dense layer of several networks at
once, which have the large matrix in common and a scale for each input and output of their own.

Steps: Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022 (piecewise linear encoding; since
`features.py` hands over places among the training rows, equal steps are quantiles). Sharing: Wen, Tran and Ba, "BatchEnsemble", ICLR 2020; that it carries
tables to the level of boosted trees: Gorishniy, Kotelnikov and Babenko, "TabM", ICLR 2025.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("scam_users")
class Steps(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """How far each number has come through each of `steps` equal parts of [0, 1]: [batch, n] to [batch, n, steps], each from 0 to 1."""

    def __init__(self, steps: int, **options: Any) -> None:
        super().__init__(**options)
        self.steps = steps

    def call(self, places: Any) -> Any:
        """See the class."""
        starts = ops.arange(self.steps, dtype=self.compute_dtype)
        return ops.clip(ops.expand_dims(places, -1) * self.steps - starts, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "steps": self.steps}


@keras.saving.register_keras_serializable("scam_users")
class OfEachNumber(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A dense layer with ReLU for each number by itself: [batch, n, steps] to [batch, n * width]."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights."""
        numbers, steps = input_shape[-2:]
        start = keras.initializers.RandomNormal(stddev=(2.0 / float(steps or 1)) ** 0.5)
        self.kernel = self.add_weight(shape=(numbers, steps, self.width), initializer=start, name="kernel")
        self.bias = self.add_weight(shape=(numbers, self.width), initializer="zeros", name="bias")

    def call(self, steps: Any) -> Any:
        """See the class."""
        bent = ops.relu(ops.einsum("bns,nsw->bnw", steps, self.kernel) + self.bias)
        return ops.reshape(bent, (-1, bent.shape[1] * self.width))

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("scam_users")
class SharedDense(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A dense layer with ReLU of several members: [batch, members, n], or [batch, 1, n], to [batch, members, units].

    Member m computes relu((x * r_m) W * s_m + b_m). `mixed`: r_m is a sign drawn for each input, so that members differ from the start; later layers begin
    alike and grow apart.
    """

    def __init__(self, units: int, members: int, *, mixed: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.units, self.members, self.mixed = units, members, mixed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights."""
        width = input_shape[-1]
        self.kernel = self.add_weight(shape=(width, self.units), initializer="he_normal", name="kernel")
        signs = _signs if self.mixed else "ones"
        self.into = self.add_weight(shape=(self.members, width), initializer=signs, name="into")
        self.out_of = self.add_weight(shape=(self.members, self.units), initializer="ones", name="out_of")
        self.bias = self.add_weight(shape=(self.members, self.units), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        """See the class."""
        return ops.relu(ops.matmul(inputs * self.into, self.kernel) * self.out_of + self.bias)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "units": self.units, "members": self.members, "mixed": self.mixed}


@keras.saving.register_keras_serializable("scam_users")
class LogitOfEach(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Each member's own last layer: [batch, members, n] to logits [batch, members], float32 in any precision."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights."""
        members, width = input_shape[-2:]
        self.kernel = self.add_weight(shape=(members, width), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(members,), initializer="zeros", name="bias")

    def call(self, hidden: Any) -> Any:
        """See the class."""
        return ops.sum(hidden * self.kernel, axis=-1) + self.bias


@keras.saving.register_keras_serializable("scam_users")
class MeanProbability(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """What the members say together: logits [batch, members] to the mean of their probabilities [batch, 1]."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def call(self, members: Any) -> Any:
        """See the class."""
        return ops.mean(ops.sigmoid(members), axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("scam_users")
class Calibrated(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A score s becomes sigmoid(slope * logit(s) + shift): Platt scaling; the order of scores stays where the slope is positive."""

    def __init__(self, slope: float, shift: float, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.slope, self.shift = slope, shift

    def call(self, score: Any) -> Any:
        """See the class."""
        return ops.sigmoid(self.slope * logit(score) + self.shift)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "slope": self.slope, "shift": self.shift}


@keras.saving.register_keras_serializable("scam_users")
class Said(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """What is served of a score [batch, 1]: itself, a `label`, "1" from a half on, else "0", and the `confidence` in that label, both [batch].

    Cases are cut by the score, not by the label. The label is what a reviewer is asked to confirm, and how sure the model is chooses whom they see.
    """

    def call(self, score: Any) -> dict[str, Any]:
        """See the class."""
        flat = ops.reshape(score, (-1,))
        return {"score": score, "label": tf.where(flat >= 0.5, "1", "0"), "confidence": ops.maximum(flat, 1.0 - flat)}

    def compute_output_spec(self, score: Any) -> dict[str, Any]:
        """Stated, since Keras would have to trace strings to find it out."""
        rows = score.shape[:1]
        return {
            "score": keras.KerasTensor(score.shape, dtype="float32"),
            "label": keras.KerasTensor(rows, dtype="string"),
            "confidence": keras.KerasTensor(rows, dtype="float32"),
        }


def logit(score: Any) -> Any:
    """The inverse of the sigmoid, of scores that are not quite 0 or 1."""
    inside = ops.clip(score, 1e-6, 1.0 - 1e-6)
    return ops.log(inside) - ops.log1p(-inside)


def _signs(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return ops.cast(ops.where(keras.random.uniform(shape) < 0.5, -1.0, 1.0), dtype or "float32")
