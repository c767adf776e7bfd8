"""The classifier: what is on an image, one thing (`classification`) or any number of them (`multilabel`).

Story: a transformer (`backbones.py`) looks at pixels, and a head of one layer turns what it saw into a probability for each class. While
training, `batches` decodes the files and changes the pictures, each batch on a core of its own, so that a GPU does not wait for them;
validation and every request go through the decoder inside the model. `finish` makes what is served: for many labels each class has
a cut of its own, chosen on the validation rows, and an answer says whether there was an image to look at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from augmentation import Changes, changed
from backbones import backbone, side
from image_layers import Decoded, decoded, readable
from regions import explained
from thresholds import best_cuts, shifts

from mlpipelines.project_code import ModelContext
from mlpipelines.training.explanations import BASE

DEFAULTS: dict[str, Any] = {
    "architecture": "cct",
    "preset": None,
    "frozen": False,
    "image_size": 32,
    "patch_size": 4,
    "stem": 48,
    "width": 96,
    "layers": 3,
    "heads": 3,
    "dropout": 0.1,
    "learning_rate": 0.001,
    "weight_decay": 0.05,
    "warmup": 0.1,
    "label_smoothing": 0.1,
    "rare_weight": 0.5,
    "cuts": True,
    "crop": 0.7,
    "shift": 0.1,
    "flip": True,
    "colour": 0.2,
    "erase": 0.0,
}
"""What `training.parameters` of project.yaml may set; README.md says what each does."""
_HEAVIEST = 20.0
_SMALLEST = 1e-7


def build(context: ModelContext) -> keras.Model:
    """A probability for each class, compiled with its loss and a learning rate that rises, then falls to zero by a cosine.

    Raises:
        ValueError: `training.parameters` has a name that is not in `DEFAULTS`, or as `backbones.backbone`.
    """
    settings = context.settings(DEFAULTS)
    model = ImageModel(backbone(settings), classes=len(context.classes), many=_many(context), dropout=settings["dropout"])
    loss = WeighedCrossEntropy(_weights(context, settings)) if _many(context) else SmoothedCrossEntropy(settings["label_smoothing"])
    model.compile(optimizer=_optimizer(context, settings), loss=loss, metrics=[] if _many(context) else ["accuracy"])
    return model


def batches(dataset: tf.data.Dataset, context: ModelContext) -> tf.data.Dataset:
    """Decode the files of each batch and change the pictures: `image`, bytes [batch], becomes `pixels`."""
    settings = context.settings(DEFAULTS)
    size = side(settings)
    changes = Changes(**{name: settings[name] for name in ("crop", "shift", "flip", "colour", "erase")})

    def seen(number: tf.Tensor, batch: tuple[Any, ...]) -> tuple[Any, ...]:  # what a batch looks like after `number` others
        pixels = decoded(batch[0]["image"], size)
        return ({"pixels": changed(pixels, changes, tf.stack([number, context.seed]))}, *batch[1:])

    return dataset.enumerate().map(seen, num_parallel_calls=os.cpu_count()).prefetch(2)


def finish(model: keras.Model, context: ModelContext, examples: Callable[..., tf.data.Dataset]) -> keras.Model:
    """What is served: for many labels with the cut of each class at 0.5, chosen on the validation rows."""
    if not _many(context) or not context.settings(DEFAULTS)["cuts"]:
        return Served(model, np.zeros(len(context.classes)))
    answered = [(label.numpy() > 0.5, model.predict_on_batch(features)) for features, label, *_ in examples("validation")]
    truth, scores = (np.concatenate(parts) for parts in zip(*answered, strict=True))
    return Served(model, shifts(best_cuts(truth, scores)))


@keras.saving.register_keras_serializable("image_content")
class ImageModel(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """Takes `image`, the bytes of files [batch], or `pixels` [batch, side, side, 3]; gives probabilities [batch, classes]."""

    def __init__(self, eye: keras.Model, *, classes: int, many: bool, dropout: float, **options: Any) -> None:
        super().__init__(**options)
        self.eye, self.many = eye, many
        self.decoder = Decoded(eye.input_shape[1])
        self.dropout = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(classes, activation="sigmoid" if many else "softmax", dtype="float32")
        self.head.build((None, eye.output_shape[-1]))
        self.supports_jit = False  # XLA has no strings

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """See the class."""
        pixels = inputs["pixels"] if "pixels" in inputs else self.decoder(inputs["image"])
        return self.head(self.dropout(self.eye(pixels, training=training), training=training))


@keras.saving.register_keras_serializable("image_content")
class Served(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """The trained model as callers ask it: `scores` [batch, classes] with each class's cut at 0.5, and `readable` [batch].

    Where there is no image to look at, `readable` is 0 and so is every score.
    """

    def __init__(self, model: ImageModel, shift: np.ndarray[Any, Any], **options: Any) -> None:
        super().__init__(**options)
        self.model, self.shift = model, shift.astype(np.float32)

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """See the class."""
        del training
        looked = tf.cast(readable(inputs["image"]), tf.float32)
        return {"scores": self._scores(self.model.decoder(inputs["image"])) * looked[:, tf.newaxis], "readable": looked}

    def explain(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Which squares of the image make its highest score; where there is no image to look at, none makes anything."""
        found = explained(self._scores, self.model.decoder(inputs["image"]))
        return {**found, BASE: found[BASE] * tf.cast(readable(inputs["image"]), tf.float32)}

    def _scores(self, pixels: tf.Tensor) -> tf.Tensor:
        scores = self.model({"pixels": pixels}, training=False)
        if not self.shift.any():
            return scores
        scores = tf.clip_by_value(scores, _SMALLEST, 1.0 - _SMALLEST)
        return tf.sigmoid(tf.math.log(scores) - tf.math.log1p(-scores) + self.shift)


@keras.saving.register_keras_serializable("image_content")
class WeighedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """Binary cross entropy over classes; a row that has class c counts `weights[c]` times there."""

    def __init__(self, weights: list[float], name: str = "weighed_cross_entropy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.weights = weights

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """`y_true` of 0 and 1 and `y_pred` of probabilities, [batch, classes]; returns [batch]."""
        sure = tf.clip_by_value(tf.cast(y_pred, tf.float32), _SMALLEST, 1.0 - _SMALLEST)
        has = tf.cast(y_true, tf.float32)
        return -tf.reduce_mean(has * self.weights * tf.math.log(sure) + (1.0 - has) * tf.math.log1p(-sure), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "weights": self.weights}


@keras.saving.register_keras_serializable("image_content")
class SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """Cross entropy against class ids, `smoothing` of each target spread evenly over all classes (Szegedy et al., 2016)."""

    def __init__(self, smoothing: float, name: str = "smoothed_cross_entropy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.smoothing = smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """`y_true` [batch] or [batch, 1] ids, `y_pred` [batch, classes] probabilities; returns [batch]."""
        logs = tf.math.log(tf.maximum(tf.cast(y_pred, tf.float32), _SMALLEST))
        right = tf.gather(logs, tf.reshape(tf.cast(y_true, tf.int32), [-1]), axis=1, batch_dims=1)
        return -(1.0 - self.smoothing) * right - self.smoothing * tf.reduce_mean(logs, axis=1)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "smoothing": self.smoothing}


def _many(context: ModelContext) -> bool:
    return context.task == "multilabel"


def _weights(context: ModelContext, settings: Mapping[str, Any]) -> list[float]:
    """For each class how many rows without it there are for one with it, to the power `rare_weight`."""
    having = np.maximum(np.array(context.class_rows, np.float64), 1.0)
    without = np.maximum(context.train_rows - having, 1.0)
    return [float(weight) for weight in np.clip((without / having) ** float(settings["rare_weight"]), 1.0, _HEAVIEST)]


def _optimizer(context: ModelContext, settings: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019); what shifts and scales is not pulled to zero."""
    steps = max(1, context.train_rows // max(1, context.batch_size * context.replicas)) * context.epochs
    warm = min(steps - 1, int(steps * float(settings["warmup"])))
    rate = float(settings["learning_rate"])
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 100 if warm else rate, max(1, steps - warm), alpha=0.01, warmup_target=rate if warm else None, warmup_steps=warm
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=float(settings["weight_decay"]), clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "position", "class_token"])
    return optimizer
