"""The classifier: a wide part that remembers, a deep part that generalises, over hashed pieces of each transaction.

Story: `features.py` hands over cleaned text and a few numbers. `PiecesOfText` and `Crosses` take them to pieces, each piece a row number
in a table: letter n-grams ("kelt", "cafe"), words, whole names, and pairs such as *this merchant at this cost centre*.
A table has, for each piece, a vote for each class (the wide part) and an embedding for a small network (the deep part): `SumOfPieces`
for text, `EachPiece` for crosses. All tables start at zero, so a piece that training never saw says nothing; and pieces are dropped at
random while training, so that the model learns to fall back on the others.

Wide and deep: Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016. Hashed pieces: Weinberger et al., "Feature
Hashing for Large Scale Multitask Learning", 2009; Joulin et al., "Bag of Tricks for Efficient Text Classification", 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from lazy_adam import LazyAdam
from transaction_layers import Crosses, EachPiece, PiecesOfText, SumOfPieces

from mlpipelines.project_code import ModelContext

DEFAULTS: dict[str, Any] = {
    "table_bits": 15,
    "text_width": 64,
    "cross_width": 16,
    "hidden": 256,
    "dropout": 0.5,
    "piece_dropout": 0.2,
    "label_smoothing": 0.05,
    "learning_rate": 0.01,
    "half_life_days": 0,
    "balance": 0.0,
}
"""What `training.parameters` of project.yaml may set; README.md says what each does."""


def build(context: ModelContext) -> keras.Model:
    """A probability for each class, compiled with its loss and a learning rate that falls to zero by a cosine.

    Raises:
        ValueError: `training.parameters` has a name that is not in `DEFAULTS`.
    """
    settings = context.settings(DEFAULTS)
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    logits = keras.layers.Add()(_logits(inputs, classes=len(context.classes), settings=settings))
    answer = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    model = keras.Model(inputs, answer)
    model.compile(
        optimizer=LazyAdam(keras.optimizers.schedules.CosineDecay(settings["learning_rate"], context.steps, alpha=0.01)),
        loss=SmoothedCrossEntropy(settings["label_smoothing"]),
        metrics=["accuracy"],
    )
    return model


def batches(dataset: tf.data.Dataset, context: ModelContext) -> tf.data.Dataset:
    """Weigh each training row by its age: half as much for every `half_life_days`, where that is set. Habits of coding change."""
    half_life = float(context.settings(DEFAULTS)["half_life_days"])
    if half_life <= 0:
        return dataset

    def weighed(features: dict[str, tf.Tensor], label: tf.Tensor, weight: tf.Tensor | None = None) -> tuple[Any, ...]:
        young = tf.pow(0.5, tf.cast(features["age_days"], tf.float32) / half_life)
        return features, label, young if weight is None else young * weight

    return dataset.map(weighed, num_parallel_calls=tf.data.AUTOTUNE)


def finish(model: keras.Model, context: ModelContext, examples: Callable[[], tf.data.Dataset]) -> keras.Model:
    """Divide each class's probability by its share of the training rows to the power `balance`, then make them add up to one again.

    At 0 the likeliest class is answered, which is best for accuracy; at 1 every class counts alike, which is best for balanced
    recall; a little of it helps rare classes at hardly any cost. Menon et al., "Long-Tail Learning via Logit Adjustment", 2021.
    """
    balance = float(context.settings(DEFAULTS)["balance"])
    if balance <= 0:
        return model
    rows = np.ones(len(context.classes))  # as if every class had been seen once more
    for _, label, *_ in examples():
        rows += np.bincount(np.reshape(label, -1), minlength=len(rows))
    raised = model.output * keras.ops.convert_to_tensor((rows / rows.sum()) ** -balance, dtype="float32")
    return keras.Model(model.input, raised / keras.ops.sum(raised, axis=-1, keepdims=True))


@keras.saving.register_keras_serializable("transactions")
class SmoothedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """Cross entropy against class ids, `smoothing` of each target spread evenly over all classes (Szegedy et al., 2016)."""

    def __init__(self, smoothing: float, name: str = "smoothed_cross_entropy", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.smoothing = smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """`y_true` [batch] or [batch, 1] ids, `y_pred` [batch, classes] probabilities; returns [batch]."""
        logs = tf.math.log(tf.maximum(tf.cast(y_pred, tf.float32), 1e-7))
        ids = tf.reshape(tf.cast(y_true, tf.int32), [-1])
        right = tf.gather(logs, ids, axis=1, batch_dims=1)
        return -(1.0 - self.smoothing) * right - self.smoothing * tf.reduce_mean(logs, axis=1)

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "smoothing": self.smoothing}


def _logits(inputs: dict[str, Any], *, classes: int, settings: dict[str, Any]) -> list[Any]:
    """The votes of text and of crosses, and the network's answer; each [batch, classes]."""
    rows, drop = 1 << int(settings["table_bits"]), settings["piece_dropout"]
    text = PiecesOfText(rows, name="pieces_of_text")({name: inputs[name] for name in ("merchant", "brand")})
    crosses = Crosses(rows, name="crosses")(inputs)
    text_votes, text_mean = SumOfPieces(rows, classes, settings["text_width"], drop, name="text")(text)
    cross_votes, each_cross = EachPiece(rows, classes, settings["cross_width"], drop, name="cross")(crosses)
    weekday = keras.layers.Flatten()(keras.layers.Embedding(7, 4, name="weekday_embedding")(inputs["weekday"]))
    hidden = keras.layers.Dropout(settings["dropout"])(keras.layers.Concatenate()([text_mean, each_cross, inputs["numbers"], weekday]))
    hidden = keras.layers.Dense(settings["hidden"], activation="relu")(hidden)
    deep = keras.layers.Dense(classes)(keras.layers.Dropout(settings["dropout"])(hidden))
    return [text_votes, cross_votes, deep]
