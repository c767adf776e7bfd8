"""A project of another kind through the same commands: outliers among rows that nobody has labelled."""

import json
import textwrap
from pathlib import Path

import pytest

from typed_commands import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILES = {
    "project.yaml": """
        name: readings
        team: plant
        task: detection
        source: {kind: python, entry: "generator:rows", options: {rows: 8000}}
        key: reading_id
        time: at
        features: {machine: string, load: float, heat: float}
        split: {by: row, test: 0.3}
        training: {epochs: 8, batch_size: 256}
        evaluation: {metric: roc_auc}
    """,
    "generator.py": """
        import numpy as np
        import pyarrow as pa


        def rows(since=None, until=None, rows=8000):
            random = np.random.default_rng(3)
            machine = random.integers(3, size=rows)
            load = random.random(rows)
            heat = 20 + 30 * machine + 25 * load + random.normal(0, 1.5, rows)
            at = np.datetime64("2025-03-01", "us") + np.arange(rows) * np.timedelta64(60_000_000, "us")
            names = np.array(["press", "saw", "oven"])[machine]
            yield pa.record_batch({"reading_id": [f"r{i}" for i in range(rows)], "at": at, "machine": names, "load": load, "heat": heat})
    """,
    "features.py": """
        import tensorflow as tf
        import tensorflow_transform as tft


        def preprocessing_fn(inputs):
            return {
                "machine": tft.compute_and_apply_vocabulary(inputs["machine"], num_oov_buckets=1, vocab_filename="machine"),
                "load": tft.scale_to_z_score(inputs["load"]),
                "heat": tft.scale_to_z_score(inputs["heat"]),
            }
    """,
    "model.py": """
        import keras
        import tensorflow as tf


        @keras.saving.register_keras_serializable("readings")
        class Surprise(keras.layers.Layer):
            def call(self, parts):
                heat, guess = parts
                surprise = tf.square(tf.reshape(heat, [-1, 1]) - guess)
                self.add_loss(tf.reduce_mean(surprise))
                return surprise


        def build(context):
            inputs = {name: keras.Input(shape=(), name=name, dtype=spec.dtype) for name, spec in context.features.items()}
            machine = keras.layers.Flatten()(keras.layers.Embedding(context.vocabularies["machine"] + 1, 4)(inputs["machine"]))
            known = keras.layers.Concatenate()([machine, keras.layers.Reshape((1,))(inputs["load"])])
            guess = keras.layers.Dense(1)(keras.layers.Dense(16, activation="relu")(known))
            model = keras.Model(inputs, Surprise()([inputs["heat"], guess]))
            model.compile(keras.optimizers.Adam(0.02))
            return model
    """,
}


def test_outliers_without_any_label_are_trained_judged_and_published(tmp_path: Path) -> None:
    project = tmp_path / "readings"
    project.mkdir()
    for name, text in FILES.items():
        (project / name).write_text(textwrap.dedent(text).lstrip())
    assert run(project, "--accept-schema", workspace=tmp_path / "w")["status"] == "blessed"
    (verdict,) = tmp_path.glob("w/projects/readings/runs/*/artifacts/*/evaluate/evaluation/verdict.json")
    assert json.loads(verdict.read_text())["metrics"]["roc_auc"] > 0.8
    assert (tmp_path / "w" / "models" / "readings" / "1" / "saved_model.pb").exists()
