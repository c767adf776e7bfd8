"""`train` on a small project, from real transformed rows to a SavedModel that answers like the trained model."""

from __future__ import annotations

import contextlib
import shutil
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from mlpipelines.artifacts import KEY, Data, Model
from mlpipelines.errors import ConfigError, DataRejected, ModelRejected
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.steps.train import train
from mlpipelines.training.report import TrainingReport
from mlpipelines.transformation.raw_features import to_tensors
from mlpipelines.workspace import ProjectState, write_json

ROWS = {"train": 1500, "validation": 300}

FEATURES = """
import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    known = tf.math.is_finite(inputs["amount"])
    tags = tf.sparse.to_dense(inputs["tags"], default_value="")
    return {
        "amount": tft.scale_to_z_score(tf.where(known, inputs["amount"], tf.zeros_like(inputs["amount"]))),
        "known": tf.cast(known, tf.float32),
        "merchant": tft.compute_and_apply_vocabulary(inputs["merchant"], vocab_filename="merchant", num_oov_buckets=1),
        "text": inputs["merchant"],
        "pair": tf.stack([tf.cast(inputs["count"], tf.float32), tf.reduce_sum(tf.cast(tags != "", tf.float32), axis=1)], axis=1),
    }
"""

MODEL = """
import keras
import tensorflow as tf


def body(context):
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    merchant = keras.layers.Flatten()(keras.layers.Embedding(context.vocabularies["merchant"] + 1, 8)(inputs["merchant"]))
    numbers = [keras.layers.Reshape((1,))(inputs[name]) for name in ("amount", "known")]
    both = keras.layers.Concatenate()([merchant, *numbers, inputs["pair"]])
    return inputs, keras.layers.Dropout(0.1)(keras.layers.Dense(16, activation="relu")(both))


def build(context):
    inputs, hidden = body(context)
    out = keras.layers.Dense(len(context.classes), activation="softmax", dtype="float32")(hidden)
    model = keras.Model(inputs, out)
    rate = context.parameters.get("rate", 0.01)
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A project with its transformed rows."""

    project: Project
    folder: Path
    root: Path

    @property
    def state(self) -> ProjectState:
        return ProjectState(self.root / "state")

    def train(self, model: Path, **training: Any) -> TrainingReport:
        settings = self.project.training.model_copy(update=training)
        return train(
            project=self.project.model_copy(update={"training": settings}),
            project_dir=self.folder,
            state=self.state,
            data=self.root / "data",
            transformed=self.root / "transformed",
            model=model,
        )

    def with_model(self, folder: Path, code: str) -> Made:
        folder.mkdir()
        (folder / "features.py").write_text(FEATURES)
        (folder / "model.py").write_text(textwrap.dedent(code))
        return replace(self, folder=folder)


def rows(split: str, count: int) -> pa.Table:
    rng = np.random.default_rng(len(split))
    merchants = rng.integers(0, 20, count)
    amounts = np.where(rng.random(count) < 0.1, np.nan, rng.gamma(2.0, 30.0, count)).astype(np.float32)
    label = np.where(merchants % 3 == 0, "food", np.where(np.nan_to_num(amounts) > 60, "travel", "other"))
    return pa.table(
        {
            "merchant": pa.array([None if m == 19 else f"shop {m}" for m in merchants]),
            "amount": pa.array(amounts, from_pandas=True),
            "count": rng.integers(0, 5, count),
            "tags": pa.array([[f"t{i}" for i in range(n)] for n in rng.integers(0, 3, count)], pa.list_(pa.string())),
            "category": pa.array(label),
            "flag": pa.array((label == "food").astype(np.int64)),
            "size": pa.array(np.nan_to_num(amounts) * 2 + merchants, pa.float32()),
            "labels": pa.array([[c] if c != "other" else [] for c in label], pa.list_(pa.string())),
            KEY: [f"{split}-{i}" for i in range(count)],
        }
    )


def make(root: Path, *, task: str, label: dict[str, Any] | None, model: str = MODEL) -> Made:
    from mlpipelines.steps.transform import transform

    folder = root / "project"
    folder.mkdir(parents=True)
    (folder / "features.py").write_text(FEATURES)
    (folder / "model.py").write_text(textwrap.dedent(model))
    features = {"merchant": "string", "amount": "float", "count": "integer", "tags": "[string]"}
    training = {"epochs": 3, "batch_size": 100, "shuffle_rows": 400, "checkpoint_steps": 4}
    project = parse_project(
        {"name": "shops", "team": "tests", "task": task, "source": {"kind": "parquet", "path": "x"}, "key": "id", "features": features}
        | {"training": training, **({"label": label} if label else {})},
        origin="test",
    )
    spans: dict[str, Any] = {}
    for split, count in ROWS.items():
        table = rows(split, count)
        for i, span in enumerate(("2020-01", "2020-02")):
            part = table.slice(i * count // 2, count // 2)
            (root / "data" / split / span).mkdir(parents=True)
            pq.write_table(part, root / "data" / split / span / "part-0.parquet")
            spans.setdefault(split, {})[span] = {"rows": part.num_rows, "sha256": f"{split}{span}"}
    write_json(Data(root / "data").manifest, {"rows": ROWS, "content_hash": "abc", "spans": spans})
    made = Made(project=project, folder=folder, root=root)
    transform(project=project, project_dir=folder, state=made.state, data=root / "data", transformed=root / "transformed")
    return made


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("shops"), task="classification", label={"column": "category"})


@pytest.fixture(scope="module")
def trained(shops: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingReport, Model]:
    with contextlib.suppress(tf.errors.UnavailableError):  # where no training of another test was broken off
        tf.profiler.experimental.stop(save=False)  # in a run it ends with the process
    model = tmp_path_factory.mktemp("trained") / "model"
    return shops.train(model, class_weights="sqrt"), Model(model)


def elsewhere(made: Made, root: Path) -> Made:
    """The same rows in another place, with a state of its own."""
    for name in ("transformed", "data"):
        shutil.copytree(made.root / name, root / name)
    return replace(made, root=root)


def answers_of(saved: Path, project: Project, raw: pa.Table) -> dict[str, np.ndarray]:
    (batch,) = raw.combine_chunks().to_batches()
    signature = tf.saved_model.load(str(saved)).signatures["serving_default"]
    return {name: value.numpy() for name, value in signature(**{n: tf.constant(v) for n, v in to_tensors(project, batch).items()}).items()}


def test_the_report_says_what_was_done_and_what_it_cost(trained: tuple[TrainingReport, Model]) -> None:
    report, model = trained
    assert (report.steps, report.steps_per_epoch, report.epochs_run) == (45, 15, 3)
    assert [set(epoch) for epoch in report.history] == [{"loss", "accuracy", "val_loss", "val_accuracy"}] * 3
    assert report.history[-1]["val_accuracy"] > 0.6
    assert report.best_metrics()["val_loss"] == min(epoch["val_loss"] for epoch in report.history)
    assert 0 <= (report.input_wait_share or 0) <= 1
    assert report.examples_per_second > 0
    assert report.peak_memory_mb > 100
    assert report.strategy == "one"
    assert report.precision == "float32"
    assert TrainingReport.read(model.training) == report


def test_every_run_leaves_a_profiler_trace_and_scalars_for_tensorboard(trained: tuple[TrainingReport, Model]) -> None:
    _, model = trained
    assert list(model.logs.rglob("plugins/profile/*/*.xplane.pb"))
    (events,) = (model.logs / "validation").glob("events.out.tfevents.*")
    written = [value.tag for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value]
    assert written.count("epoch_loss") == 3


def test_the_saved_model_answers_raw_rows_like_the_trained_model_in_memory(shops: Made, trained: tuple[TrainingReport, Model]) -> None:
    reference = pq.read_table(trained[1].reference)
    assert reference.num_rows == ROWS["validation"]
    answers = answers_of(trained[1].saved_model, shops.project, reference)
    assert set(answers) == {"label", "confidence", "scores"}
    expected = np.array(reference["expected/scores"].to_pylist())
    assert np.abs(answers["scores"] - expected).max() < 1e-6
    assert [label.decode() for label in answers["label"]] == reference["expected/label"].to_pylist()


def test_a_server_that_only_restores_and_runs_the_graph_gets_the_same_answers(shops: Made, trained: tuple[TrainingReport, Model]) -> None:
    saved = str(trained[1].saved_model)
    raw = pq.read_table(trained[1].reference).slice(0, 5)
    expected = answers_of(trained[1].saved_model, shops.project, raw)["scores"]
    fed = to_tensors(shops.project, raw.combine_chunks().to_batches()[0])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # TensorFlow Serving's way in: no Python objects restored
        signature = tf.compat.v1.saved_model.load(session, ["serve"], saved).signature_def["serving_default"]
        scores = session.run(signature.outputs["scores"].name, {signature.inputs[name].name: value for name, value in fed.items()})
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_the_saved_model_carries_its_classes(trained: tuple[TrainingReport, Model]) -> None:
    assert (trained[1].saved_model / "assets" / "classes.txt").read_text().split() == ["food", "other", "travel"]


def test_examples_are_classified_like_rows(shops: Made, trained: tuple[TrainingReport, Model]) -> None:
    raw = pq.read_table(trained[1].reference).slice(0, 20)
    loaded = tf.saved_model.load(str(trained[1].saved_model))
    found = loaded.signatures["classify"](inputs=tf.constant([serialized(row) for row in raw.to_pylist()]))
    assert found["classes"].numpy()[0].tolist() == [b"food", b"other", b"travel"]
    assert np.abs(found["scores"].numpy() - np.array(raw["expected/scores"].to_pylist())).max() < 1e-6
    saved = saved_model_pb2.SavedModel.FromString((trained[1].saved_model / "saved_model.pb").read_bytes())
    methods = {name: signature.method_name for name, signature in saved.meta_graphs[0].signature_def.items()}
    assert methods["classify"] == "tensorflow/serving/classify"
    assert methods["serving_default"] == "tensorflow/serving/predict"


def serialized(row: dict[str, Any]) -> bytes:
    example = tf.train.Example()
    feature = example.features.feature
    feature["count"].int64_list.value.append(row["count"])
    feature["tags"].bytes_list.value.extend(tag.encode() for tag in row["tags"])
    if row["merchant"] is not None:
        feature["merchant"].bytes_list.value.append(row["merchant"].encode())
    if row["amount"] is not None:
        feature["amount"].float_list.value.append(row["amount"])
    result: bytes = example.SerializeToString()
    return result


def test_the_same_seed_gives_the_same_model_and_a_finished_training_leaves_no_checkpoint(
    shops: Made, trained: tuple[TrainingReport, Model], tmp_path: Path
) -> None:
    another = elsewhere(shops, tmp_path)
    again = another.train(tmp_path / "model", class_weights="sqrt")
    assert [epoch["val_loss"] for epoch in again.history] == pytest.approx([epoch["val_loss"] for epoch in trained[0].history], rel=1e-4)
    assert not list(another.state.checkpoints.glob("*"))


def test_training_stops_early_and_keeps_the_best_weights(shops: Made, tmp_path: Path) -> None:
    stopping = shops.project.training.early_stopping
    assert stopping is not None
    report = shops.train(
        tmp_path / "model", epochs=12, early_stopping=stopping.model_copy(update={"patience": 1}), parameters={"rate": 0.3}
    )
    assert report.stopped_early
    assert report.epochs_run == report.best_epoch + 1 < 12
    reference = pq.read_table(tmp_path / "model" / "reference.parquet")
    right = np.mean([a == b for a, b in zip(reference["expected/label"].to_pylist(), reference["category"].to_pylist(), strict=True)])
    assert right == pytest.approx(report.best_metrics()["val_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def build(context):\n    return context.nothing", ["model.py: build() fails in model.py, line 2", "AttributeError"]),
        ("def build(context):\n    return 3", ["must return a compiled keras.Model", "int"]),
        ("x = 1", ["no function build()"]),
        (MODEL.replace("len(context.classes)", "7"), ["a probability for each class", "float32 [64, 7]"]),
        (MODEL.replace('metrics=["accuracy"]', "metrics=[]") + "\ndef batches(d, c):\n    return 1", ["batches() must return", "int"]),
    ],
)
def test_what_is_wrong_in_model_py_is_told_with_its_place(shops: Made, tmp_path: Path, code: str, words: list[str]) -> None:
    broken = shops.with_model(tmp_path / "project", code)
    with pytest.raises(ConfigError) as error:
        broken.train(tmp_path / "model")
    for word in ["model.py", *words]:
        assert word in str(error.value)
    assert not (tmp_path / "model" / "saved_model").exists()


def test_a_metric_that_is_not_there_cannot_be_monitored(shops: Made, tmp_path: Path) -> None:
    stopping = shops.project.training.early_stopping
    assert stopping is not None
    with pytest.raises(ConfigError, match=r"training\.early_stopping\.monitor is 'val_auc'.*val_accuracy"):
        shops.train(tmp_path / "model", early_stopping=stopping.model_copy(update={"monitor": "val_auc"}))


def test_a_transformed_file_that_was_damaged_is_named(shops: Made, tmp_path: Path) -> None:
    damaged = elsewhere(shops, tmp_path)
    file = max((tmp_path / "transformed" / "train").rglob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[4:3000] = bytes(2996)  # the pages; the footer is whole
    file.write_bytes(content)
    with pytest.raises(DataRejected, match=rf"{file.name}, row group 0, cannot be read.*millrace run"):
        damaged.train(tmp_path / "model")


def test_a_loss_that_is_no_number_ends_the_training_and_names_the_feature(tmp_path: Path, shops: Made) -> None:
    broken = elsewhere(shops, tmp_path).with_model(tmp_path / "project", MODEL.replace("0.01)", "1e30)"))
    with pytest.raises(ModelRejected, match="loss became"):
        broken.train(tmp_path / "model", epochs=5)
    assert not list(broken.state.checkpoints.glob("*"))


def test_on_several_devices_each_step_has_the_same_rows_in_all(shops: Made, tmp_path: Path) -> None:
    report = shops.train(tmp_path / "model", strategy="mirrored")
    assert (report.strategy, report.steps, report.batch_size) == ("mirrored", 45, 100)
    expected = np.array(pq.read_table(tmp_path / "model" / "reference.parquet")["expected/scores"].to_pylist())
    answers = answers_of(tmp_path / "model" / "saved_model", shops.project, pq.read_table(tmp_path / "model" / "reference.parquet"))
    assert np.abs(answers["scores"] - expected).max() < 1e-6


def test_mixed_precision_trains_and_what_is_served_is_float32(shops: Made, tmp_path: Path) -> None:
    report = shops.train(tmp_path / "model", mixed_precision="on", epochs=1)
    assert report.precision == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    reference = pq.read_table(tmp_path / "model" / "reference.parquet")
    answers = answers_of(tmp_path / "model" / "saved_model", shops.project, reference)
    assert np.abs(answers["scores"] - np.array(reference["expected/scores"].to_pylist())).max() < 1e-6


def model_of(last: str, compiled: str) -> str:
    """model.py with another output and loss."""
    return MODEL.split("def build", maxsplit=1)[0] + textwrap.dedent(f"""
        def build(context):
            inputs, hidden = body(context)
            model = keras.Model(inputs, {last}(hidden))
            model.compile(keras.optimizers.Adam(0.01), {compiled})
            return model
        """)


SCORER = """


@keras.saving.register_keras_serializable("tests")
class Surprise(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.guess = keras.layers.Dense(16)

    def call(self, hidden):
        error = tf.reduce_mean(tf.square(self.guess(hidden[:, :4]) - hidden), axis=1, keepdims=True)
        self.add_loss(tf.reduce_mean(error))
        return error
"""

NEAREST = """


@keras.saving.register_keras_serializable("tests")
class Nearest(keras.layers.Layer):
    def __init__(self, centres, **options):
        super().__init__(**options)
        self.centres = tf.constant(centres)

    def call(self, embedding):
        near = tf.matmul(embedding, self.centres, transpose_b=True)
        return {"embedding": embedding, "label": tf.argmax(near, axis=1), "confidence": tf.reduce_max(near, axis=1)}


def finish(model, context, examples):
    import numpy as np
    total = np.zeros((len(context.classes), 16), np.float32)
    for features, label in examples():
        np.add.at(total, label.numpy(), model(features, training=False).numpy())
    centres = total / np.linalg.norm(total, axis=1, keepdims=True)
    return keras.Model(model.inputs, Nearest(centres)(model.outputs[0]))
"""

OTHER_TASKS = {
    "multilabel": (
        {"column": "labels", "kind": "classes"},
        model_of('keras.layers.Dense(len(context.classes), activation="sigmoid")', 'loss="binary_crossentropy"'),
        {"scores": (300, 2)},
        None,
    ),
    "regression": (
        {"column": "size", "kind": "number"},
        model_of("keras.layers.Dense(1)", 'loss="mse", metrics=["mae"]'),
        {"value": (300,)},
        "regress",
    ),
    "detection": (
        {"column": "flag", "kind": "flag", "use": "evaluation"},
        model_of("Surprise()", "loss=None") + SCORER,
        {"score": (300,)},
        "regress",
    ),
    "similarity": (
        {"column": "category"},
        model_of(
            "keras.layers.UnitNormalization()",
            "loss=lambda y, e: tf.square(1.0 - tf.gather(e, tf.cast(tf.reshape(y, [-1]), tf.int32), axis=1, batch_dims=1))",
        )
        + NEAREST,
        {"embedding": (300, 16), "label": (300,), "confidence": (300,)},
        "embedding",
    ),
}


KNOWING = """
def finish(model, context, examples):
    assert (context.task, context.seed) == ("classification", 17)
    counted = [0] * len(context.classes)
    for _, label in examples():
        for of_row in label.numpy():
            counted[of_row] += 1
    assert tuple(counted) == context.class_rows
    assert sum(len(label) for _, label in examples("validation")) == 300
    return model
"""


def test_model_py_knows_its_task_and_its_classes_and_gets_the_rows_of_both_splits_to_finish_with(shops: Made, tmp_path: Path) -> None:
    assert shops.with_model(tmp_path / "code", MODEL + KNOWING).train(tmp_path / "model", epochs=1).epochs_run == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(OTHER_TASKS))
def test_every_kind_of_model_is_trained_and_answers_rows(task: str, tmp_path: Path) -> None:
    label, code, shapes, besides = OTHER_TASKS[task]
    made = make(tmp_path, task=task, label=label, model=code)
    report = made.train(tmp_path / "model", epochs=2)
    assert report.epochs_run == 2
    reference = pq.read_table(tmp_path / "model" / "reference.parquet")
    answers = answers_of(tmp_path / "model" / "saved_model", made.project, reference)
    assert {name: value.shape for name, value in answers.items()} == shapes
    for name, value in answers.items():
        expected = np.array(reference[f"expected/{name}"].to_pylist())
        if name == "label":
            assert value.astype(str).tolist() == expected.tolist()
        else:
            assert np.abs(value - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())
    signatures = tf.saved_model.load(str(tmp_path / "model" / "saved_model")).signatures
    assert set(signatures) == {"serving_default", *([besides] if besides else [])}
