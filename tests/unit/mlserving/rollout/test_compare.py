from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlserving.rollout import compare
from mlserving.rollout.observation import Histogram
from mlserving.rollout.plan import Limits, Verdict
from rollouts import EDGES, seen

ALPHA = 0.001


def test_wilsons_bounds_are_those_of_scipy() -> None:
    for successes, trials in ((0, 50), (3, 50), (480, 500)):
        theirs = stats.binomtest(successes, trials).proportion_ci(confidence_level=0.98, method="wilson")
        assert compare.wilson(successes, trials, 0.01) == pytest.approx((theirs.low, theirs.high))


def test_newcombes_lower_bound_is_that_of_his_paper() -> None:
    """Example (a) of the paper: 56 of 70 and 48 of 80; 95 % from 0.0524 to 0.3339."""
    low = compare.errors(seen(70, 56), seen(80, 48, version=1), 0.0, 0.025).low
    assert low == pytest.approx(0.0524, abs=1e-4)


def test_no_few_errors_condemn_a_canary_whose_stable_fails_as_often() -> None:
    assert compare.errors(seen(100, 5), seen(9900, 495, version=1), 0.01, ALPHA).verdict is Verdict.OK
    assert compare.errors(seen(100, 7), seen(9900, 495, version=1), 0.01, ALPHA).verdict is Verdict.UNCLEAR


def test_a_canary_of_which_a_tenth_fails_is_worse_at_the_first_look() -> None:
    assert compare.errors(seen(50, 5), seen(5000, version=1), 0.01, ALPHA).verdict is Verdict.WORSE


@given(st.integers(1, 400), st.integers(1, 40_000), st.floats(0, 1), st.floats(0, 1))
def test_the_lower_bound_lies_below_the_difference_and_worse_means_beyond_the_limit(
    ours: int, theirs: int, bad: float, good: float
) -> None:
    check = compare.errors(seen(ours, int(bad * ours)), seen(theirs, int(good * theirs), version=1), 0.01, ALPHA)
    assert check.low is not None
    assert check.difference is not None
    assert check.low <= check.difference + 1e-12
    assert (check.verdict is Verdict.OK) == (check.difference <= 0.01)
    if check.verdict is Verdict.WORSE:
        assert check.low > 0.01


@given(st.lists(st.integers(0, 50), min_size=24, max_size=24), st.floats(0.001, 0.999))
def test_a_quantile_lies_in_the_bucket_that_holds_it(counts: list[int], share: float) -> None:
    histogram = Histogram(edges=EDGES, counts=tuple(map(float, counts)))
    values = np.repeat(EDGES, counts)
    if not len(values):
        assert histogram.quantile(share) == 0
        return
    edge = float(np.quantile(values, share, method="inverted_cdf"))
    below = max((each for each in EDGES if each < edge), default=0.0)
    assert below - 1e-9 <= histogram.quantile(share) <= edge + 1e-9


def test_buckets_of_prometheus_become_counts() -> None:
    found = Histogram.from_cumulative({0.1: 3.0, math.inf: 7.0, 0.5: 7.0})
    assert (found.edges, found.counts) == ((0.1, 0.5, math.inf), (3.0, 4.0, 0.0))


def test_what_lies_beyond_the_last_edge_counts_as_that_edge() -> None:
    assert Histogram.from_cumulative({0.1: 0.0, math.inf: 9.0}).quantile(0.99) == 0.1


def test_a_canary_twice_as_slow_is_worse_once_enough_was_seen() -> None:
    limits = Limits(latency_ratio=1.5)
    fast, slow = seen(90_000, version=1, seconds=0.05).latency, seen(600, seconds=0.15).latency
    assert compare.latency(slow, fast, limits, ALPHA).verdict is Verdict.WORSE
    assert compare.latency(fast, fast, limits, ALPHA).verdict is Verdict.OK


def test_a_few_milliseconds_never_condemn() -> None:
    assert compare.latency(seen(5000, seconds=0.004).latency, seen(5000, seconds=0.001).latency, Limits(), ALPHA).verdict is Verdict.OK


def test_a_p99_above_what_is_allowed_at_all_is_worse_whatever_stable_does() -> None:
    slow = seen(5000, seconds=0.3).latency
    assert compare.latency(slow, slow, Limits(latency_ms=100, latency_ratio=None), ALPHA).verdict is Verdict.WORSE


def test_other_classes_are_worse_and_twenty_predictions_never_are() -> None:
    usual = {"a": 5000, "b": 3000, "c": 2000}
    assert compare.classes({"a": 5, "b": 4, "c": 11}, usual, 0.1, ALPHA).verdict is Verdict.UNCLEAR
    assert compare.classes({"c": 300}, usual, 0.1, ALPHA).verdict is Verdict.WORSE
    assert "'c': 100.0%" in compare.classes({"c": 300}, usual, 0.1, ALPHA).says
    assert compare.classes({"a": 250, "b": 150, "c": 100}, usual, 0.1, ALPHA).verdict is Verdict.OK


def test_many_classes_and_few_predictions_are_not_taken_for_a_difference() -> None:
    """Sixty predictions of a hundred classes lie far from the truth by chance alone."""
    random = np.random.default_rng(3)
    shares = np.full(100, 0.01)
    for _ in range(40):
        ours = dict(enumerate(map(int, random.multinomial(60, shares))))
        theirs = dict(enumerate(map(int, random.multinomial(6000, shares))))
        check = compare.classes({str(k): v for k, v in ours.items()}, {str(k): v for k, v in theirs.items()}, 0.1, ALPHA)
        assert check.verdict is not Verdict.WORSE


def test_without_logged_predictions_classes_are_not_judged() -> None:
    check = compare.classes({}, {"a": 10}, 0.1, ALPHA)
    assert check.verdict is Verdict.OK
    assert "not judged" in check.says
