"""`invoice-matching` on a public table: its comparisons of texts and its model on products of two shops, Walmart-Amazon.

10,242 pairs, trained, chosen (epochs, threshold) and judged on the splits that everybody uses; beside it scikit-learn's gradient boosting on the same
features, and what others have published. No public table of transfers and invoices is known to us.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from evaluating import PROJECTS, ROOT, run, table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score, precision_recall_curve

from mlpipelines.artifacts import LABEL, Transformed
from mlpipelines.project import Project
from mlpipelines.project_file import load_project
from mlpipelines.transformation.raw_features import to_tensors

PROJECT = "invoice-matching"
PRODUCTS = ROOT / "benchmarks" / "models" / "product_pairs"
PUBLISHED = {"published, without a pre-trained language model": 0.67, "published, Ditto (with one)": 0.86}
"""F1 on the table's test split, rounded, as quoted in Li et al., "Deep Entity Matching with Pre-Trained Language Models" (2020); not run here."""
Numbers = npt.NDArray[np.float64]


def evaluate(workspace: Path) -> dict[str, Any]:
    """One run; figures by name."""
    source = table("matching/walmart_amazon.parquet")
    folder = workspace / "product-pairs"
    shutil.copytree(PRODUCTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("comparing.py", "model.py"):
        shutil.copy(PROJECTS / PROJECT / name, folder)
    ran = run(str(folder), "--set", f"source.path={source}", workspace=workspace)
    (artifacts,) = (each.parent for each in ran.folder.glob("artifacts/*/train"))
    validation, test, project = ran.learned("validation"), ran.sealed(), load_project(folder)
    scored = [np.asarray(ran.answers(project, rows)["score"]).ravel() for rows in (validation, test)]
    ours = _f1(scored[0], _flags(validation), scored[1], _flags(test))
    boosted = _boosting(Transformed(artifacts / "transform" / "transformed"), project, test)
    f1 = {"this project": ours, "scikit-learn's gradient boosting, same features": boosted, **PUBLISHED}
    return {"seconds": round(ran.seconds), "test_pairs": test.num_rows, "f1": f1}


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    return [{"": name, "F1 on the test split": f"{value:.3f}"} for name, value in figures["f1"].items()]


def _boosting(transformed: Transformed, project: Project, test: pa.Table) -> float:
    """Gradient boosting on the same features; rounds and threshold are chosen on the same validation rows."""
    train, validation = (
        pa.concat_tables(pq.read_table(file, partitioning=None) for file in transformed.files(side)) for side in ("train", "validation")
    )
    tried = [
        HistGradientBoostingClassifier(max_iter=rounds, learning_rate=0.05, random_state=17).fit(_clues(train), np.asarray(train[LABEL]))
        for rounds in (50, 100, 200, 400)
    ]
    watched = [model.predict_proba(_clues(validation))[:, 1] for model in tried]
    best = max(range(len(tried)), key=lambda at: _best(watched[at], np.asarray(validation[LABEL]))[0])
    judged = tried[best].predict_proba(_through(transformed, project, test))[:, 1]
    return _f1(watched[best], np.asarray(validation[LABEL]), judged, _flags(test))


def _clues(rows: pa.Table) -> Numbers:
    return np.stack(rows["clues"].to_numpy())


def _through(transformed: Transformed, project: Project, rows: pa.Table) -> Numbers:
    """Raw rows through the graph that made the features of the training rows."""
    import tensorflow as tf
    import tensorflow_transform as tft

    (batch,) = rows.combine_chunks().to_batches()
    layer = tft.TFTransformOutput(str(transformed.transform_output)).transform_features_layer()
    return np.asarray(layer({name: tf.constant(values) for name, values in to_tensors(project, batch).items()})["clues"])


def _flags(rows: pa.Table) -> npt.NDArray[np.int64]:
    return np.asarray(rows["label"].cast(pa.int64()))


def _best(scores: Numbers, flags: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The highest F1 and the threshold that gives it."""
    precision, recall, thresholds = precision_recall_curve(flags, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    at = int(np.argmax(f1[:-1]))
    return float(f1[at]), float(thresholds[at])


def _f1(watched: Numbers, watches: npt.NDArray[np.int64], judged: Numbers, judges: npt.NDArray[np.int64]) -> float:
    """F1 of `judged` at the threshold that is best for `watched`."""
    return float(f1_score(judges, judged >= _best(watched, watches)[1]))
