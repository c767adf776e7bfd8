"""The pictures behind the numbers: confusion matrix, ROC and precision-recall curve, small enough to draw. Pure.

The JSON that `curve_data` returns feeds Kubeflow's charts (`kfp_artifacts.py`) and our own page (`verdict_page.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpipelines.evaluation.answers import Answers, Flags, Floats, Ids, Truth, looked_at

LARGEST_CLASSES = 20
REST = "(all others)"
POINTS = 200


def curve_data(truth: Truth, answers: Answers) -> dict[str, Any]:
    """What can be drawn of these answers.

    Returns:
        `confusion_matrix` (`classes`, `rows`: true by predicted counts) where there are classes or a capacity; `roc`
        (`false_positive_rate`, `true_positive_rate`, `thresholds`) and `precision_recall` (`recall`, `precision`,
        `thresholds`) for detection, at most 200 points each, thresholds falling.
    """
    if truth.ids is not None and answers.ids is not None:
        return {"confusion_matrix": confusion_matrix(truth.classes, truth.ids, answers.ids)}
    if truth.flags is None or answers.score is None or truth.flags.all() or not truth.flags.any():
        return {}
    curves = _ranking_curves(truth.flags, answers.score)
    if answers.capacity is not None:
        curves["confusion_matrix"] = _seen_matrix(truth.flags, looked_at(answers.score, answers.capacity))
    return curves


def confusion_matrix(classes: tuple[str, ...], true: Ids, predicted: Ids) -> dict[str, Any]:
    """Counts of true by predicted class for the twenty largest classes of the truth; all others share the last row and column."""
    sizes = np.bincount(true[true >= 0], minlength=len(classes))
    kept = [int(place) for place in np.argsort(-sizes, kind="stable")[:LARGEST_CLASSES] if sizes[place] > 0]
    names = [classes[place] for place in kept]
    places = np.full(len(classes) + 1, len(kept))
    places[kept] = np.arange(len(kept))
    width = len(kept) + 1
    rows = np.bincount(places[true] * width + places[predicted], minlength=width * width).reshape(width, width)
    if not rows[-1].any() and not rows[:, -1].any():
        return {"classes": names, "rows": rows[:-1, :-1].tolist()}
    return {"classes": [*names, REST], "rows": rows.tolist()}


def _ranking_curves(flags: Flags, score: Floats) -> dict[str, Any]:
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    found = np.cumsum(flags[order])[ends]
    taken = ends + 1
    wrong = taken - found
    kept = _spread(found / found[-1], wrong / wrong[-1])
    thresholds = score[order][ends]
    return {
        "roc": {
            "false_positive_rate": [0.0, *(wrong / wrong[-1])[kept].tolist()],
            "true_positive_rate": [0.0, *(found / found[-1])[kept].tolist()],
            "thresholds": [float(thresholds[0]) + 1.0, *thresholds[kept].tolist()],
        },
        "precision_recall": {
            "recall": (found / found[-1])[kept].tolist(),
            "precision": (found / taken)[kept].tolist(),
            "thresholds": thresholds[kept].tolist(),
        },
    }


def _spread(*rates: Floats) -> Ids:
    """Places of at most `POINTS - 1` points that lie evenly along the curve, first and last included."""
    length = sum((np.abs(np.diff(rate, prepend=0.0)) for rate in rates), start=np.zeros(len(rates[0])))
    along = np.cumsum(length)
    wanted = np.linspace(along[0], along[-1], POINTS - 1)
    return np.unique(np.searchsorted(along, wanted, side="left").clip(0, len(along) - 1))


def _seen_matrix(flags: Flags, seen: Floats) -> dict[str, Any]:
    """Looked for or not, by seen or not, at the capacity; ties make parts of rows, which are rounded."""
    counts = [[((1 - seen) * ~flags).sum(), (seen * ~flags).sum()], [((1 - seen) * flags).sum(), (seen * flags).sum()]]
    return {"classes": ["negative", "positive"], "rows": [[round(float(value)) for value in row] for row in counts]}
