"""Each class by itself: how many rows it has, how many of them are found, and how many of the answers are right.

Pure. For the reader of a verdict, who wants to know *where* a model is weak; nothing is decided by it.
"""

from __future__ import annotations

import numpy as np

from mlpipelines.evaluation.answers import Answers, Flags, Truth
from mlpipelines.evaluation.bootstrap import proportion_interval
from mlpipelines.evaluation.metrics import MULTILABEL_THRESHOLD
from mlpipelines.evaluation.verdict import ClassScore, Estimate


def class_scores(truth: Truth, challenger: Answers, opponent: Answers, confidence: float) -> tuple[ClassScore, ...]:
    """Precision and recall of each class, largest first, with Wilson intervals; empty for tasks without classes."""
    found = [
        _class_score(name, _true(truth, place), _answered(challenger, place), _answered(opponent, place), confidence)
        for place, name in enumerate(truth.classes)
        if _answered(challenger, place) is not None
    ]
    return tuple(sorted((score for score in found if score is not None), key=lambda score: (-score.rows, score.name)))


def _class_score(name: str, true: Flags, ours: Flags | None, theirs: Flags | None, confidence: float) -> ClassScore | None:
    assert ours is not None
    rows, answered, right = int(true.sum()), int(ours.sum()), int((true & ours).sum())
    if not rows and not answered:
        return None
    return ClassScore(
        name=name,
        rows=rows,
        precision=_share(right, answered, confidence),
        recall=_share(right, rows, confidence),
        f1=2 * right / (rows + answered),
        opponent_f1=None if theirs is None or not rows + theirs.sum() else float(2 * (true & theirs).sum() / (rows + theirs.sum())),
    )


def _share(hits: int, trials: int, confidence: float) -> Estimate | None:
    bounds = proportion_interval(hits, trials, confidence)
    return None if bounds is None else Estimate(value=hits / trials, low=bounds.low, high=bounds.high)


def _true(truth: Truth, place: int) -> Flags:
    if truth.many is not None:
        return truth.many[:, place]
    assert truth.ids is not None
    return np.equal(truth.ids, place)


def _answered(side: Answers, place: int) -> Flags | None:
    if side.scores is not None:
        return np.greater_equal(side.scores[:, place], MULTILABEL_THRESHOLD)
    return None if side.ids is None else np.equal(side.ids, place)
