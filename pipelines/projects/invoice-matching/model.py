"""The pair model: how likely is it that this transfer pays this invoice?

Story: `features.py` hands over a vector of clues for each candidate pair. A small network weighs them, since clues depend on each other: an
amount that is half of what is open says little beside a wrong name, and nearly everything beside the invoice's number. Its answer is a
probability, and is meant as one: `assignment.py` adds up logarithms of odds over whole sets of pairs. So no class is weighted, and the loss is the
plain cross entropy, which rewards honest probabilities (Gneiting and Raftery, "Strictly Proper Scoring Rules", 2007).
"""

from __future__ import annotations

from typing import Any

import keras

from mlpipelines.project_code import ModelContext

DEFAULTS: dict[str, Any] = {"hidden": [96, 48], "dropout": 0.1, "learning_rate": 0.003, "weight_decay": 1e-4}
"""What `training.parameters` of project.yaml may set; README.md says what each does."""


def build(context: ModelContext) -> keras.Model:
    """[batch, 1]: the probability that a pair belongs together, compiled with a learning rate that falls to zero by a cosine.

    Raises:
        ValueError: `training.parameters` has a name that is not in `DEFAULTS`.
    """
    settings = context.settings(DEFAULTS)
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    hidden = inputs["clues"]
    for units in settings["hidden"]:
        hidden = keras.layers.Dense(units, activation="gelu")(hidden)
        hidden = keras.layers.Dropout(settings["dropout"])(hidden)
    score = keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="score")(hidden)
    model = keras.Model(inputs, score)
    compile_for(model, context, settings)
    return model


def compile_for(model: keras.Model, context: ModelContext, settings: dict[str, Any]) -> None:
    """Set loss and optimizer."""
    schedule = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], context.steps, alpha=0.01)
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=settings["weight_decay"]),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=[keras.metrics.AUC(curve="PR", name="pr_auc")],
    )
