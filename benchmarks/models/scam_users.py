"""`scam-users` on a real table, default of credit card clients, beside gradient boosting that learned the same rows and is judged by the same.

The rival is scikit-learn's HistGradientBoostingClassifier with the best of twelve settings by three-fold cross validation. Both see the rows that the
project trains on and those that watch training, and neither was adjusted to the sealed ones. Recall is what moderators would find who look at 5 or 10 %
of the sealed clients. Intervals are 95 % percentile intervals of a bootstrap over the sealed rows, the same draws for both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from evaluating import PROJECTS, interval, resampled, run, table
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterSampler, cross_val_score

from mlpipelines.project_file import load_project

Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats], float]
"""Of scores and flags, both [rows]."""
LABEL = "DEFAULT_PAYMENT_NEXT_MONTH"
OVERLAY = "credit_default.yaml"
BINS = 10
SETTINGS = {
    "learning_rate": [0.02, 0.05, 0.1],
    "max_leaf_nodes": [7, 15, 31],
    "l2_regularization": [0.0, 1.0, 10.0],
    "min_samples_leaf": [20, 60, 150],
    "max_iter": [100, 200, 400],
}


def evaluate(workspace: Path) -> dict[str, Any]:
    """One run of each; figures by name."""
    source = table("tabular/uci_credit_default.parquet")
    ran = run("scam-users", "--with", OVERLAY, "--set", f"source.path={source}", workspace=workspace)
    sealed, learned = ran.sealed(), ran.learned("train", "validation")
    flags = np.asarray(sealed[LABEL].cast(pa.int64()), dtype=np.float64)
    project = load_project(PROJECTS / "scam-users", overlays=[PROJECTS / "scam-users" / OVERLAY])
    ours = np.asarray(ran.answers(project, sealed)["score"], dtype=np.float64)
    scores = {"scam-users": ours, "gradient boosting": _boosted(learned, sealed)}
    return {
        "status": ran.record["status"],
        "seconds": round(ran.seconds),
        "rows": {"learned": learned.num_rows, "sealed": sealed.num_rows},
        "models": {name: _judged(score, flags) for name, score in scores.items()},
        "difference": _difference(scores["scam-users"], scores["gradient boosting"], flags),
        "reliability": {name: _reliability(score, flags) for name, score in scores.items()},
    }


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    names = list(figures["models"]["scam-users"])
    return [
        {
            "metric": name,
            **{model: interval(judged[name]) for model, judged in figures["models"].items()},
            "difference": interval(figures["difference"][name]),
        }
        for name in names
    ]


def _boosted(learned: pa.Table, sealed: pa.Table) -> Floats:
    names = [name for name in learned.column_names if name not in (LABEL, "ID", "__key")]
    x, y = (_matrix(learned, names), np.asarray(learned[LABEL].cast(pa.int64())))
    tried = list(ParameterSampler(SETTINGS, 12, random_state=17))
    models = [HistGradientBoostingClassifier(random_state=17, **each) for each in tried]
    found = [cross_val_score(model, x, y, scoring="roc_auc", cv=3).mean() for model in models]
    best = models[int(np.argmax(found))].fit(x, y)
    return np.asarray(best.predict_proba(_matrix(sealed, names))[:, 1], dtype=np.float64)


def _matrix(rows: pa.Table, names: list[str]) -> Floats:
    """The sex, education and marriage codes are numbers as well, and trees can split them."""
    return np.stack([np.asarray(rows[name].cast(pa.float64())) for name in names], axis=1)


def _recall(share: float) -> Metric:
    def recall(score: Floats, flags: Floats) -> float:
        seen = np.argsort(-score, kind="stable")[: round(share * len(score))]
        return float(flags[seen].sum() / flags.sum())

    return recall


def _calibration_error(score: Floats, flags: Floats) -> float:
    """Expected calibration error over bins with equally many rows: the mean distance of the mean score from the share of ones."""
    return float(np.mean([abs(line["score"] - line["share"]) for line in _reliability(score, flags)]))


METRICS: dict[str, Metric] = {
    "recall at 5 %": _recall(0.05),
    "recall at 10 %": _recall(0.10),
    "ROC AUC": lambda score, flags: float(roc_auc_score(flags, score)),
    "Brier": lambda score, flags: float(np.mean((score - flags) ** 2)),
    "calibration error": _calibration_error,
}


def _judged(score: Floats, flags: Floats) -> dict[str, Any]:
    return {name: resampled(len(flags), partial(_at, metric, score, flags)) for name, metric in METRICS.items()}


def _difference(ours: Floats, theirs: Floats, flags: Floats) -> dict[str, Any]:
    def between(metric: Metric, drawn: Any) -> float:
        return _at(metric, ours, flags, drawn) - _at(metric, theirs, flags, drawn)

    return {name: resampled(len(flags), partial(between, metric)) for name, metric in METRICS.items()}


def _at(metric: Metric, score: Floats, flags: Floats, drawn: Any) -> float:
    return metric(score[drawn], flags[drawn])


def _reliability(score: Floats, flags: Floats) -> list[dict[str, float]]:
    """Of tenths of the rows by score: what was said on average, and what came."""
    parts = np.array_split(np.argsort(score, kind="stable"), BINS)
    return [{"score": float(score[part].mean()), "share": float(flags[part].mean())} for part in parts]
