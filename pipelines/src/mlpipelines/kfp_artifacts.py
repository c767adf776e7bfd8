"""The artifact types that Kubeflow shows, and what its built-in charts are fed with.

KFP accepts type names of the `system` and `google` namespaces only, so ours live in `system`.
"""

from __future__ import annotations

import json
from pathlib import Path

from kfp import dsl

from mlpipelines.artifacts import Evaluation


class DataStatistics(dsl.Artifact):  # type: ignore[misc]  # kfp ships no types
    """TFDV statistics of each split (`mlpipelines.artifacts.Statistics`)."""

    schema_title = "system.Statistics"
    schema_version = "0.0.1"


class DataSchema(dsl.Artifact):  # type: ignore[misc]  # kfp ships no types
    """The reviewed schema, a `schema.pbtxt`."""

    schema_title = "system.Schema"
    schema_version = "0.0.1"


def log_curves(folder: Path, metrics: dsl.Metrics, curves: dsl.ClassificationMetrics) -> None:
    """Hand the verdict's numbers to KFP's metric table, confusion matrix and ROC chart.

    Args:
        folder: an `Evaluation` artifact.
        metrics: filled with the challenger's overall metrics.
        curves: filled with the confusion matrix and the ROC curve, where the task has them.
    """
    found = Evaluation(folder)
    for name, value in json.loads(found.verdict.read_text())["metrics"].items():
        if value is not None:  # not defined on these rows
            metrics.log_metric(name, float(value))
    drawn = json.loads(found.curves.read_text())
    if matrix := drawn.get("confusion_matrix"):
        curves.log_confusion_matrix(matrix["classes"], matrix["rows"])
    if roc := drawn.get("roc"):
        curves.log_roc_curve(roc["false_positive_rate"], roc["true_positive_rate"], roc["thresholds"])
