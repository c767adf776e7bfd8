"""Small SavedModels, built once, and a real server in a process of its own, shared by the tests that only ask."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlserving import store

START_SECONDS = 120


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    grpc: str
    rest: str
    process: subprocess.Popen[str]
    output: Path


def _build_models(folder: Path) -> None:
    """Demo 1 to 3 (typical, says which version it is), types (every type, lists), spin (takes as long as one asks)."""
    import tensorflow as tf

    f32, string, i64 = tf.float32, tf.string, tf.int64

    class Demo(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self, version: int) -> None:
            super().__init__()
            self.number = tf.Variable(version, dtype=i64)
            self.known = tf.lookup.StaticVocabularyTable(
                tf.lookup.KeyValueTensorInitializer(["tools", "travel"], tf.constant([0, 1], i64)), num_oov_buckets=1
            )

        @tf.function(input_signature=[tf.TensorSpec([None], f32, name="amount"), tf.TensorSpec([None], string, name="merchant")])  # type: ignore[untyped-decorator]
        def predict(self, amount: Any, merchant: Any) -> Any:
            scores = tf.one_hot(self.known.lookup(merchant), 3) * 0.75 + 0.25 * tf.nn.sigmoid(amount)[:, None]
            return {
                "label": tf.gather(tf.constant(["tools", "travel", "other"]), tf.argmax(scores, axis=1)),
                "scores": scores,
                "version": tf.fill(tf.shape(merchant), self.number),
            }

        @tf.function(input_signature=[tf.TensorSpec([None], string, name="inputs")])  # type: ignore[untyped-decorator]
        def classify(self, inputs: Any) -> Any:
            spec = {"amount": tf.io.FixedLenFeature([], f32, float("nan")), "merchant": tf.io.FixedLenFeature([], string, "")}
            outputs = self.predict(**tf.io.parse_example(inputs, spec))
            classes = tf.tile(tf.constant([["tools", "travel", "other"]]), [tf.shape(inputs)[0], 1])
            return {"classes": classes, "scores": outputs["scores"]}

        @tf.function(input_signature=[tf.TensorSpec([None], string, name="inputs")])  # type: ignore[untyped-decorator]
        def regress(self, inputs: Any) -> Any:
            return {"outputs": 2 * tf.io.parse_example(inputs, {"amount": tf.io.FixedLenFeature([], f32)})["amount"]}

        def save(self, path: Path) -> None:
            signatures = {"serving_default": self.predict, "classify": self.classify, "regress": self.regress}
            tf.saved_model.save(self, str(path), signatures=signatures)

    class Types(tf.Module):  # type: ignore[misc]
        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None], tf.bool, name="flag"),
                tf.TensorSpec([None], tf.int32, name="small"),
                tf.TensorSpec([None], tf.float64, name="exact"),
                tf.TensorSpec([None, None], string, name="tags"),
                tf.TensorSpec([None, 2], i64, name="pair"),
                tf.TensorSpec([None], tf.half, name="half"),
            ]
        )
        def echo(self, flag: Any, small: Any, exact: Any, tags: Any, pair: Any, half: Any) -> Any:  # noqa: PLR0917  a signature's inputs
            first = tf.identity(tags)
            return {
                "flag": tf.logical_not(flag), "small": small + 1, "exact": exact / 3, "tags": first, "pair": pair * 2,
                "half": half * 2, "raw_bytes": tf.io.decode_base64(tf.fill(tf.shape(flag), "_-8")),
            }  # fmt: skip

    class Spin(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="turns")])  # type: ignore[untyped-decorator]
        def spin(self, turns: Any) -> Any:
            matrix = tf.random.stateless_uniform([256, 256], [1, 2]) / 256
            _, product = tf.while_loop(lambda i, _: i < turns[0], lambda i, m: (i + 1, m @ matrix), [0, matrix])
            return {"done": turns + tf.cast(tf.reduce_sum(product) * 0, tf.int32)}

    for version in (1, 2, 3):
        Demo(version).save(folder / "demo" / str(version))
    for name, module, function in (("types", Types(), "echo"), ("spin", Spin(), "spin")):
        tf.saved_model.save(module, str(folder / name / "1"), signatures={"serving_default": getattr(module, function)})
    _write_warmup(folder / "demo" / "3", merchants=["tools"])


def _write_warmup(folder: Path, merchants: list[str], amount: str = "amount") -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    record = prediction_log_pb2.PredictionLog()
    request = record.predict_log.request
    request.inputs["merchant"].CopyFrom(tf.make_tensor_proto(merchants))
    request.inputs[amount].CopyFrom(tf.make_tensor_proto([1.0] * len(merchants)))
    (folder / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as file:
        file.write(record.SerializeToString())


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<model>/<version>` SavedModels to publish."""
    folder = tmp_path_factory.mktemp("saved")
    _build_models(folder)
    return folder


@pytest.fixture(scope="session")
def unanswerable(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel that loads, but whose warm-up request it cannot answer."""
    import shutil

    folder = tmp_path_factory.mktemp("unanswerable") / "model"
    shutil.copytree(saved / "demo" / "1", folder)
    _write_warmup(folder, merchants=["tools"], amount="amnt")
    return folder


@contextlib.contextmanager
def running(folder: Path, *arguments: str | Path) -> Iterator[Running]:
    """`millrace serve` with `arguments` on free ports, ready; killed at the end if it is still there."""
    ready_file, output = folder / "ready.json", folder / "serve.log"
    options = ["--implementation", "python", "--grpc-port", "0", "--rest-port", "0", "--ready-file", str(ready_file)]
    command = [sys.executable, "-m", "mlplatform", "serve", *options, *map(str, arguments)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with output.open("w") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready_file.exists():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.05)
            ready = json.loads(ready_file.read_text())
            assert ready["pid"] == process.pid
            yield Running(ready["grpc"], ready["rest"], process, output)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def start_server() -> Any:
    """`running`, for tests that need a server of their own."""
    return running


@pytest.fixture(scope="session")
def server(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves demo 1 (stable) and 2 (canary), and types 1. Only ask it; do not change it."""
    folder = tmp_path_factory.mktemp("server")
    models = folder / "models"
    for model, version in (("demo", 1), ("demo", 2), ("types", 1)):
        store.publish_version(models, model, version, saved / model / str(version))
    config = folder / "models.config"
    config.write_text(
        "model_config_list {"
        f" config {{ name: 'demo' base_path: '{models}/demo' model_platform: 'tensorflow' model_version_policy {{ all {{}} }}"
        " version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 } }"
        f" config {{ name: 'types' base_path: '{models}/types' }} }}"
    )
    with running(folder, "--model-config", config) as ready:
        yield ready
