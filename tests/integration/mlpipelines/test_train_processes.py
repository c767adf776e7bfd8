"""`train` in processes of its own: killed in the middle of an epoch and run again, as two workers, and on two devices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpipelines.artifacts import KEY, Data, Model
from mlpipelines.project_file import parse_project, to_json
from mlpipelines.training.report import TrainingReport
from mlpipelines.workspace import ProjectState, write_json

pytestmark = pytest.mark.slow

FEATURES = """
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    return {name: tft.scale_to_z_score(value) for name, value in inputs.items()}
"""

MODEL = """
import os
import time

import keras
import tensorflow as tf

BUILT = []


def build(context):
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    hidden = keras.layers.Concatenate()([keras.layers.Reshape((1,))(tensor) for tensor in inputs.values()])
    hidden = keras.layers.Dense(16, activation="relu")(hidden)
    if context.parameters.get("dropout", True):
        hidden = keras.layers.Dropout(0.2)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    model.compile(keras.optimizers.Adam(0.01), loss="binary_crossentropy", metrics=["accuracy"])
    BUILT.append(model)
    return model


def batches(dataset, context):
    seconds = float(os.environ.get("SECONDS_A_STEP", "0"))


    def late(*batch):
        with tf.control_dependencies([tf.py_function(lambda: time.sleep(seconds), [], [])]):
            return tf.nest.map_structure(tf.identity, batch)

    return dataset.map(late) if seconds else dataset
"""

PROCESS = """
import json, os, sys
from pathlib import Path
from mlpipelines.project_file import from_json
from mlpipelines.workspace import ProjectState
import tensorflow as tf
cpus = int(os.environ.get("CPUS", "1"))
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * cpus)
from mlpipelines.steps.train import train
root, model = Path(sys.argv[2]), Path(sys.argv[3])
report = train(project=from_json(sys.argv[1]), project_dir=root / "project", state=ProjectState(root / "state"),
               data=root / "data", transformed=root / "transformed", model=model)
print("REPORT " + json.dumps(report.to_json()))
import model as code
print("WEIGHTS " + json.dumps([tf.convert_to_tensor(value).numpy().tolist() for value in code.BUILT[0].trainable_variables]))
"""


class Trained:
    """A project on disk, and processes that train it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = parse_project(
            {"name": "flags", "team": "tests", "task": "detection", "source": {"kind": "parquet", "path": "x"}, "key": "id"}
            | {"features": {"a": "float", "b": "float"}, "label": {"column": "flag", "kind": "flag"}}
            | {"training": {"batch_size": 100, "epochs": 6, "shuffle_rows": 500, "checkpoint_steps": 3, "early_stopping": None}},
            origin="test",
        )

    @property
    def state(self) -> ProjectState:
        return ProjectState(self.root / "state")

    def start(self, model: Path, *, training: dict[str, Any] | None = None, **environment: str) -> subprocess.Popen[str]:
        settings = self.project.training.model_copy(update=training or {})
        project = to_json(self.project.model_copy(update={"training": settings}))
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, project, str(self.root), str(model)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def report_of(process: subprocess.Popen[str]) -> TrainingReport:
    return outcome_of(process)[0]


def outcome_of(process: subprocess.Popen[str]) -> tuple[TrainingReport, list[Any]]:
    """The report, and the trained weights."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(("REPORT ", "WEIGHTS "))}
    return TrainingReport.from_json(json.loads(said["REPORT"])), json.loads(said["WEIGHTS"])


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from mlpipelines.steps.transform import transform

    made = Trained(tmp_path_factory.mktemp("flags"))
    folder = made.root / "project"
    folder.mkdir()
    (folder / "features.py").write_text(FEATURES)
    (folder / "model.py").write_text(MODEL)
    rng = np.random.default_rng(5)
    spans: dict[str, Any] = {}
    for split, count in {"train": 2050, "validation": 400}.items():
        a, b = rng.normal(size=(2, count)).astype(np.float32)
        keys = [f"{split}{i}" for i in range(count)]
        target = made.root / "data" / split / "all"
        target.mkdir(parents=True)
        pq.write_table(
            pa.table({"a": a, "b": b, "flag": (a * b > 0).astype(np.int64), KEY: keys}), target / "part.parquet", row_group_size=300
        )
        spans[split] = {"all": {"rows": count, "sha256": split}}
    write_json(Data(made.root / "data").manifest, {"content_hash": "x", "spans": spans})
    transform(project=made.project, project_dir=folder, state=made.state, data=made.root / "data", transformed=made.root / "transformed")
    return made


def scores(model: Path) -> np.ndarray:
    return np.array(pq.read_table(Model(model).reference)["expected/score"].to_pylist())


def test_a_training_killed_within_an_epoch_goes_on_where_it_was_and_ends_the_same(flags: Trained, tmp_path: Path) -> None:
    whole = report_of(flags.start(tmp_path / "whole"))
    process = flags.start(tmp_path / "killed", SECONDS_A_STEP="0.05")
    while not list(flags.state.checkpoints.glob("*/step-*27-00001.npz")):  # the seventh step of the second epoch
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Model(tmp_path / "killed").training.exists()

    resumed = report_of(flags.start(tmp_path / "killed"))

    assert 27 <= resumed.resumed_from_step < 40
    assert (resumed.steps, resumed.epochs_run, len(resumed.history)) == (whole.steps, 6, 6) == (120, 6, 6)
    assert [epoch["val_loss"] for epoch in resumed.history] == pytest.approx([epoch["val_loss"] for epoch in whole.history], rel=1e-5)
    assert np.abs(scores(tmp_path / "killed") - scores(tmp_path / "whole")).max() < 1e-5
    assert not list(flags.state.checkpoints.iterdir())


def test_two_workers_train_to_the_same_weights_and_only_the_chief_writes(flags: Trained, tmp_path: Path) -> None:
    settings = {"parameters": {"dropout": False}, "epochs": 3}
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = [
        flags.start(
            tmp_path / f"worker-{index}",
            training=settings,
            TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}),
        )
        for index in range(2)
    ]
    (chief, weights), (other, other_weights) = (outcome_of(worker) for worker in workers)
    alone = report_of(flags.start(tmp_path / "alone", training=settings))
    assert (chief.strategy, chief.replicas, chief.steps) == ("multi-worker", 2, 60) != (alone.strategy, alone.replicas, alone.steps)
    assert weights == other_weights
    assert chief.history == other.history
    assert chief.best_metrics()["val_loss"] == pytest.approx(alone.best_metrics()["val_loss"], rel=0.2)
    assert Model(tmp_path / "worker-0").saved_model.is_dir()
    assert not (tmp_path / "worker-1").exists()


def test_two_devices_share_each_batch(flags: Trained, tmp_path: Path) -> None:
    report = report_of(flags.start(tmp_path / "model", training={"strategy": "mirrored", "epochs": 3}, CPUS="2"))
    assert (report.strategy, report.replicas, report.batch_size, report.steps) == ("mirrored", 2, 100, 60)
    assert report.history[-1]["val_accuracy"] > 0.6
    assert scores(tmp_path / "model").shape == (400,)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
