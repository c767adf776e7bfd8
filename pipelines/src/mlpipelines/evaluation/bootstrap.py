"""How sure one can be of a metric: paired bootstrap intervals, fast enough for a test set of a million rows.

A metric here is a function of *weights*: how often each unit (a row, or a group of rows that count alike) occurs in a
resample. With all weights at the observed counts it is the metric itself; with drawn weights it is one bootstrap replicate.
Challenger and champion see the same draws, so what makes a resample easy for one makes it easy for the other, and their
difference is as sharp as the data allow. `metrics.py` says which functions there are, `judge.py` what follows from the intervals.

Source: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 (percentile intervals) and 14.3; the
bias correction is that of Efron, *Nonparametric standard errors and confidence intervals* (Canadian Journal of Statistics, 1981).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Family = Callable[[Floats], Mapping[str, Floats]]
"""Metrics that share work: weights [resamples, units] to one value for each resample [resamples], by metric name."""

_CELLS = 250_000
_NORMAL = NormalDist()
_MIN_DEFINED = 0.5


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The same metrics of two models over the same units."""

    counts: Ids
    """How many rows each unit stands for [units]."""
    challenger: Family
    champion: Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One metric of both models: as observed, and in each resample."""

    challenger: float
    champion: float
    challenger_samples: Floats
    champion_samples: Floats

    @property
    def difference(self) -> float:
        """Challenger less champion."""
        return self.challenger - self.champion

    @property
    def difference_samples(self) -> Floats:
        """The same in each resample."""
        return self.challenger_samples - self.champion_samples


def sample(paired: Paired, *, resamples: int, seed: int, only: str | None = None) -> dict[str, Sampled]:
    """Every metric of `paired` (or `only` one) with its resamples. The same seed gives the same draws.

    Metrics that only one of the two has are NaN for the other.
    """
    observed = paired.counts[None, :].astype(np.float64)
    first, second = paired.challenger(observed), paired.champion(observed)
    names = [name for name in {**first, **second} if only in (None, name)]
    drawn = {name: (np.full(resamples, np.nan), np.full(resamples, np.nan)) for name in names}
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(1, len(paired.counts)))
    for start in range(0, resamples, step):
        weights = _draw(rng, paired.counts, min(step, resamples - start))
        for side, family in enumerate((paired.challenger, paired.champion)):
            for name, values in family(weights).items():
                if name in drawn:
                    drawn[name][side][start : start + len(values)] = values
    return {
        name: Sampled(
            challenger=_first(first, name),
            champion=_first(second, name),
            challenger_samples=drawn[name][0],
            champion_samples=drawn[name][1],
        )
        for name in names
    }


def interval(samples: Floats, value: float, confidence: float) -> Interval | None:
    """The two-sided bias-corrected percentile interval around the observed `value`.

    Args:
        samples: the metric in each resample [resamples]; NaN where it was not defined.
        value: the metric as observed.
        confidence: for example 0.95.

    Returns:
        None if `value`, or the metric in more than half of the resamples, is not defined.
    """
    defined = samples[~np.isnan(samples)]
    if np.isnan(value) or len(defined) < _MIN_DEFINED * len(samples):
        return None
    tail = (1 - confidence) / 2
    shift = _bias(defined, value)
    low, high = np.quantile(defined, [_corrected(tail, shift), _corrected(1 - tail, shift)])
    return Interval(float(low), float(high))


def exceedance_level(samples: Floats, value: float, bound: float) -> float:
    """The smallest one-sided level at which the interval's lower end still lies above `bound`: a bootstrap p-value [0, 1]."""
    defined = samples[~np.isnan(samples)]
    share = float((defined < bound).mean()) if len(defined) else 1.0
    if share in (0.0, 1.0):
        return share
    return _NORMAL.cdf(_NORMAL.inv_cdf(share) - 2 * _bias(defined, value))


def proportion_interval(hits: float, trials: float, confidence: float) -> Interval | None:
    """Wilson's score interval of a share (Wilson, *Probable inference*, JASA 1927): for precision and recall of one class."""
    if trials <= 0:
        return None
    z = _NORMAL.inv_cdf(1 - (1 - confidence) / 2)
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def _draw(rng: np.random.Generator, counts: Ids, resamples: int) -> Floats:
    """Weights [resamples, units] that each sum to the number of rows: rows drawn with replacement."""
    rows = int(counts.sum())
    if rows > len(counts):
        return rng.multinomial(rows, counts / rows, size=resamples).astype(np.float64)
    drawn = rng.integers(0, rows, size=(resamples, rows))
    drawn += np.arange(resamples)[:, None] * rows
    return np.bincount(drawn.reshape(-1), minlength=resamples * rows).reshape(resamples, rows).astype(np.float64)


def _bias(samples: Floats, value: float) -> float:
    """How far, in standard normal units, the resamples' median lies below the observed value; ties count half."""
    tied = np.isclose(samples, value, rtol=0, atol=1e-12)
    below = float(((samples < value) & ~tied).mean() + tied.mean() / 2)
    edge = 0.5 / len(samples)
    return _NORMAL.inv_cdf(min(max(below, edge), 1 - edge))


def _corrected(level: float, shift: float) -> float:
    return _NORMAL.cdf(2 * shift + _NORMAL.inv_cdf(level))


def _first(values: Mapping[str, Floats], name: str) -> float:
    return float(values[name][0]) if name in values else float("nan")
