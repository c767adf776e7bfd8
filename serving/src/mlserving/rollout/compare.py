"""Is the canary worse than stable? Three comparisons, each with an interval, so that few requests prove nothing.

Each check estimates a difference, bounds it from below at the level `alpha` it is given, and holds both against the limit: `worse` only
where the whole interval lies beyond it. Nothing is assumed of the requests but that chance dealt them to the tracks, which the gateway's
hash does. Where a caller's requests stick to one track, they are dealt in clusters and the intervals are narrower than they should be;
docs/rollouts.md says what to do about it. SciPy and NumPy are imported where they compute: a rollback does not wait for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from mlserving.rollout.observation import Histogram, Seen
from mlserving.rollout.plan import Check, Limits, Verdict

P99 = 0.99
_DRAWS = 500
CHECKS = 3


def compare(canary: Seen, stable: Seen, limits: Limits, alpha: float) -> tuple[Check, ...]:
    """The checks that the limits ask for. Together they call a canary like stable worse with at most the probability `alpha`."""
    each = alpha / CHECKS
    found = [errors(canary, stable, limits.error_rate, each)]
    if limits.latency_ratio is not None or limits.latency_ms is not None:
        found.append(latency(canary.latency, stable.latency, limits, each))
    if limits.distance is not None:
        found.append(classes(canary.classes, stable.classes, limits.distance, each))
    return tuple(found)


def errors(canary: Seen, stable: Seen, limit: float, alpha: float) -> Check:
    """Shares of failed requests.

    The lower bound is Newcombe's hybrid score interval for the difference of two proportions (R. G. Newcombe, Statistics in Medicine 17,
    1998, method 10, from E. B. Wilson's interval of 1927). It leans on the normal distribution, so far in the tail and with
    few errors Fisher's exact test (one-sided) must agree before the canary is called worse: that test keeps its level for any counts.
    """
    if not canary.requests or not stable.requests:
        return Check(name="errors", verdict=Verdict.UNCLEAR, limit=limit, says="there is nothing to compare with yet")
    ours, theirs = canary.errors / canary.requests, stable.errors / stable.requests
    low = (
        ours
        - theirs
        - math.hypot(ours - wilson(canary.errors, canary.requests, alpha)[0], wilson(stable.errors, stable.requests, alpha)[1] - theirs)
    )
    beyond = low > limit and _fisher(canary, stable) < alpha
    return Check(
        name="errors",
        verdict=_verdict(ours - theirs > limit, beyond=beyond),
        canary=ours,
        stable=theirs,
        difference=ours - theirs,
        low=low,
        limit=limit,
        says=f"{canary.errors:,} of {canary.requests:,} failed, {stable.errors:,} of {stable.requests:,} on stable; "
        f"at least {max(0.0, low):.2%} more, {limit:.2%} allowed",
    )


def latency(canary: Histogram, stable: Histogram, limits: Limits, alpha: float) -> Check:
    """The 99th percentiles.

    How far a quantile of a sample may lie from the truth follows from how many values may lie below it, whatever the distribution
    (R. S. Woodruff, Journal of the American Statistical Association 47, 1952): the bounds are the sample's quantiles at Wilson's bounds around 0.99. Values within a
    histogram's bucket are taken to lie evenly, as Prometheus' histogram_quantile does, for both tracks alike.
    """
    if not canary.total or not stable.total:
        return Check(name="latency", verdict=Verdict.UNCLEAR, says="there is nothing to compare with yet")
    ours, theirs = canary.quantile(P99), stable.quantile(P99)
    ours_low, theirs_high = canary.quantile(_around_p99(canary, alpha / 2)[0]), stable.quantile(_around_p99(stable, alpha / 2)[1])
    allowed, allowed_high = _allowed(theirs, limits), _allowed(theirs_high, limits)
    return Check(
        name="latency",
        verdict=_verdict(ours > allowed, beyond=ours_low > allowed_high),
        canary=ours * 1000,
        stable=theirs * 1000,
        difference=(ours - theirs) * 1000,
        low=(ours_low - theirs_high) * 1000,
        limit=(allowed - theirs) * 1000,
        says=f"p99 {ours * 1000:.1f} ms (at least {ours_low * 1000:.1f}), {theirs * 1000:.1f} ms on stable (at most {theirs_high * 1000:.1f}); "
        f"{allowed * 1000:.1f} ms allowed",
    )


def classes(canary: Mapping[str, int], stable: Mapping[str, int], limit: float, alpha: float) -> Check:
    """Shares of the predicted classes, by total variation distance.

    Two samples of the same shares lie some distance apart, the more so the fewer they are and the more classes there are. How far on average is
    drawn: both samples anew from the pooled shares (a parametric bootstrap; B. Efron, Annals of Statistics 7, 1979). The distance seen, less
    that, is the estimate. The lower bound takes off what chance adds at most: moving one of n predictions to another class moves the distance by at most 1/n, so
    it strays from its mean by more than t with a probability of at most exp(-2t²/(1/n + 1/m)) (C. McDiarmid, Surveys in Combinatorics, 1989). The
    draws' seed is fixed: the same counts give the same answer on every machine.
    """
    ours, theirs = sum(canary.values()), sum(stable.values())
    if not ours or not theirs:
        return Check(name="classes", verdict=Verdict.OK, limit=limit, says="no predictions of one of the tracks were logged: not judged")
    gaps = {name: abs(canary.get(name, 0) / ours - stable.get(name, 0) / theirs) for name in sorted({*canary, *stable})}
    pooled = [(canary.get(name, 0) + stable.get(name, 0)) / (ours + theirs) for name in gaps]
    estimate = sum(gaps.values()) / 2 - _mean_by_chance(pooled, ours, theirs)
    low, apart = estimate - math.sqrt(math.log(1 / alpha) * (1 / ours + 1 / theirs) / 2), max(gaps, key=lambda name: gaps[name])
    return Check(
        name="classes",
        verdict=_verdict(estimate > limit, beyond=low > limit),
        difference=max(0.0, estimate),
        low=low,
        limit=limit,
        says=f"distance {max(0.0, estimate):.3f} beyond chance (at least {max(0.0, low):.3f}), {limit:.3f} allowed; most at {apart!r}: "
        f"{canary.get(apart, 0) / ours:.1%}, {stable.get(apart, 0) / theirs:.1%} on stable",
    )


def wilson(successes: float, trials: float, alpha: float) -> tuple[float, float]:
    """Wilson's score bounds of a proportion; each holds with the probability 1 - `alpha`."""
    z = NormalDist().inv_cdf(1 - alpha)
    share, weight = successes / trials, z * z / trials
    middle, reach = share + weight / 2, z * (share * (1 - share) / trials + weight / (4 * trials)) ** 0.5
    return max(0.0, (middle - reach) / (1 + weight)), min(1.0, (middle + reach) / (1 + weight))


def _around_p99(histogram: Histogram, alpha: float) -> tuple[float, float]:
    return wilson(P99 * histogram.total, histogram.total, alpha)


def _allowed(stable_p99: float, limits: Limits) -> float:
    """Seconds that the canary's p99 may be, with stable's as given."""
    by_ratio = max(stable_p99 * limits.latency_ratio, stable_p99 + limits.latency_slack_ms / 1000) if limits.latency_ratio else float("inf")
    return min(by_ratio, limits.latency_ms / 1000) if limits.latency_ms else by_ratio


def _fisher(canary: Seen, stable: Seen) -> float:
    """The probability that chance alone deals the canary so many of all the errors: the tail of a hypergeometric distribution."""
    from scipy import stats

    failed = canary.errors + stable.errors
    return float(stats.hypergeom.sf(canary.errors - 1, canary.requests + stable.requests, failed, canary.requests))


def _mean_by_chance(shares: Sequence[float], ours: int, theirs: int) -> float:
    """How far apart two samples of the same shares lie on average."""
    import numpy as np

    draw = np.random.default_rng(0)
    first, second = draw.multinomial(ours, shares, _DRAWS) / ours, draw.multinomial(theirs, shares, _DRAWS) / theirs
    return float(np.abs(first - second).sum(axis=1).mean()) / 2


def _verdict(exceeded: bool, *, beyond: bool) -> Verdict:
    return Verdict.WORSE if beyond else Verdict.UNCLEAR if exceeded else Verdict.OK
