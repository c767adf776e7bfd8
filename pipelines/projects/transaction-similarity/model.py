"""An embedding in which transactions of one kind lie near each other, and the vote of the nearest labelled ones.

Story: `features.py` hands over cleaned text and a few numbers; `build` turns them into a vector of unit length, trained with a loss
over the pairs of a batch (`pair_losses`), which `batches` composes so that every row has partners (`composed_batches`). `finish` puts the
labelled training rows beside it (`labelled_neighbours`). No layer knows the classes: with other labelled rows, `finish` alone makes another
model, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from composed_batches import composed
from labelled_neighbours import Floats, Ids, LabelledNeighbours, chosen
from pair_losses import LOSSES, PairLoss
from similarity_layers import CrossPieces, PieceTable, TextPieces, UnitLength

from mlpipelines.artifacts import KEY
from mlpipelines.project_code import ModelContext

DEFAULTS: dict[str, Any] = {
    "loss": "multi-similarity",
    "mining": "semi-hard",
    "margin": None,
    "embedding_size": 64,
    "table_bits": 15,
    "text_width": 48,
    "cross_width": 12,
    "hidden": 192,
    "dropout": 0.2,
    "piece_dropout": 0.2,
    "piece_spread": 0.15,
    "learning_rate": 0.01,
    "rows_of_a_class": 4,
    "temperature": 0.02,
    "balance": 0.75,
    "half_life_days": 0,
    "index_rows": 200_000,
    "neighbours": 5,
}
"""What `training.parameters` of project.yaml may set; README.md says what each does."""
_BATCHES_TOGETHER = 8


def build(context: ModelContext) -> keras.Model:
    """The encoder, [batch, embedding_size] of unit length, compiled with the loss that the parameters name.

    Raises:
        ValueError: `training.parameters` has a name that is not in `DEFAULTS`, or a loss or a mining that there is not.
    """
    settings = context.settings(DEFAULTS)
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    model = keras.Model(inputs, _encoded(inputs, settings))
    rate = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], context.steps, alpha=0.02)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss_of(settings))
    return model


def batches(dataset: tf.data.Dataset, context: ModelContext) -> tf.data.Dataset:
    """Rows of a class come in groups, so that every row has partners in its batch."""
    return composed(dataset, rows_of_a_class=int(context.settings(DEFAULTS)["rows_of_a_class"]), together=_BATCHES_TOGETHER)


def finish(model: keras.Model, context: ModelContext, examples: Callable[..., tf.data.Dataset]) -> keras.Model:
    """The encoder with the index of labelled rows: `embedding`, `label`, `confidence` and `similarity`, and `explain`."""
    settings = context.settings(DEFAULTS)
    parts = [
        (
            model.predict_on_batch({name: features[name] for name in context.features}),
            label.numpy().reshape(-1),
            features["age_days"].numpy().reshape(-1),
            features[KEY].numpy(),
        )
        for features, label, *_ in examples(keys=True)
    ]
    embeddings, labels, ages, keys = (np.concatenate(values) for values in zip(*parts, strict=True))
    kept = chosen(labels, int(settings["index_rows"]))
    index = LabelledNeighbours(
        len(kept),
        embeddings.shape[1],
        len(context.classes),
        temperature=settings["temperature"],
        reasons=int(settings["neighbours"]),
        name="index",
    )
    index.fill(embeddings[kept], labels[kept], _weights(labels[kept], ages[kept], settings), keys[kept])
    finished = keras.Model(model.input, {"embedding": model.output, **index(model.output)})
    finished.explain = lambda features: index.why(model(features, training=False))
    return finished


def _weights(labels: Ids, ages: Ids, settings: dict[str, Any]) -> Floats:
    """What each row's vote weighs: less with its age, and by what its class has altogether, to the power `balance`.

    At 0 every row counts alike, and the five labels of a new class are drowned by the thousands that lie a little farther away; at 1 every class counts
    alike, which costs accuracy where frequent classes are frequent for a reason. Menon et al., "Long-Tail Learning via Logit Adjustment", 2021.
    """
    half_life = float(settings["half_life_days"])
    weights = np.power(0.5, ages / half_life) if half_life > 0 else np.ones(len(labels))
    return np.asarray(weights / np.bincount(labels, weights)[labels] ** float(settings["balance"]), np.float32)


def loss_of(settings: dict[str, Any]) -> PairLoss:
    """The loss that `loss`, `mining` and `margin` name.

    Raises:
        ValueError: there is none of that name.
    """
    name = settings["loss"]
    if name not in LOSSES:
        raise ValueError(f"training.parameters.loss is {name!r}; there are {', '.join(LOSSES)}")
    options = {} if settings["margin"] is None or name == "multi-similarity" else {"margin": float(settings["margin"])}
    return LOSSES[name](**options, **({"mining": settings["mining"]} if name == "triplet" else {}))


def _encoded(inputs: dict[str, Any], settings: dict[str, Any]) -> Any:
    rows = 1 << int(settings["table_bits"])
    table = partial(PieceTable, rows, drop=settings["piece_dropout"], spread=settings["piece_spread"])
    text = table(settings["text_width"], together=True, name="text")(TextPieces(rows, name="text_pieces")(inputs))
    crosses = CrossPieces(rows, name="cross_pieces")(inputs)
    each = table(settings["cross_width"], together=False, name="crosses")(crosses)
    weekday = keras.layers.Flatten()(keras.layers.Embedding(7, 4, name="weekday_embedding")(inputs["weekday"]))
    known = keras.layers.Dropout(settings["dropout"])(keras.layers.Concatenate()([text, each, inputs["numbers"], weekday]))
    hidden = keras.layers.Dense(settings["hidden"], activation="relu", name="hidden")(known)
    hidden = keras.layers.Dropout(settings["dropout"])(hidden)
    return UnitLength(name="embedding", dtype="float32")(keras.layers.Dense(settings["embedding_size"], name="vector")(hidden))
