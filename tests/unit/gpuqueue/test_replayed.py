"""What a replay shows: waits by team, and how much of the GPUs was in use."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.calendar import Window
from gpuqueue.queue import Lane, Queue
from gpuqueue.replayed import Use, Waits, in_use, over_time, quota_time, steps_of, use_of, waits_of
from gpuqueue.simulate import Job, Policy, Started

HELD = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 50), st.integers(1, 8)).map(lambda h: (float(h[0]), float(h[0] + h[1]), h[2])), max_size=20
)


def started(at: float, seconds: float, gpus: int, queue: str = "a", lender: str = "") -> Started:
    return Started(job=Job(key="x", since=0.0, gpus=gpus, seconds=seconds, queue=queue), at=at, lender=lender)


def policy(name: str, quota: int, *windows: Window) -> Policy:
    return Policy(queue=Queue(name=name, lanes=(Lane(name="gpu", quota=((0.0, quota),)),)), windows={"gpu": windows})


def test_percentiles_are_waits_that_occurred() -> None:
    assert waits_of(float(i) for i in range(1, 101)) == Waits(jobs=100, mean=50.5, p50=50.0, p95=95.0, longest=100.0)
    assert waits_of([7.0]) == Waits(jobs=1, mean=7.0, p50=7.0, p95=7.0, longest=7.0)
    assert waits_of([]) is None


@given(HELD)
def test_what_is_held_is_the_sum_of_those_who_hold_it(held: list[tuple[float, float, int]]) -> None:
    steps = steps_of(held)
    assert all(value == sum(much for since, until, much in held if since <= moment < until) for moment, value in steps)
    assert over_time(steps, -10.0, 200.0) == pytest.approx(sum((until - since) * much for since, until, much in held))


@given(HELD, st.floats(-5, 120), st.floats(0, 60), st.floats(0, 60))
def test_time_adds_up(held: list[tuple[float, float, int]], begin: float, one: float, two: float) -> None:
    steps = steps_of(held)
    whole = over_time(steps, begin, begin + one + two)
    assert whole == pytest.approx(over_time(steps, begin, begin + one) + over_time(steps, begin + one, begin + one + two), abs=1e-6)


def test_use_counts_within_the_window_and_what_is_borrowed_is_its_lenders() -> None:
    starts = [started(0.0, 10.0, 2), started(5.0, 100.0, 1), started(0.0, 4.0, 3, lender="pool")]
    found = use_of(starts, [policy("a", 4), policy("pool", 3), policy("idle", 0)], 2.0, 12.0)
    assert found == {
        ("a", "gpu"): Use(held=2 * 8.0 + 7.0, quota=40.0),
        ("pool", "gpu"): Use(held=6.0, quota=30.0),
        ("idle", "gpu"): Use(held=0.0, quota=0.0),
    }
    assert found["a", "gpu"].share == 23 / 40
    assert found["idle", "gpu"].share == 0.0


def test_a_quota_with_windows_is_worth_more_over_weeks() -> None:
    begin = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
    nights = Window(cron="0 20 * * *", seconds=4 * 3600.0, quota=10)
    found = quota_time(policy("a", 4, nights), begin, begin + 30 * 86400)
    assert found == {"gpu": pytest.approx(30 * (20 * 4 + 4 * 10) * 3600.0)}


def test_gpus_in_use_end_at_none() -> None:
    assert in_use([started(0.0, 10.0, 2), started(5.0, 10.0, 1)]) == [(0.0, 2), (5.0, 3), (10.0, 1), (15.0, 0)]
