"""How long jobs run, learned from those that have ended."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.history import Past
from gpuqueue.run_times import HOUR, Kind, RunTimes


def past(ran: float, family: str = "", lane: str = "l4", gpus: int = 1, ended: float = 10**6, **more: float) -> Past:
    at = ended - ran
    return Past(queue="q", lane=lane, namespace="n", name="x", family=family, gpus=gpus, since=at, at=at, ended=ended, **more)


def kind(family: str = "", lane: str = "l4", gpus: int = 1, limit: float | None = None) -> Kind:
    return Kind(queue="q", lane=lane, gpus=gpus, family=family, limit=limit)


def drawn(pasts: list[Past], one: Kind, elapsed: float = 0.0, count: int = 1000) -> list[float]:
    found = RunTimes(pasts).remaining(one, elapsed, count)
    assert found is not None
    return sorted(found)


LONG = [past(10_000 + i, "train") for i in range(100)]
SHORT = [past(60 + i / 10, "score") for i in range(100)]


def test_a_family_runs_as_it_ran() -> None:
    assert median(drawn(LONG + SHORT, kind("train"))) == pytest.approx(10_050, rel=0.01)
    assert median(drawn(LONG + SHORT, kind("score"))) == pytest.approx(65, rel=0.02)


def test_a_family_that_nobody_knows_runs_like_those_of_its_size_then_its_lane_then_all() -> None:
    pasts = [past(500, gpus=8) for _ in range(50)] + [past(50, gpus=1) for _ in range(50)] + [past(7000, lane="h100") for _ in range(100)]
    assert median(drawn(pasts, kind("new", gpus=8))) == 500
    assert median(drawn(pasts, kind("new", gpus=1))) == 50
    assert 50 <= median(drawn(pasts, kind("new", gpus=64))) <= 500
    assert median(drawn(pasts, kind("new", lane="h100", gpus=64))) == 7000


def test_the_same_limit_says_more_than_the_same_size() -> None:
    pasts = [past(300, limit=3600.0) for _ in range(50)] + [past(9000, limit=36000.0) for _ in range(50)]
    assert median(drawn(pasts, kind(limit=3600.0))) == 300
    assert median(drawn(pasts, kind(limit=36000.0))) == 9000


def test_a_family_with_few_pasts_has_little_say_and_gains_it() -> None:
    shares = []
    for known in (0, 1, 5, 50):
        values = drawn(SHORT + LONG[:known], kind("train"))
        shares.append(sum(value > 1000 for value in values) / len(values))
    assert shares[0] < 0.05
    assert shares == sorted(shares)
    assert shares[1] < 0.35
    assert shares[2] == pytest.approx(0.5, abs=0.05)
    assert shares[3] > 0.85


def test_habits_change_and_the_latest_count() -> None:
    old = [past(60, "train", ended=1000.0 + i) for i in range(500)]
    new = [past(6000, "train", ended=10_000.0 + i) for i in range(200)]
    assert median(drawn(new + old, kind("train"))) == 6000


def test_of_what_runs_only_longer_pasts_count() -> None:
    pasts = [past(100, "train") for _ in range(90)] + [past(1000, "train") for _ in range(10)]
    assert median(drawn(pasts, kind("train"))) == 100
    assert median(drawn(pasts, kind("train"), elapsed=200.0)) == 800


def test_what_has_outlived_everything_known_runs_the_longer_the_longer_it_has_run() -> None:
    medians = [median(drawn(SHORT, kind("score"), elapsed=elapsed)) for elapsed in (100.0, 1000.0, 10_000.0)]
    assert medians == sorted(medians)
    assert medians[2] == pytest.approx(0.41 * 10_000, rel=0.05)


def test_without_a_history_nine_in_ten_end_by_their_limit_and_without_both_nothing_is_said() -> None:
    values = drawn([], kind(limit=3600.0))
    assert sum(value <= 3600 for value in values) == 900
    assert RunTimes([]).remaining(kind(), 0.0, 10) is None
    assert RunTimes([]).remaining(kind("train"), 60.0, 10) is None


@given(
    st.lists(st.tuples(st.floats(0, 10**7), st.sampled_from(["", "a", "b"]), st.integers(0, 9)), max_size=30),
    st.none() | st.floats(0, 10**7),
    st.floats(0, 10**8),
    st.integers(1, 200),
)
def test_there_are_as_many_as_were_asked_for_and_none_has_ended_before_now(
    rows: list[tuple[float, str, int]], limit: float | None, elapsed: float, count: int
) -> None:
    pasts = [past(ran, family, gpus=gpus, ended=10**9) for ran, family, gpus in rows]
    found = RunTimes(pasts).remaining(kind("a", limit=limit), elapsed, count)
    assert (found is None) == (not rows and limit is None)
    assert found is None or (len(found) == count and all(0 < seconds < float("inf") for seconds in found))


def late(times: float, told: float = 9 * HOUR) -> Past:
    """Somebody who waited so many times as long as they were told, an hour more on both sides."""
    wait = times * (told + HOUR) - HOUR
    return Past(
        queue="q", lane="l4", namespace="n", name="x", family="", gpus=1, since=0.0, at=wait, ended=wait + 1, told_p50=told, told_p90=told
    )


def test_lateness_is_what_nine_in_ten_stayed_below() -> None:
    found = RunTimes([late(i / 10) for i in range(1, 31)])
    assert found.lateness("q", "l4") == pytest.approx(2.8)
    assert found.lateness("q", "h100") == 1.0


def test_lateness_needs_nine_who_were_told_and_never_brings_anybody_forward() -> None:
    assert RunTimes([late(3.0) for _ in range(8)]).lateness("q", "l4") == 1.0
    assert RunTimes([late(3.0) for _ in range(9)]).lateness("q", "l4") == pytest.approx(3.0)
    assert RunTimes([late(0.2) for _ in range(50)]).lateness("q", "l4") == 1.0
