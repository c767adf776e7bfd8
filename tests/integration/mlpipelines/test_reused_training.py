"""A run that reuses a training fits nothing: the same transform, the same weights, and what is looked up is today's rows."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from mlpipelines.artifacts import KEY, Data, Model, Trained, Transformed
from mlpipelines.errors import ConfigError
from mlpipelines.project import Explanations, Project
from mlpipelines.project_file import parse_project
from mlpipelines.steps.train import train
from mlpipelines.steps.transform import transform
from mlpipelines.training.report import TrainingReport
from mlpipelines.training.trained import TrainedFacts, read_weights
from mlpipelines.workspace import ProjectState, read_json, write_json

FEATURES = """
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    return {
        "shop": tft.compute_and_apply_vocabulary(inputs["shop"], vocab_filename="shop", num_oov_buckets=1),
        "amount": tft.scale_to_z_score(inputs["amount"]),
    }
"""
MODEL = """
import keras
import numpy as np
import tensorflow as tf


def build(context):
    inputs = {name: keras.Input(shape=spec.shape, name=name, dtype=spec.dtype) for name, spec in context.features.items()}
    shop = keras.layers.Flatten()(keras.layers.Embedding(context.vocabularies["shop"] + 1, 4)(inputs["shop"]))
    out = keras.layers.Dense(WIDTH)(keras.layers.Concatenate()([shop, keras.layers.Reshape((1,))(inputs["amount"])]))
    model = keras.Model(inputs, LAST(out))
    model.compile(keras.optimizers.Adam(0.01), loss=LOSS)
    return model


def finish(model, context, examples):
    rows = sum(len(label) for _, label in examples())
    count = keras.layers.Lambda(lambda out: keras.ops.zeros_like(out[:, 0]) + rows, output_shape=())(model.output)
    finished = keras.Model(model.input, {"MAIN": model.output, "examples": count})
    last = [features["__key"].numpy()[-1] for features, _ in examples(keys=True)][-1]
    finished.explain = lambda features: why(tf.ones_like(model(features)[:, :1]), last)
    return finished


def why(one, key):
    return {"explained_by": tf.fill(tf.shape(one), key), "explained_by_label": tf.cast(one, tf.int64), "attributions": one}
"""
KINDS = {
    "similarity": {
        "WIDTH": "3",
        "LAST": "keras.layers.UnitNormalization()",
        "LOSS": "lambda y, e: keras.ops.mean(e, axis=-1)",
        "MAIN": "embedding",
    },
    "classification": {
        "WIDTH": "len(context.classes)",
        "LAST": "keras.layers.Softmax()",
        "LOSS": '"sparse_categorical_crossentropy"',
        "MAIN": "scores",
    },
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A project whose rows can be exchanged."""

    project: Project
    root: Path

    def run(self, name: str, rows: pa.Table, trained: Path | None = None) -> tuple[TrainingReport, Path]:
        """Transform and train on `rows`; the report, and the folder of the model."""
        data, transformed, model = (self.root / name / part for part in ("data", "transformed", "model"))
        spans: dict[str, Any] = {}
        for split, part in (("train", rows), ("validation", rows.slice(0, 40))):
            (data / split / "all").mkdir(parents=True)
            pq.write_table(part, data / split / "all" / "part-0.parquet")
            spans[split] = {"all": {"rows": part.num_rows, "sha256": f"{name}{split}"}}
        write_json(Data(data).manifest, {"content_hash": f"rows of {name}", "spans": spans})
        project = self.project
        if trained is not None:
            project = project.model_copy(update={"training": project.training.model_copy(update={"reuse": 3})})
        at = {"project": project, "project_dir": self.root / "project", "state": ProjectState(self.root / "state")}
        transform(**at, data=data, transformed=transformed, trained=trained)
        return train(**at, data=data, transformed=transformed, model=model, trained=trained), model


def a_project(root: Path, task: str) -> Made:
    folder = root / "project"
    folder.mkdir(parents=True)
    code = MODEL
    for name, text in KINDS[task].items():
        code = code.replace(name, text)
    (folder / "features.py").write_text(FEATURES)
    (folder / "model.py").write_text(textwrap.dedent(code))
    values = {"name": "shops", "team": "tests", "task": task, "source": {"kind": "parquet", "path": "x"}, "key": "id"}
    values |= {"features": {"shop": "string", "amount": "float"}, "label": {"column": "category"}}
    return Made(project=parse_project(values | {"training": {"epochs": 2, "batch_size": 50}}, origin="test"), root=root)


def rows(count: int, *classes: str, shop: str = "shop") -> pa.Table:
    rng = np.random.default_rng(count)
    return pa.table(
        {
            "shop": [f"{shop} {n % 7}" for n in range(count)],
            "amount": pa.array(rng.normal(size=count), pa.float32()),
            "category": [classes[n % len(classes)] for n in range(count)],
            KEY: [f"{shop}-{n}" for n in range(count)],
        }
    )


OLD = rows(200, "food", "travel")
MORE = pa.concat_tables([OLD, rows(30, "harbour", shop="pier")])


@pytest.fixture(scope="module")
def similarity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    made = a_project(tmp_path_factory.mktemp("shops"), "similarity")
    return made, made.run("first", OLD)[1]


def answers(model: Path, signature: str = "serving_default") -> dict[str, np.ndarray[Any, Any]]:
    served = tf.saved_model.load(str(Model(model).saved_model)).signatures[signature]
    asked = {"shop": tf.constant(["shop 1", "pier 2"]), "amount": tf.constant([0.5, 2.0])}
    return {name: value.numpy() for name, value in served(**asked).items()}


def test_nothing_is_fitted_and_more_rows_are_looked_up(similarity: tuple[Made, Path]) -> None:
    made, first = similarity
    report, second = made.run("more", MORE, trained=Model(first).trained)
    assert (report.epochs_run, report.steps, report.history) == (0, 0, ())
    assert report.reused == {"version": 3, "data_hash": "rows of first"}
    before, after = answers(first), answers(second)
    np.testing.assert_allclose(after["embedding"], before["embedding"], atol=1e-6)
    assert (before["examples"].tolist(), after["examples"].tolist()) == ([200, 200], [230, 230])


def test_the_transform_is_the_one_that_was_trained_on(similarity: tuple[Made, Path]) -> None:
    made, first = similarity
    made.run("shifted", MORE.set_column(1, "amount", pa.array(np.full(230, 1000.0), pa.float32())), trained=Model(first).trained)
    manifests = [read_json(Transformed(made.root / name / "transformed").manifest) for name in ("first", "shifted")]
    assert manifests[0]["vocabularies"] == manifests[1]["vocabularies"] == {"shop": 7}
    assert read_json(Transformed(made.root / "shifted" / "transformed").classes) == ["food", "harbour", "travel"]


def test_what_was_reused_can_be_reused_and_still_says_who_trained_it(similarity: tuple[Made, Path]) -> None:
    made, first = similarity
    _, second = made.run("again", MORE, trained=Model(first).trained)
    assert TrainedFacts.read(Model(second).trained).version == 3
    report, third = made.run("and again", OLD, trained=Model(second).trained)
    assert report.reused == {"version": 3, "data_hash": "rows of first"}
    for one, other in zip(read_weights(Model(first).trained), read_weights(Model(third).trained), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_embedding_can_be_asked_for_by_itself(similarity: tuple[Made, Path]) -> None:
    _, first = similarity
    alone = tf.saved_model.load(str(Model(first).saved_model)).signatures["embedding"]
    found = alone(shop=tf.constant(["shop 1", "pier 2"]), amount=tf.constant([0.5, 2.0]))
    assert set(found) == {"embedding"}
    np.testing.assert_allclose(found["embedding"], answers(first)["embedding"], atol=1e-6)


def test_a_model_that_says_why_itself_is_asked_under_the_signature_for_it_alone(similarity: tuple[Made, Path]) -> None:
    made, first = similarity
    usual, explained = answers(first), answers(first, "explain")
    assert set(usual) == {"embedding", "examples"}
    assert set(explained) - set(usual) == {"explained_by", "explained_by_label", "attributions"}
    np.testing.assert_array_equal(explained["embedding"], usual["embedding"])
    assert explained["explained_by"].tolist() == [[b"shop-199"]] * 2
    assert explained["explained_by_label"].tolist() == [[b"travel"]] * 2
    assert explained["attributions"].tolist() == [[1.0]] * 2

    explanations = made.project.deployment.model_copy(update={"explanations": Explanations()})
    both = Made(project=made.project.model_copy(update={"deployment": explanations}), root=made.root)
    with pytest.raises(ConfigError, match=r"The model has an explain\(\) of its own"):
        both.run("both", OLD)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"code": "0"}, "the project's Python changed"), ({"columns": {"shop": "string"}}, "`features` in project.yaml changed")],
)
def test_weights_of_other_code_or_other_columns_are_refused(
    similarity: tuple[Made, Path], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    made, first = similarity
    facts = json.loads(Trained(Model(first).trained).facts.read_text())
    other = tmp_path / "trained"
    other.mkdir()
    write_json(Trained(other).facts, {**facts, **change})
    with pytest.raises(ConfigError, match=words):
        made.run(f"refused {words[:5]}", OLD, trained=other)


def test_a_classifier_takes_other_rows_of_its_classes_and_no_other_classes(tmp_path: Path) -> None:
    made = a_project(tmp_path, "classification")
    _, first = made.run("first", OLD)
    _, second = made.run("more", rows(260, "food", "travel"), trained=Model(first).trained)
    np.testing.assert_allclose(answers(second)["scores"], answers(first)["scores"], atol=1e-6)
    assert answers(second)["examples"].tolist() == [260, 260]
    with pytest.raises(ConfigError, match="other classes than version 3"):
        made.run("new class", MORE, trained=Model(first).trained)
