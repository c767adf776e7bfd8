"""Exported models that say why: the real export of small models with random weights, for every task, over numbers, text and lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mlpipelines.artifacts import Transformed
from mlpipelines.project import Project
from mlpipelines.training.export import export_model
from mlpipelines.training.tasks import TASKS
from mlpipelines.transformation.raw_features import serving_signature

COMPARED = {"amount": 10.0, "count": 3, "team": "plant", "tags": b""}
CLASSES = ["few", "many", "none"]


def a_project(task: str, **explanations: Any) -> Project:
    """A project whose model may be asked why, as `deployment.explanations` says."""
    label = {"classification": "class", "multilabel": "classes", "regression": "number"}.get(task)
    return Project.model_validate(
        {
            "name": "cards",
            "team": "finance",
            "task": task,
            "source": {"kind": "parquet", "path": "rows.parquet"},
            "features": {"amount": "float", "count": "integer", "team": "string", "tags": "[string]"},
            "label": {"column": "kind", "kind": label} if label else None,
            "deployment": {"explanations": explanations},
        }
    )


def transformed(folder: Path, project: Project, *, all_floats: bool) -> Transformed:
    """A features' graph in the form that TensorFlow Transform leaves behind."""

    def features(raw: dict[str, Any]) -> dict[str, Any]:
        amount = tf.where(tf.math.is_nan(raw["amount"]), 0.0, raw["amount"]) / 10
        tags = tf.cast(
            tf.sparse.reduce_sum(
                tf.SparseTensor(raw["tags"].indices, tf.ones_like(raw["tags"].values, tf.float32), raw["tags"].dense_shape), 1
            ),
            tf.float32,
        )
        team = tf.cast(raw["team"] == "sales", tf.int64)
        numbers = tf.stack([amount, tf.cast(raw["count"], tf.float32), tf.reshape(tags, [-1])], axis=1)
        return {"numbers": numbers, "team": tf.cast(team, tf.float32) if all_floats else team}

    specs = {
        name: tf.SparseTensorSpec([None, None], tf.string) if name == "tags" else spec for name, spec in serving_signature(project).items()
    }
    module = tf.Module()
    module.transform_fn = tf.function(features, input_signature=[specs])
    found = Transformed(folder / "transformed")
    tf.saved_model.save(module, str(found.transform_output / "transform_fn"))
    return found


def a_model(project: Project, *, all_floats: bool) -> keras.Model:
    """A network over what `transformed` makes; the same weights each time."""
    keras.utils.set_random_seed(3)
    inputs = {
        "numbers": keras.Input((3,), name="numbers"),
        "team": keras.Input((), name="team", dtype="float32" if all_floats else "int64"),
    }
    team = (
        keras.layers.Reshape((1,))(inputs["team"]) if all_floats else keras.layers.Flatten()(keras.layers.Embedding(2, 2)(inputs["team"]))
    )
    hidden = keras.layers.Dense(16, activation="tanh")(keras.layers.Concatenate()([inputs["numbers"], team]))
    last = {"classification": (3, "softmax"), "multilabel": (3, "sigmoid")}.get(project.task, (1, None))
    return keras.Model(inputs, keras.layers.Dense(last[0], activation=last[1])(hidden))


def exported(folder: Path, task: str, **explanations: Any) -> Path:
    """`folder/model`: a SavedModel that can be asked why."""
    project, floats = a_project(task, **explanations), explanations.get("method") == "integrated_gradients"
    features, model = transformed(folder, project, all_floats=floats), a_model(project, all_floats=floats)
    classes = CLASSES if TASKS[task].output == "scores" else []
    export_model(model, project=project, transformed=features, classes=classes, folder=folder / "model", compared=COMPARED)
    return folder / "model"
