"""Drift: quiet about chance, loud about change, whatever the size of the data and the weight of its tail."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving.statistics.columns import RANKED_VALUES, Bucket, Column, Numbers, Texts
from mlserving.statistics.distances import Shift, jensen_shannon, l_infinity, shift

THRESHOLD = 0.12


def numeric(values: np.ndarray, buckets: int = 40) -> Column:
    edges = np.quantile(np.sort(values), np.linspace(0, 1, buckets + 1), method="inverted_cdf")
    made = tuple(Bucket(low=float(a), high=float(b), count=len(values) / buckets) for a, b in pairwise(edges))
    return Column(name="x", rows=len(values), numbers=Numbers(buckets=made))


def text(values: np.ndarray) -> Column:
    names, counts = np.unique(values.astype(str), return_counts=True)
    top = np.argsort(-counts, kind="stable")[:RANKED_VALUES]
    listed = {str(names[i]): float(counts[i]) for i in top}
    return Column(name="x", rows=len(values), texts=Texts(counts=listed, total=float(len(values)), distinct=len(names)))


def found(before: Column, after: Column) -> Shift:
    distance = shift(before, after)
    assert distance is not None
    return distance


Draw = Callable[[np.random.Generator, int], Any]
NUMERIC: dict[str, Draw] = {
    "amounts with a heavy tail": lambda random, rows: random.lognormal(3, 2, rows),
    "amounts without a mean": lambda random, rows: random.pareto(0.8, rows),
    "mostly zeros": lambda random, rows: np.where(random.random(rows) < 0.6, 0, random.normal(size=rows)),
    "small whole numbers": lambda random, rows: random.choice([0, 1, 2], p=[0.05, 0.9, 0.05], size=rows).astype(float),
    "one value": lambda _, rows: np.full(rows, 7.0),
}
TEXT: dict[str, Draw] = {
    "a few values": lambda random, rows: random.choice(list("abc"), p=[0.8, 0.15, 0.05], size=rows),
    "a long tail": lambda random, rows: random.zipf(1.3, rows),
    "thousands of equal values": lambda random, rows: random.integers(0, 5000, rows),
    "all different": lambda random, rows: random.integers(0, 2**60, rows),
}


@pytest.mark.parametrize("name", [*NUMERIC, *TEXT])
@pytest.mark.parametrize(("rows", "seeds"), [((300, 300), 200), ((5000, 5000), 200), ((300, 36), 50), ((300, 5000), 50), ((5000, 600), 50)])
def test_two_samples_of_one_distribution_never_alarm(name: str, rows: tuple[int, int], seeds: int) -> None:
    draw, column = (NUMERIC[name], numeric) if name in NUMERIC else (TEXT[name], text)
    alarms = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        distance = found(column(draw(random, rows[0])), column(draw(random, rows[1])))
        if distance.exceeds(THRESHOLD):
            alarms.append((seed, distance))
    assert alarms == []


@pytest.mark.parametrize(("name", "threshold"), [("amounts with a heavy tail", 0.001), ("mostly zeros", 0.06)])
def test_much_smaller_thresholds_stay_quiet_too(name: str, threshold: float) -> None:
    for seed in range(50):
        random = np.random.default_rng(seed)
        assert not found(numeric(NUMERIC[name](random, 5000)), numeric(NUMERIC[name](random, 5000))).exceeds(threshold)


@pytest.mark.parametrize(("rows", "factor"), [(300, 8), (5000, 3)])
def test_a_heavy_tailed_amount_that_grows_alarms_at_every_seed(rows: int, factor: float) -> None:
    for seed in range(50):
        random = np.random.default_rng(seed)
        assert found(numeric(random.lognormal(3, 2, rows)), numeric(factor * random.lognormal(3, 2, rows))).exceeds(THRESHOLD)


def test_one_absurd_amount_is_not_a_drift() -> None:
    amounts = np.random.default_rng(0).lognormal(3, 2, 5000)
    assert found(numeric(amounts), numeric(np.append(amounts, 1e30))).distance < 0.01


def test_zeros_that_turn_negative_alarm() -> None:
    zeros = np.append(np.zeros(1000), np.arange(1, 1001))
    distance = found(numeric(zeros), numeric(np.where(zeros == 0, -1, zeros)))
    assert distance.exceeds(THRESHOLD)


def test_a_constant_that_changes_is_as_far_as_it_gets() -> None:
    assert found(numeric(np.full(1000, 5.0)), numeric(np.full(1000, 6.0))).distance == pytest.approx(1)
    assert found(numeric(np.full(1000, 5.0)), numeric(np.full(1000, 4.0))).distance == pytest.approx(1)


def test_it_says_which_numbers_became_more() -> None:
    random = np.random.default_rng(0)
    distance = found(numeric(random.normal(size=5000)), numeric(np.append(random.normal(size=4000), random.normal(5, 0.1, 1000))))
    assert distance.between is not None
    assert distance.between[0] > 1
    assert "values above" in distance.where


def test_a_value_that_takes_over_is_named() -> None:
    random = np.random.default_rng(0)
    before, after = random.choice(list("abc"), size=300), random.choice(list("abc"), p=[0.9, 0.05, 0.05], size=300)
    distance = found(text(before), text(after))
    assert distance.exceeds(THRESHOLD)
    assert distance.values == ("a",)


@pytest.mark.parametrize(("rows", "new_share"), [(300, 0.6), (5000, 0.3)])
def test_many_new_values_alarm_though_each_is_rare(rows: int, new_share: float) -> None:
    for seed in range(50):
        random = np.random.default_rng(seed)
        old, new = random.zipf(1.3, rows), 10**9 + random.integers(0, rows // 25, rows)
        distance = found(text(random.zipf(1.3, rows)), text(np.where(random.random(rows) < new_share, new, old)))
        assert distance.exceeds(THRESHOLD)


def test_values_that_are_gone_alarm() -> None:
    random = np.random.default_rng(0)
    before = random.integers(0, 100, 5000)
    distance = found(text(before), text(before[before < 70]))
    assert distance.exceeds(THRESHOLD)
    assert "gone" in distance.where


def test_nothing_to_compare_is_no_distance() -> None:
    empty = Column(name="x", rows=10, missing=10)
    assert shift(empty, numeric(np.arange(10.0))) is None
    assert shift(text(np.array(["a"])), numeric(np.arange(10.0))) is None


values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=200).map(np.array)
words = st.lists(st.sampled_from(list("abcdefgh")), min_size=1, max_size=200).map(np.array)


@given(values, values)
def test_distances_of_numbers_lie_between_0_and_1_and_are_0_to_oneself(before: np.ndarray, after: np.ndarray) -> None:
    a, b = numeric(before).numbers, numeric(after).numbers
    assert a is not None
    assert b is not None
    assert 0 <= jensen_shannon(a, b, rows=(len(before), len(after))).distance <= 1
    assert jensen_shannon(a, a, rows=(len(before), len(before))).distance == 0


@given(words, words)
def test_distances_of_text_lie_between_0_and_1_and_are_0_to_oneself(before: np.ndarray, after: np.ndarray) -> None:
    a, b = text(before).texts, text(after).texts
    assert a is not None
    assert b is not None
    assert 0 <= l_infinity(a, b, rows=(len(before), len(after))).distance <= 1
    assert l_infinity(a, a, rows=(len(before), len(before))).distance < 1e-9
