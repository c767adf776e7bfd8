"""Intervals hold what they promise, and a pair of models is compared on the same draws."""

from __future__ import annotations

import numpy as np
import pytest

from mlpipelines.evaluation.answers import Answers, Truth
from mlpipelines.evaluation.bootstrap import Paired, exceedance_level, interval, proportion_interval, sample
from mlpipelines.evaluation.metrics import confusion_family, paired_metrics


def answers(rows: int, right: float, seed: int) -> tuple[Truth, Answers]:
    source = np.random.default_rng(seed)
    true = source.integers(0, 4, rows)
    ids = np.where(source.random(rows) < right, true, (true + 1) % 4)
    return Truth(classes=("a", "b", "c", "d"), ids=true), Answers(ids=ids)


def test_nine_in_ten_or_more_intervals_at_95_percent_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        truth, own = answers(250, 0.8, seed)
        (paired,) = paired_metrics(truth, own, own)
        found = sample(paired, resamples=300, seed=seed)["accuracy"]
        bounds = interval(found.challenger_samples, found.challenger, 0.95)
        assert bounds is not None
        held += bounds.low <= 0.8 <= bounds.high
    assert 0.9 <= held / 200 <= 0.99


def test_a_model_against_itself_differs_by_exactly_nothing() -> None:
    truth, own = answers(500, 0.7, 1)
    (paired,) = paired_metrics(truth, own, own)
    found = sample(paired, resamples=200, seed=1)["macro_f1"]
    bounds = interval(found.difference_samples, found.difference, 0.95)
    assert bounds is not None
    assert (bounds.low, bounds.high) == (0.0, 0.0)


def test_pairing_makes_the_difference_sharper_than_the_values() -> None:
    """Two models that agree on nearly every row: their values are unsure, their difference is not."""
    truth, first = answers(500, 0.7, 1)
    assert first.ids is not None
    assert truth.ids is not None
    second = Answers(ids=np.where(np.arange(500) < 10, truth.ids, first.ids))
    (paired,) = paired_metrics(truth, second, first)
    found = sample(paired, resamples=500, seed=1)["accuracy"]
    assert found.difference_samples.std() < found.challenger_samples.std() / 3


def test_the_same_seed_gives_the_same_draws() -> None:
    truth, own = answers(300, 0.7, 1)
    (paired,) = paired_metrics(truth, own, own)
    first, second = (sample(paired, resamples=100, seed=5)["accuracy"].challenger_samples for _ in range(2))
    assert (first == second).all()


def test_a_metric_that_most_resamples_do_not_define_has_no_interval() -> None:
    samples = np.full(100, np.nan)
    samples[:40] = 0.5
    assert interval(samples, 0.5, 0.95) is None
    assert interval(np.ones(100), float("nan"), 0.95) is None


def test_the_level_at_which_an_interval_clears_a_bound_agrees_with_the_interval() -> None:
    samples = np.random.default_rng(1).normal(0.02, 0.02, 4000)
    level = exceedance_level(samples, 0.02, -0.01)
    bounds = interval(samples, 0.02, 1 - 2 * level)
    assert bounds is not None
    assert bounds.low == pytest.approx(-0.01, abs=5e-4)
    assert exceedance_level(samples, 0.02, -1.0) == 0.0
    assert exceedance_level(samples, 0.02, 1.0) == 1.0


def test_grouped_rows_are_drawn_as_often_as_single_ones() -> None:
    counts = np.array([900, 90, 10])
    seen = []

    def watch(weights: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(weights)
        return {"m": weights[:, 0]}

    sample(
        Paired(counts=counts, challenger=watch, champion=confusion_family(np.array([0, 1, 2]), np.array([0, 1, 2]))), resamples=2000, seed=1
    )
    drawn = np.concatenate(seen[1:])
    assert (drawn.sum(axis=1) == 1000).all()
    assert drawn.mean(axis=0) == pytest.approx(counts, rel=0.05)
    assert drawn[:, 0].std() == pytest.approx(np.sqrt(1000 * 0.9 * 0.1), rel=0.1)


def test_a_share_has_wilsons_interval() -> None:
    """8 of 10 at 95 %: 0.490 to 0.943 (Wilson)."""
    bounds = proportion_interval(8, 10, 0.95)
    assert bounds is not None
    assert (bounds.low, bounds.high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert proportion_interval(0, 0, 0.95) is None
    nothing = proportion_interval(0, 10, 0.95)
    assert nothing is not None
    assert nothing.low == pytest.approx(0.0)
