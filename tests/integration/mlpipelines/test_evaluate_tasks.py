"""Every task is judged through its own outputs, with real SavedModels: detection, multilabel, similarity, regression."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from mlpipelines.artifacts import KEY, Evaluation, Model
from mlpipelines.errors import Conflict
from mlpipelines.evaluation.verdict import Verdict
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.steps.evaluate import evaluate
from mlpipelines.workspace import Workspace, write_json

Answer = Callable[[Any, Any], dict[str, Any]]
HASH = {"content_hash": "7" * 64}


def export(folder: Path, answer: Answer, classes: tuple[str, ...] = ()) -> None:
    """A SavedModel that takes `x` (float) and `words` (list of strings) and answers with `answer`."""
    import tensorflow as tf

    names = folder.parent / "classes.txt"
    names.parent.mkdir(parents=True)
    names.write_text("".join(f"{name}\n" for name in classes))
    module = tf.Module()
    module.names = tf.saved_model.Asset(str(names))
    signature = [tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([None, None], tf.string, "words")]
    module.serve = tf.function(answer, input_signature=signature)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def a_project(task: str, label: dict[str, Any] | None, **evaluation: Any) -> Project:
    values = {
        "name": "p",
        "team": "t",
        "task": task,
        "source": {"kind": "parquet", "path": "unused"},
        "time": "at",
        "features": {"x": "float", "words": "[string]"},
        "context": {"part": "integer"},
        "label": label,
        "evaluation": {"resamples": 100, **evaluation},
    }
    return parse_project(values, origin="project.yaml")


def judged(
    root: Path,
    project: Project,
    label: pa.Array,
    answer: Answer,
    *,
    classes: tuple[str, ...] = (),
    train_label: bool = True,
    x: np.ndarray | None = None,
) -> Verdict:
    """Seal 1,000 rows with this label, keep 1,000 more for training, and evaluate a model that answers so."""
    source = np.random.default_rng(1)
    count = len(label)
    x = source.normal(size=count).astype(np.float32) if x is None else x.astype(np.float32)
    rows = pa.table(
        {
            KEY: [f"k{i}" for i in range(count)],
            "at": pa.array(1_500_000_000 + 600 * np.arange(count)),
            "x": pa.array(x),
            "words": [[f"w{i % 7}"] * (i % 3) for i in range(count)],
            "part": pa.array(np.arange(count) % 2),
            "y": label,
        }
    )
    workspace = Workspace(root / "workspace")
    for folder in ("data/train/all", "test"):
        (root / folder).mkdir(parents=True)
    pq.write_table(rows if train_label else rows.drop_columns(["y"]), root / "data/train/all/rows.parquet")
    pq.write_table(rows, root / "test/test.parquet")
    write_json(root / "test/manifest.json", {**HASH, "rows": count})
    write_json(workspace.project("p").sealed / "manifest.json", HASH)
    pq.write_table(rows.select([KEY]), workspace.project("p").sealed / "keys.parquet")
    export(Model(root / "model").saved_model, answer, classes)
    return evaluate(
        project=project,
        workspace=workspace,
        test=root / "test",
        data=root / "data",
        model=root / "model",
        evaluation=root / "evaluation",
        run_id="r1",
    )


def values(count: int = 1000) -> np.ndarray:
    """`x`, as `judged` draws it."""
    return np.random.default_rng(1).normal(size=count).astype(np.float32)


def test_detection_without_any_label_is_judged_by_planted_rows(tmp_path: Path) -> None:
    import tensorflow as tf

    def apart(x: Any, words: Any) -> dict[str, Any]:
        """High where the words, 0, 1 or 2 of them, are not as many as x says."""
        some = tf.cast(tf.shape(words)[1] > 0, tf.float32) * tf.reduce_sum(tf.cast(words != "", tf.float32), axis=1)
        return {"score": tf.abs(x - some)}

    project = a_project("detection", None, metric="roc_auc", slices=[{"column": "part"}])
    nothing = pa.nulls(1000, pa.int64())
    verdict = judged(tmp_path / "a", project, nothing, apart, x=np.arange(1000) % 3)
    assert verdict.outcome == "blessed"
    assert verdict.metrics["roc_auc"] > 0.8
    assert verdict.facts["test rows"] == "1,000, and 50 planted among them, since nothing is labelled"
    blind = judged(tmp_path / "b", project, nothing, lambda x, _: {"score": x}, x=np.arange(1000) % 3)
    assert blind.outcome == "rejected"
    assert blind.metrics["roc_auc"] == pytest.approx(0.5, abs=0.1)


def test_detection_without_a_training_label_is_judged_by_what_people_would_find(tmp_path: Path) -> None:
    import tensorflow as tf

    x = values()
    flags = x + np.random.default_rng(2).normal(0, 0.5, 1000) > 1.5
    project = a_project(
        "detection",
        {"column": "y", "kind": "flag", "use": "evaluation"},
        metric="recall_at_capacity",
        capacity={"cases": 20, "per": "day"},
        slices=[{"column": "part"}],
    )
    verdict = judged(tmp_path, project, pa.array(flags.astype(int)), lambda x, _: {"score": tf.sigmoid(x)}, train_label=False)
    assert verdict.outcome == "blessed"
    places = 20 * 8  # 1,000 rows, ten minutes apart, touch eight days
    assert verdict.metrics["recall_at_capacity"] == pytest.approx(flags[np.argsort(-x)[:places]].sum() / flags.sum())
    assert verdict.checks[0].opponent == pytest.approx(places / 1000)
    assert verdict.metrics["pr_auc"] == pytest.approx(sk.average_precision_score(flags, x))
    curves = json.loads(Evaluation(tmp_path / "evaluation").curves.read_text())
    assert set(curves) == {"roc", "precision_recall", "confusion_matrix"}
    assert len([check for check in verdict.checks if check.check == "slice" and check.passed]) == 2


def test_several_labels_for_a_row_are_judged_class_by_class(tmp_path: Path) -> None:
    import tensorflow as tf

    x = values()
    label = pa.array(
        [[name for name, holds in (("high", v > 0.5), ("low", v < -0.5), ("odd", i % 50 == 0)) if holds] for i, v in enumerate(x)]
    )

    def answer(x: Any, words: Any) -> dict[str, Any]:
        return {"scores": tf.stack([tf.sigmoid(4 * (x - 0.5)), tf.sigmoid(-4 * (x + 0.5)), tf.zeros_like(x)], axis=1)}

    project = a_project("multilabel", {"column": "y", "kind": "classes"}, metric="macro_f1")
    verdict = judged(tmp_path, project, label, answer, classes=("high", "low", "odd"))
    assert verdict.outcome == "blessed"
    assert verdict.metrics["macro_f1"] == pytest.approx(2 / 3)
    assert [(score.name, score.rows) for score in verdict.classes][-1] == ("odd", 20)
    assert verdict.opponent.name == "the baseline 'training share of each class'"


def test_an_embedding_is_judged_by_the_neighbours_that_it_brings_together(tmp_path: Path) -> None:
    import tensorflow as tf

    place = np.digitize(values(), [-1, -0.3, 0.3, 1])
    project = a_project("similarity", {"column": "y"}, metric="recall_at_1")

    def answer(x: Any, words: Any) -> dict[str, Any]:
        return {"embedding": tf.stack([tf.cos(x), tf.sin(x)], axis=1)}

    verdict = judged(tmp_path, project, pa.array([f"group {i}" for i in place]), answer)
    assert verdict.outcome == "blessed"
    assert verdict.opponent.name == "the baseline 'most frequent class', and chance"
    assert verdict.metrics["recall_at_1"] > 0.95
    assert set(verdict.metrics) >= {"recall_at_5", "knn_accuracy"}


def test_a_number_is_judged_by_its_error(tmp_path: Path) -> None:
    x = values()
    project = a_project("regression", {"column": "y", "kind": "number"}, metric="mae", baseline={"kind": "mean"})
    verdict = judged(tmp_path, project, pa.array(100 + 10 * x, pa.float32()), lambda x, _: {"value": 100.0 + 9.0 * x})
    assert verdict.outcome == "blessed"
    assert verdict.metrics["mae"] == pytest.approx(np.abs(x).mean(), rel=1e-3)
    assert verdict.opponent.name == "the baseline 'training mean'"


def test_a_test_set_with_other_rows_than_the_sealed_ones_is_refused(tmp_path: Path) -> None:
    x = values()
    project = a_project("regression", {"column": "y", "kind": "number"}, metric="mae", baseline={"kind": "mean"})
    judged(tmp_path, project, pa.array(x), lambda x, _: {"value": x})
    rows = pq.read_table(tmp_path / "test/test.parquet")
    pq.write_table(rows.slice(1), tmp_path / "test/test.parquet")
    with pytest.raises(Conflict, match=r"999 rows .*1,000"):
        evaluate(
            project=project,
            workspace=Workspace(tmp_path / "workspace"),
            test=tmp_path / "test",
            data=tmp_path / "data",
            model=tmp_path / "model",
            evaluation=tmp_path / "evaluation2",
            run_id="r2",
        )
