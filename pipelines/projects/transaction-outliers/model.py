"""An autoencoder that must rebuild each feature of a booking from the others, and says how far each is from what it rebuilds.

Story: `features.py` hands over numbers, categories and the merchant's text. The model hides each feature in turn, presses what is left into a
short code, and rebuilds the hidden one from it: a number as a middle with a spread, a category as chances. How far the true value lies
from that is the feature's distance, and the distances together are the score. So an amount is odd for this merchant and this team, not
only for everybody. A text is rebuilt letter by letter, each from the ones before, since nobody can tell a name from an amount.

Nobody says which rows to learn from are odd. Three things keep the model from learning those too: a rebuilt number stays within
the range of ordinary rows, the rows of each batch that are worst rebuilt teach nothing (trimming; Zhou and Paffenroth, "Anomaly Detection with
Robust Deep Autoencoders", 2017, set them apart likewise), and the code is short. Hiding what is to be rebuilt: Vincent et al., "Extracting and Composing Robust
Features with Denoising Autoencoders", 2008.

`outlier_layers.py` has the layers. The model builds itself from whatever features there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from outlier_layers import (
    SYMBOLS,
    CategoryDistance,
    HiddenInTurn,
    LetterDistance,
    Letters,
    NumberDistance,
    PiecesOfText,
    Reasons,
    TrimmedMean,
)

from mlpipelines.project_code import ModelContext

DEFAULTS: dict[str, Any] = {
    "hidden": 64,
    "code": 8,
    "category_width": 8,
    "text_width": 32,
    "narrowest": 0.3,
    "trimmed": 0.02,
    "learning_rate": 0.003,
    "reasons": 3,
    "flagged_share": 0.01,
}
"""What `training.parameters` of project.yaml may set; README.md says what each does."""
FIXED_SIZES = {"hour": 24, "weekday": 7, "refund": 2}
"""Categories that need no vocabulary."""
CALIBRATED_ON = 300_000
"""Training rows at most that usual distances and the threshold are taken from, spread evenly."""


def build(context: ModelContext) -> keras.Model:
    """Distances [batch, features] and their mean as score [batch, 1], compiled; the loss is in the model.

    Raises:
        ValueError: `training.parameters` has a name that is not in `DEFAULTS`, or a feature is of no kind that the model reads.
    """
    settings = context.settings(DEFAULTS)
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    texts = {name: Letters()(inputs[name]) for name, spec in context.features.items() if spec.dtype == "string"}
    parts = {name: _part(context, name, texts.get(name, value), settings) for name, value in inputs.items()}
    rows = HiddenInTurn([int(part.shape[-1]) for part in parts.values()])(keras.layers.Concatenate()(list(parts.values())))
    for width, activation in ((settings["hidden"], "gelu"), (settings["code"], None), (settings["hidden"], "gelu")):
        rows = keras.layers.Dense(width, activation=activation)(rows)
    made = [
        _distance_of_text(texts[name], settings) if name in texts else _distance(context, name, value, rows[:, place], settings)
        for place, (name, value) in enumerate(inputs.items())
    ]
    distances = keras.layers.Concatenate(name="distances")([distance for _, distance in made])
    distances = TrimmedMean(settings["trimmed"])([keras.layers.Concatenate()([loss for loss, _ in made]), distances])
    score = keras.ops.mean(keras.ops.abs(distances), axis=1, keepdims=True)
    model = keras.Model(inputs, {"score": score, "distances": distances})
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings["learning_rate"], context.steps, alpha=0.01)))
    return model


def finish(model: keras.Model, context: ModelContext, examples: Callable[[], tf.data.Dataset]) -> keras.Model:
    """Measure each distance by what is usual among the training rows, and flag as many rows as people can look at.

    What is served: `score`, `flagged`, and as many `reasons` with their `distances` as `training.parameters` says, the farthest first.
    """
    settings = context.settings(DEFAULTS)
    distances = _of_training_rows(model, context, examples)
    usual = usual_distances(distances)
    report = Reasons(names=tuple(context.features), usual=tuple(map(float, usual)), count=min(settings["reasons"], len(usual)))
    share = context.capacity_share if context.capacity_share is not None else settings["flagged_share"]
    scores = np.asarray(report.scores(tf.constant(distances)))[:, 0]
    report.threshold = float(np.quantile(scores, 1 - share, method="midpoint"))
    return keras.Model(model.input, report(model.output["distances"]))


def usual_distances(distances: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[features]: the root mean square of each feature's distances [rows, features], without the largest hundredth; at least 1.

    A distance is meant to be about 1 as it is. Dividing by less would make much of a feature in which hardly any row differs.
    """
    sizes = np.sort(np.abs(distances), axis=0)[: max(1, int(0.99 * len(distances)))]
    return np.asarray(np.maximum(np.sqrt((sizes.astype(np.float64) ** 2).mean(axis=0)), 1.0))


def _part(context: ModelContext, name: str, value: Any, settings: dict[str, Any]) -> Any:
    """A feature as the encoder sees it, [batch, n]."""
    dtype = context.features[name].dtype
    if context.features[name].shape or dtype not in ("float32", "int64", "string"):
        raise ValueError(f"the feature {name!r} is neither one number nor one category nor one text for a row")
    if dtype == "float32":
        return keras.layers.Reshape((1,))(keras.ops.clip(value, -5.0, 5.0))
    if dtype == "int64":
        return keras.layers.Flatten()(keras.layers.Embedding(_size(context, name), settings["category_width"])(value))
    return PiecesOfText(settings["text_width"])(value)


def _distance(context: ModelContext, name: str, value: Any, row: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Loss and distance of a number or category, both [batch, 1], from the decoded `row` in which it was hidden."""
    if context.features[name].dtype == "float32":
        return NumberDistance(settings["narrowest"])([value, keras.layers.Dense(2)(row)])
    return CategoryDistance()([value, keras.layers.Dense(_size(context, name))(row)])


def _distance_of_text(letters: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Loss and distance of a text, both [batch, 1]: each letter is foretold from the four before it."""
    before = keras.layers.Embedding(SYMBOLS, settings["text_width"])(letters)
    before = keras.layers.Conv1D(settings["hidden"], 4, padding="causal", activation="gelu")(before)
    return LetterDistance()([letters, keras.layers.Dense(SYMBOLS)(before)])


def _size(context: ModelContext, name: str) -> int:
    return FIXED_SIZES[name] if name in FIXED_SIZES else context.vocabularies[name] + 1


def _of_training_rows(model: keras.Model, context: ModelContext, examples: Callable[[], tf.data.Dataset]) -> np.ndarray[Any, Any]:
    ask = tf.function(lambda features: model(features, training=False)["distances"])
    every = max(1, -(-context.train_rows // CALIBRATED_ON))
    batches = examples().shard(every, 0)
    return np.concatenate([ask(features).numpy() for features, *_ in batches])
