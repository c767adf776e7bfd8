"""Do several amounts add up to one? For every amount: how near the best sum that it is part of comes to a target.

Story: a customer pays four invoices at once, or one in three parts; then no amount fits by itself, but some of them add up. `pairs.py`
tells the model of each pair how well it is part of such a sum. Pure numpy: sets of a few amounts, thousands of sets at a time.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_AT_ONCE = 4_000


def gaps(amounts: Floats, targets: Floats, *, most: int) -> Floats:
    """How far the best sum of two to `most` amounts of a set, this one among them, is from the set's target, as a part of the target.

    Args:
        amounts: [sets, width], padded with NaN.
        targets: [sets], above zero.
        most: amounts in a sum.

    Returns:
        [sets, width]; NaN where there is no sum.
    """
    found = [_gaps(amounts[at : at + _AT_ONCE], targets[at : at + _AT_ONCE], most) for at in range(0, len(amounts), _AT_ONCE)]
    return np.concatenate([np.full((0, amounts.shape[1]), np.nan), *found])


def _gaps(amounts: Floats, targets: Floats, most: int) -> Floats:
    width = amounts.shape[1]
    chosen = _subsets(width, most)
    here = ~np.isnan(amounts)
    sums = np.where(here, amounts, 0.0) @ chosen
    whole = here.astype(np.float64) @ chosen == chosen.sum(axis=0)
    off = np.where(whole, np.abs(sums - targets[:, None]) / targets[:, None], np.inf)
    nearest = np.stack([off[:, chosen[place] > 0].min(axis=1, initial=np.inf) for place in range(width)], axis=1)
    return np.where(np.isinf(nearest), np.nan, nearest)


@cache
def _subsets(width: int, most: int) -> Floats:
    """[width, subsets]: which places are in each set of two to `most`."""
    members = [each for size in range(2, min(most, width) + 1) for each in combinations(range(width), size)]
    chosen = np.zeros((width, len(members)))
    for place, each in enumerate(members):
        chosen[list(each), place] = 1.0
    return chosen
