"""The scorer: an ensemble of small networks in one graph, whose mean is calibrated on rows that none of them was fitted to.

Story: `features.py` hands over places, sizes and texts; `tabular_layers` has the pieces. Each member is trained by a loss of its own, as if it were alone, and
they answer together: the mean of their probabilities. Members that were trained on their mean would learn to lean on each other. `finish` then
looks at the rows that watched training and bends the score so that of accounts with a score of 0.3 three in ten are scammers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from sklearn.linear_model import LogisticRegression
from tabular_layers import Calibrated, LogitOfEach, MeanProbability, OfEachNumber, Said, SharedDense, Steps, logit

from mlpipelines.project_code import ModelContext

DEFAULTS: dict[str, Any] = {
    "members": 16,
    "steps": 24,
    "number_width": 8,
    "text_width": 4,
    "hidden": 128,
    "layers": 2,
    "dropout": 0.1,
    "learning_rate": 0.002,
    "weight_decay": 0.0003,
    "calibration_rows": 20,
}
"""What `training.parameters` of project.yaml may set; README.md says what each does."""


def build(context: ModelContext) -> keras.Model:
    """A score for each row, and each member's logit beside it, which the loss is about; compiled.

    Raises:
        ValueError: `training.parameters` has a name that is not in `DEFAULTS`.
    """
    settings = context.settings(DEFAULTS)
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    hidden = keras.layers.Reshape((1, -1))(keras.layers.Concatenate()(_seen(inputs, context, settings)))
    for layer in range(int(settings["layers"])):
        hidden = SharedDense(int(settings["hidden"]), int(settings["members"]), mixed=layer == 0, name=f"shared_{layer}")(hidden)
        hidden = keras.layers.Dropout(settings["dropout"])(hidden)
    members = LogitOfEach(name="members")(hidden)
    score = MeanProbability(name="score")(members)
    model = Ensemble(inputs, {"score": score, "members": members})
    rate = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], context.steps, alpha=0.02)
    model.compile(optimizer=keras.optimizers.AdamW(rate, weight_decay=settings["weight_decay"]))
    return model


def finish(model: keras.Model, context: ModelContext, examples: Callable[..., tf.data.Dataset]) -> keras.Model:
    """The score, calibrated (Platt, "Probabilistic Outputs for Support Vector Machines", 1999) on the validation rows, with a label and how sure it is.

    They chose the epoch too, which flatters them a little; no weight was fitted to them. With fewer than `calibration_rows` rows of either kind among them
    there is nothing to go by, and the score stays as it is.
    """
    score = model.output["score"]
    least = int(context.settings(DEFAULTS)["calibration_rows"])
    scores, labels = _answers(keras.Model(model.input, score), examples("validation"))
    if min(labels.sum(), len(labels) - labels.sum()) >= least:
        fitted = LogisticRegression(C=1e6).fit(np.asarray(logit(scores)).reshape(-1, 1), labels)
        slope, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        if slope > 0:  # else the order of accounts would be turned round
            score = Calibrated(slope, shift, name="calibrated")(score)
    return keras.Model(model.input, Said(name="said")(score))


@keras.saving.register_keras_serializable("scam_users")
class Ensemble(keras.Model):  # type: ignore[misc]  # Keras ships no types
    """A model whose loss is the mean of its members' losses, not the loss of their mean."""

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True) -> Any:
        """Cross entropy of every member's logit [batch, members] with the flag `y` [batch] or [batch, 1]."""
        del x, training
        logits = ops.cast(y_pred["members"], "float32")
        flags = ops.reshape(ops.cast(y, "float32"), (-1, 1))
        losses = ops.mean(ops.maximum(logits, 0.0) - logits * flags + ops.log1p(ops.exp(-ops.abs(logits))), axis=1)
        return ops.mean(losses if sample_weight is None else losses * ops.reshape(ops.cast(sample_weight, "float32"), (-1,)))


def _seen(inputs: dict[str, Any], context: ModelContext, settings: dict[str, Any]) -> list[Any]:
    """What the networks read, each [batch, n]."""
    numbers = OfEachNumber(int(settings["number_width"]), name="of_each_number")(
        Steps(int(settings["steps"]), name="steps")(inputs["places"])
    )
    texts = []
    for name in sorted(inputs):
        if name.startswith("text_"):
            values = context.vocabularies.get(name.removeprefix("text_"), 0) + 1
            embedded = keras.layers.Embedding(values, int(settings["text_width"]), name=f"{name}_embedding")(inputs[name])
            texts.append(keras.layers.Flatten()(embedded))
    return [numbers, inputs["sizes"], inputs["missing"], *texts]


def _answers(model: keras.Model, batches: tf.data.Dataset) -> tuple[Any, Any]:
    """Scores and flags of all rows, each [rows]."""
    scores, labels = [], []
    for features, label, *_ in batches:
        scores.append(np.asarray(model(features, training=False)).reshape(-1))
        labels.append(np.asarray(label).reshape(-1))
    return np.concatenate(scores), np.concatenate(labels)
