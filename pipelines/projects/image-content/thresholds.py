"""From which score on each class counts as found: the cut with the best F1 on rows that are new to the model.

Story: `model.finish` chooses these on the validation rows and moves every class's scores so that its cut lies at 0.5, where
metrics and callers expect it. Pure numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
FEWEST = 10
"""A class with fewer rows that have it keeps its cut at 0.5: the best of a handful is the luckiest."""
_LOWEST = 1e-3


def best_cuts(truth: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """For each class the score [classes] from which on its F1 is best; `truth` and `scores` are [rows, classes]."""
    return np.array([_best_cut(truth[:, place], scores[:, place]) for place in range(scores.shape[1])])


def shifts(cuts: Floats) -> Floats:
    """What to add to each class's logit so that its cut comes to lie at 0.5 [classes]."""
    inside = np.clip(cuts, _LOWEST, 1.0 - _LOWEST)
    return np.log((1.0 - inside) / inside)


def _best_cut(truth: npt.NDArray[np.bool_], scores: Floats) -> float:
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    falling, found = scores[order], np.cumsum(truth[order])
    last = np.flatnonzero(np.append(falling[:-1] > falling[1:], True))  # a cut lies between two different scores
    f1 = 2.0 * found[last] / (last + 1 + truth.sum())
    best = last[int(f1.argmax())]
    below = falling[best + 1] if best + 1 < len(falling) else 0.0
    return float((falling[best] + below) / 2.0)
