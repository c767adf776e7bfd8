"""An exported model that says why, asked as a server asks it: every task, both methods, missing values and lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from explained_models import COMPARED, a_model, a_project, exported, transformed
from mlpipelines.errors import ConfigError
from mlpipelines.evaluation.served_model import ServedModel, load_model
from mlpipelines.publishing.warmup import write_requests
from mlpipelines.training.export import export_model
from mlpipelines.training.tasks import TASKS
from mlserving.client.ask import EXPLAIN_SIGNATURE
from mlserving.server.warmup import warm_up
from mlserving.store import GOLDEN_REQUESTS, WARMUP_REQUESTS


def asked(model: ServedModel, signature: str, rows: int = 40) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(1)
    tags = np.full((rows, 3), b"", dtype=object)
    tags[::2, 0] = b"urgent"
    amount = random.normal(20, 10, rows).astype(np.float32)
    amount[0] = np.nan
    teams = np.array([[b"sales", b"plant"][i % 2] for i in range(rows)], dtype=object)
    inputs = {"amount": amount, "count": random.integers(0, 5, rows), "team": teams, "tags": tags}
    return model.servable.run(model.servable.signatures[signature], inputs)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model; only ask it."""
    return exported(tmp_path_factory.mktemp("detector"), "detection")


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("classification", "shapley"),
        ("regression", "shapley"),
        ("multilabel", "integrated_gradients"),
    ],
)
def test_the_parts_add_up_to_the_served_score_and_the_usual_answers_stay(task: str, method: str, tmp_path: Path) -> None:
    floats = method == "integrated_gradients"
    with load_model(exported(tmp_path, task, method=method)) as served:
        explained, usual = asked(served, EXPLAIN_SIGNATURE), asked(served, "serving_default")
    for name, value in usual.items():
        np.testing.assert_array_equal(explained[name], value)
    score = usual[TASKS[task].output]
    score = score if score.ndim == 1 else score.max(axis=1)
    np.testing.assert_allclose(explained["base_score"] + explained["attributions"].sum(axis=1), score, atol=1e-3 if floats else 1e-5)
    names = {b"numbers", b"team"} if floats else {b"amount", b"count", b"team", b"tags"}
    assert {frozenset(row) for row in explained["explained_by"].tolist()} == {frozenset(names)}
    sizes = np.abs(explained["attributions"])
    assert (sizes[:, :-1] >= sizes[:, 1:]).all()
    assert sizes.max() > 0.01


def test_a_feature_that_is_as_in_the_row_to_compare_with_makes_nothing(detector: Path) -> None:
    with load_model(detector) as served:
        explained = asked(served, EXPLAIN_SIGNATURE)
    parts = [
        dict(zip(names, values, strict=True)) for names, values in zip(explained["explained_by"], explained["attributions"], strict=True)
    ]
    assert all(part[b"team"] == 0 for part in parts[1::2]), "those are of the team that is compared with"
    assert any(abs(part[b"team"]) > 0 for part in parts[::2])
    assert all(part[b"tags"] == 0 for part in parts[1::2])


def test_integrated_gradients_are_refused_where_a_transformed_feature_is_no_float(tmp_path: Path) -> None:
    project = a_project("detection", method="integrated_gradients")
    features, model = transformed(tmp_path, project, all_floats=False), a_model(project, all_floats=False)
    with pytest.raises(ConfigError, match=r"team.*shapley"):
        export_model(model, project=project, transformed=features, classes=[], folder=tmp_path / "model", compared=COMPARED)
    assert not (tmp_path / "model").exists()


def test_answers_that_are_named_like_an_explanation_are_refused(tmp_path: Path) -> None:
    project = a_project("detection")
    features, model = transformed(tmp_path, project, all_floats=False), a_model(project, all_floats=False)
    named = keras.Model(model.input, {"score": model.output, "attributions": model.output})
    with pytest.raises(ConfigError, match="attributions"):
        export_model(named, project=project, transformed=features, classes=[], folder=tmp_path / "model", compared=COMPARED)


def test_a_server_is_warmed_up_for_explanations_and_golden_requests_stay_the_usual_ones(detector: Path, tmp_path: Path) -> None:
    rows = pa.table({"amount": pa.array([1.0, None], pa.float32()), "count": [1, 2], "team": ["sales", None], "tags": [["a"], []]})
    with load_model(detector) as served:
        write_requests(tmp_path, served, a_project("detection"), "cards", rows)
        warm_up(served.servable, tmp_path)
    records = map(PredictionLog.FromString, tf.data.TFRecordDataset(str(tmp_path / WARMUP_REQUESTS)).as_numpy_iterator())
    assert [record.predict_log.request.model_spec.signature_name for record in records] == ["serving_default"] * 2 + ["explain"]
    golden = (tmp_path / GOLDEN_REQUESTS).read_text()
    assert golden.count("score") == 2
    assert "attributions" not in golden
