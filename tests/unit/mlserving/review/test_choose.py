"""Which predictions people look at: never more than they have time for, each with the probability that it is said to have."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserving.review.choose import Candidate, Choice, Shares, Why, choose

TRIALS = 1000


def candidate(name: str, label: str = "tools", certainty: float | None = 0.9, row: int = 0) -> Candidate:
    return Candidate(prediction_id=name, row=row, label=label, certainty=certainty)


def many(count: int, seed: int = 1, labels: str = "abc") -> list[Candidate]:
    dice = random.Random(seed)
    return [candidate(f"{seed}-{n}", dice.choice(labels), dice.random()) for n in range(count)]


def reviews(chosen: list[Choice]) -> int:
    return sum(1 + choice.double for choice in chosen)


labels = st.sampled_from("abcdefgh")
certainties = st.none() | st.floats(0, 1, allow_nan=False)
batches = st.lists(st.builds(candidate, st.uuids().map(str), labels, certainties, st.integers(0, 2)), max_size=60)
shares = st.builds(Shares, random=st.floats(0, 1), minimum=st.integers(0, 5), double=st.floats(0, 1))


@given(batches, st.integers(0, 80), shares)
@settings(max_examples=300)
def test_never_more_is_asked_than_people_have_time_for_and_nothing_twice(batch: list[Candidate], time: int, parts: Shares) -> None:
    chosen = choose([*batch, *batch], time, parts)
    assert reviews(chosen) <= time
    assert len({choice.candidate.key for choice in chosen}) == len(chosen)
    assert all(0 < choice.probability <= 1 for choice in chosen)


@given(batches, st.integers(0, 80), shares, st.randoms())
def test_the_order_in_which_rows_are_read_changes_nothing(batch: list[Candidate], time: int, parts: Shares, dice: random.Random) -> None:
    batch = list({row.key: row for row in batch}.values())
    shuffled = dice.sample(batch, len(batch))
    assert choose(shuffled, time, parts) == choose(batch, time, parts)


def test_all_of_the_time_is_used_where_there_is_enough_to_look_at() -> None:
    for time in range(1, 60):
        unspent = time - len(choose(many(500), time, Shares(double=0)))
        assert 0 <= unspent <= len("abc"), "one a class may be kept for a rare class that then needs none"
        assert reviews(choose(many(500), time, Shares(double=0, minimum=0))) == time


def test_the_least_certain_are_seen_for_certain() -> None:
    chosen = choose(many(500), 50, Shares(random=0.4, double=0))
    least = sorted(many(500), key=lambda row: row.certainty or 0)[:30]
    uncertain = [choice for choice in chosen if choice.why is Why.UNCERTAIN]
    assert {choice.candidate.key for choice in uncertain} == {row.key for row in least}
    assert {choice.probability for choice in uncertain} == {1.0}


def test_a_model_that_is_always_equally_sure_is_seen_at_random_only() -> None:
    chosen = choose([candidate(str(n)) for n in range(200)], 20, Shares(random=0.1, double=0))
    assert {choice.why for choice in chosen} == {Why.RANDOM}
    assert len(chosen) == 20


def test_a_model_that_says_no_confidence_is_seen_at_random_only() -> None:
    chosen = choose([candidate(str(n), certainty=None) for n in range(200)], 20, Shares(double=0))
    assert (len(chosen), {choice.why for choice in chosen}) == (20, {Why.RANDOM})


def test_rare_classes_are_seen() -> None:
    batch = [candidate(f"c{n}", "common") for n in range(1000)] + [candidate(f"r{n}", f"rare{n % 3}") for n in range(9)]
    seen = Counter(choice.candidate.label for choice in choose(batch, 40, Shares(random=1, minimum=2, double=0)))
    assert (seen["rare0"], seen["rare1"], seen["rare2"]) == (2, 2, 2)
    assert 33 <= seen["common"] <= 34


def test_many_rare_classes_take_at_most_half_of_the_sample() -> None:
    batch = [candidate(f"c{n}", "common") for n in range(1000)] + [candidate(f"r{n}", f"rare{n}") for n in range(100)]
    seen = Counter(choice.why for choice in choose(batch, 20, Shares(random=1, minimum=1, double=0)))
    assert seen[Why.RARE] <= 10
    assert seen[Why.RANDOM] >= 10


def test_about_the_share_that_is_said_goes_to_two_people() -> None:
    doubles = sum(choice.double for seed in range(30) for choice in choose(many(500, seed), 110, Shares(double=0.1)))
    assert doubles == pytest.approx(300, rel=0.2)


@pytest.mark.parametrize("parts", [Shares(), Shares(random=1.0, minimum=3), Shares(random=0.5, minimum=0)])
def test_rows_are_chosen_as_often_as_their_probability_says(parts: Shares) -> None:
    """The same rows under ever new ids: that is what the probability is over."""
    rows = [("common", 0.5 + n / 200) for n in range(60)] + [("some", 0.4 + n / 50) for n in range(12)] + [("rare", 0.95), ("rare", 0.96)]
    dice = random.Random(5)
    taken: Counter[int] = Counter()
    promised: dict[int, float] = {}
    for _ in range(TRIALS):
        batch = {f"{dice.getrandbits(64):x}": number for number in range(len(rows))}
        for choice in choose([candidate(name, *rows[number]) for name, number in batch.items()], 20, parts):
            number = batch[choice.candidate.prediction_id]
            taken[number] += 1
            assert promised.setdefault(number, choice.probability) == choice.probability
    for number, probability in promised.items():
        assert taken[number] / TRIALS == pytest.approx(probability, abs=0.07), rows[number]


def test_weighted_by_its_probability_the_sample_counts_the_log() -> None:
    """Each chosen case stands for 1 / probability rows: on average these add up to all of them, in each class."""
    dice = random.Random(6)
    sums: Counter[str] = Counter()
    sizes = {"a": 150, "b": 45, "c": 5}
    for _ in range(250):
        batch = [candidate(f"{dice.getrandbits(64):x}", label, dice.random()) for label, size in sizes.items() for _ in range(size)]
        for choice in choose(batch, 30, Shares()):
            sums[choice.candidate.label] += 1 / choice.probability  # type: ignore[assignment]  # a Counter adds floats as well
    for label, size in sizes.items():
        assert sums[label] / 250 == pytest.approx(size, rel=0.07), label
