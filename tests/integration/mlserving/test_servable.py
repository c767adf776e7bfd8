"""Calling a SavedModel as TensorFlow Serving's C++ calls it finds what `tf.saved_model.load` forgives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlserving.server.answer_errors import RequestError

pytestmark = pytest.mark.slow


def save(folder: Path, *, holds_variables: bool) -> tuple[Path, Any]:
    """A Keras 3 model behind a tf.Module, which holds the Keras model itself or its tf.Variables."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])

    def call(x: Any) -> Any:
        return {"y": model(x, training=False)}

    module = tf.Module()
    module.held = [variable.value for variable in model.variables] if holds_variables else model
    signature = tf.function(call).get_concrete_function(tf.TensorSpec([None, 3], tf.float32, name="x"))
    tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
    return folder, model


def test_a_keras_model_answers_as_in_memory_when_its_variables_are_exported(tmp_path: Path) -> None:
    from mlserving.server.servable import Servable

    folder, model = save(tmp_path / "1", holds_variables=True)
    servable = Servable("demo", 1, folder)
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(servable.run(servable.signature(""), {"x": x})["y"], np.asarray(model(x)))
    servable.close()


def test_a_keras_model_whose_variables_are_not_restored_is_told_with_the_cure(tmp_path: Path) -> None:
    from mlserving.server.servable import Servable

    folder, _ = save(tmp_path / "1", holds_variables=False)
    servable = Servable("demo", 1, folder)
    with pytest.raises(RequestError, match=r"Could not find variable .* module.weights = \[variable.value"):
        servable.run(servable.signature(""), {"x": np.ones((1, 3), np.float32)})
    servable.close()
