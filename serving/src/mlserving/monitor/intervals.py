"""How sure a number is that was counted on a sample. Pure.

- Shares: Wilson's score interval (1927), which holds where the share is near 0 or 1 and rows are few.
- Means of classes (macro precision, recall, F1): the bootstrap percentile interval over the cells of the confusion table. Rows in one cell
  are alike, so a resample of the rows is one multinomial draw over the cells, however many rows there are (Efron 1979).
- Means of errors: the normal interval of a mean; for the root of a mean, the root of the interval's ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_RESAMPLES = 400
_SEED = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval, from so many rows."""

    value: float
    low: float
    high: float
    rows: int


def share(hits: float, trials: float, confidence: float) -> Estimate | None:
    """Wilson's interval of `hits / trials`; None without trials."""
    if trials <= 0:
        return None
    z = _z(confidence)
    p, scale = hits / trials, 1 + z * z / trials
    middle = (p + z * z / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / scale
    return Estimate(value=p, low=max(0.0, min(p, middle - half)), high=min(1.0, max(p, middle + half)), rows=round(trials))


def mean(total: float, squares: float, rows: int, confidence: float) -> Estimate | None:
    """The interval of a mean, from the sum of values and the sum of their squares; None without rows."""
    if rows == 0:
        return None
    value = total / rows
    half = _z(confidence) * math.sqrt(max(squares / rows - value * value, 0.0) / rows)
    return Estimate(value=value, low=value - half, high=value + half, rows=rows)


def root(estimate: Estimate | None) -> Estimate | None:
    """The interval of the root of a mean that is not negative."""
    if estimate is None:
        return None
    low, value, high = (math.sqrt(max(end, 0.0)) for end in (estimate.low, estimate.value, estimate.high))
    return Estimate(value=value, low=low, high=high, rows=estimate.rows)


def stratified(parts: list[tuple[float, int, int]], confidence: float) -> Estimate | None:
    """A share in a population, from a sample that was taken unevenly of its strata (post-stratification).

    Args:
        parts: of each stratum: its rows in the population, the rows sampled from it, and how many of these are hits.
        confidence: of the interval, which is normal, the variance of each stratum being that of its share with one success and one
            failure added (Agresti and Coull 1998): three hits of three are not certainty.

    Returns:
        None where no stratum was sampled. Strata that were not sampled are left out of the population.
    """
    sampled = [(weight, rows, hits) for weight, rows, hits in parts if rows > 0]
    population = sum(weight for weight, _, _ in sampled)
    if not sampled or population <= 0:
        return None
    value = sum(weight * hits / rows for weight, rows, hits in sampled) / population
    smoothed = [(weight / population, (hits + 1) / (rows + 2), rows) for weight, rows, hits in sampled]
    half = _z(confidence) * math.sqrt(sum(weight**2 * p * (1 - p) / rows for weight, p, rows in smoothed))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), rows=sum(rows for _, rows, _ in sampled))


def macro(confusion: Mapping[tuple[str, str], int], confidence: float) -> dict[str, Estimate]:
    """`macro_precision`, `macro_recall` and `macro_f1` over the classes that occur, with bootstrap intervals; empty without rows.

    Args:
        confusion: rows by (true, predicted) class.
        confidence: of the intervals.
    """
    cells = [(pair, count) for pair, count in sorted(confusion.items()) if count > 0]
    rows = sum(count for _, count in cells)
    if not rows:
        return {}
    counts = np.array([count for _, count in cells], np.float64)
    drawn = np.random.default_rng(_SEED).multinomial(rows, counts / rows, size=_RESAMPLES)
    measured = _means_of_classes([pair for pair, _ in cells], np.vstack([counts, drawn]))
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    found = {}
    for name, values in measured.items():
        low, high = np.quantile(values[1:], ends)
        found[name] = Estimate(
            value=float(values[0]), low=min(float(low), float(values[0])), high=max(float(high), float(values[0])), rows=rows
        )
    return found


def _means_of_classes(pairs: list[tuple[str, str]], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Of each row of `weights`, rows by cell. A class that is neither true nor predicted does not count."""
    classes = sorted({name for pair in pairs for name in pair})
    true, predicted, right = (np.zeros((len(pairs), len(classes))) for _ in range(3))
    for cell, (truth, answer) in enumerate(pairs):
        true[cell, classes.index(truth)] = predicted[cell, classes.index(answer)] = 1
        right[cell, classes.index(truth)] = truth == answer
    truths, answers, hits = weights @ true, weights @ predicted, weights @ right
    occurs = (truths + answers) > 0
    parts = {
        "macro_precision": np.divide(hits, answers, out=np.zeros_like(hits), where=answers > 0),
        "macro_recall": np.divide(hits, truths, out=np.zeros_like(hits), where=truths > 0),
        "macro_f1": np.divide(2 * hits, truths + answers, out=np.zeros_like(hits), where=occurs),
    }
    return {name: values.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1) for name, values in parts.items()}


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
