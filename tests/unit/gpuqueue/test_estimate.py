"""When those who wait are likely to start."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.estimate import Estimate, expected_starts
from gpuqueue.history import Past
from gpuqueue.queue import Budget, Grant, Lane, Order, Pod, Queue, Request
from gpuqueue.run_times import HOUR, RunTimes
from gpuqueue.simulate import Job, replay

NOW = 10_000.0


def past(ran: float, family: str = "", gpus: int = 1) -> Past:
    return Past(queue="q", lane="l4", namespace="n", name="x", family=family, gpus=gpus, since=0.0, at=1e6 - ran, ended=1e6)


def request(name: str, gpus: int = 1, since: float = 0.0, **more: object) -> Request:
    values = {"key": name, "namespace": "n", "name": name, "lane": "l4", "pods": (Pod(uid=name, gpus=gpus),), "since": since}
    return Request(**{**values, **more})  # type: ignore[arg-type]


def running(name: str, gpus: int = 1, at: float = NOW, limit: float | None = None, **more: object) -> Grant:
    values = {"key": name, "namespace": "n", "name": name, "lane": "l4", "pods": (Pod(uid=name, gpus=gpus),), "at": at, "limit": limit}
    return Grant(**{**values, **more})  # type: ignore[arg-type]


def queue(*waiting: Request, quota: int = 2, **more: object) -> Queue:
    values = {"name": "q", "lanes": (Lane(name="l4", quota=((0.0, quota),)),), "waiting": waiting}
    return Queue(**{**values, **more})  # type: ignore[arg-type]


HOURLY = RunTimes([past(3600.0, "hourly") for _ in range(10_000)])
"""So many that nothing else has a say."""
FAMILIES = dict.fromkeys(["a", "b", "c", "d", "g", "r"], "hourly")


def told(one: Queue, run_times: RunTimes = HOURLY, **more: int) -> dict[str, Estimate]:
    return expected_starts(one, run_times, NOW, families=FAMILIES, **more)


def test_who_waits_for_what_runs_an_hour_starts_when_the_hour_is_over() -> None:
    found = told(queue(request("a", 2), request("b", 1, 1.0), request("c", 2, 2.0), ledger=(running("r", 2, at=NOW - 600),)))
    assert [round((found[key].p50 - NOW) / 60) for key in "abc"] == [50, 110, 170]


def test_who_starts_now_is_told_now() -> None:
    assert told(queue(request("a"))) == {"a": Estimate(p50=NOW, p90=NOW)}


def test_in_easy_order_a_short_job_is_told_that_it_passes() -> None:
    ledger = (running("r", 1, limit=7200.0),)
    waiting = (request("a", 2, run_limit=7200.0), request("b", 1, 1.0, run_limit=7200.0), request("c", 1, 2.0, run_limit=9000.0))
    strict = told(queue(*waiting, ledger=ledger))
    easy = told(queue(*waiting, ledger=ledger, order="easy"))
    assert strict["b"].p50 > NOW
    assert easy["b"].p50 == NOW
    assert easy["c"].p50 > NOW


def test_a_calendar_that_gives_more_is_counted_on() -> None:
    lane = Lane(name="l4", quota=((0.0, 1), (NOW + 600, 2)))
    ledger = (running("r", 1, at=NOW),)
    assert told(queue(request("a"), ledger=ledger, lanes=(lane,)))["a"] == Estimate(p50=NOW + 600, p90=NOW + 600)


@pytest.mark.parametrize(
    "never",
    [
        request("a", 3),
        request("a", lane="h100"),
        request("a", size=2),
        request("a", sizes_agree=False),
        request("a", blocked="a webhook"),
    ],
    ids=["too large", "no such lane", "half a group", "a confused group", "a gate that cannot open"],
)
def test_who_can_never_start_as_they_are_is_told_nothing_and_holds_nobody_up(never: Request) -> None:
    found = told(queue(never, request("b", 1, 1.0), ledger=(running("r", 2),)))
    assert set(found) == {"b"}
    assert found["b"].p50 == pytest.approx(NOW + 3600, abs=60)


def test_a_group_waits_for_all_its_gpus() -> None:
    group = request("g", pods=(Pod(uid="x", gpus=1), Pod(uid="y", gpus=1)), size=2)
    found = told(queue(group, ledger=(running("r", 1, at=NOW - 1800),), quota=2))
    assert found["g"].p50 == pytest.approx(NOW + 1800, abs=60)


def test_without_history_and_limits_nobody_is_told_a_time() -> None:
    one = queue(request("a"), request("b", 1, 1.0), ledger=(running("r", 2),))
    assert told(one, RunTimes([])) == {}
    limited = replace(one, ledger=(running("r", 2, limit=3600.0),))
    assert set(told(limited, RunTimes([]))) == {"a", "b"}


def test_behind_somebody_of_whom_nothing_is_known_nobody_is_told_a_time() -> None:
    one = queue(request("a", run_limit=60.0), request("b", 1, 1.0), request("c", 1, 2.0), quota=1, ledger=(running("r", 1, limit=60.0),))
    assert set(told(one, RunTimes([]))) == {"a", "b"}


def test_while_a_spent_budget_holds_nobody_is_told_a_time() -> None:
    spent = Budget(gpu_seconds=10.0, spent=10.0, hold=True)
    assert told(queue(request("a"), budget=spent)) == {}
    assert set(told(queue(request("a"), budget=replace(spent, hold=False)))) == {"a"}


def test_those_far_behind_are_told_nothing() -> None:
    one = queue(*(request(f"w{i}", since=float(i)) for i in range(5)), ledger=(running("r", 2),))
    assert set(told(one, most=2)) == {"w0", "w1"}


def test_who_was_told_too_little_before_is_told_more_now() -> None:
    late = [replace(past(3600.0, "hourly"), at=7 * HOUR, ended=8 * HOUR, told_p50=HOUR, told_p90=HOUR) for _ in range(10)]
    one = queue(request("a"), ledger=(running("r", 2),))
    before, after = told(one)["a"], told(one, RunTimes([*(past(3600.0, "hourly") for _ in range(10_000)), *late]))["a"]
    assert after.p50 == pytest.approx(before.p50, abs=60)
    assert before.p90 < NOW + 1.2 * HOUR
    assert after.p90 == pytest.approx(after.p50 + 3 * (after.p50 - NOW + HOUR), abs=60)


LINES = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5), st.sampled_from(["", "x", "y"])), min_size=1, max_size=15)
KNOWN = RunTimes([past(60.0 * i, "xy"[i % 2], gpus=1 + i % 4) for i in range(1, 80)])


def line(rows: list[tuple[int, int, str]], order: Order) -> tuple[Queue, dict[str, str]]:
    waiting = tuple(request(f"w{i:02}", gpus, float(since), run_limit=60.0 * gpus) for i, (gpus, since, _) in enumerate(rows))
    ledger = (running("r1", 2, at=NOW - 500), running("r2", 1, at=NOW - 10_000, limit=50.0))
    return queue(*waiting, quota=4, order=order, ledger=ledger), {f"w{i:02}": family for i, (*_, family) in enumerate(rows)}


@given(LINES, st.sampled_from(["strict", "easy"]), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_two_replicas_say_the_same_in_whatever_order_they_have_heard(
    rows: list[tuple[int, int, str]], order: Order, source: random.Random
) -> None:
    one, families = line(rows, order)
    other = replace(
        one,
        waiting=tuple(source.sample(one.waiting, len(one.waiting))),
        ledger=tuple(source.sample(one.ledger, len(one.ledger))),
    )
    assert expected_starts(one, KNOWN, NOW, families=families) == expected_starts(other, KNOWN, NOW, families=families)


@given(LINES, st.sampled_from(["strict", "easy"]))
@settings(deadline=None)
def test_everybody_in_line_is_told_and_in_strict_order_nobody_before_those_ahead(rows: list[tuple[int, int, str]], order: Order) -> None:
    one, families = line(rows, order)
    found = expected_starts(one, KNOWN, NOW, families=families)
    told_in_order = [found[request.key] for request in sorted(one.waiting, key=lambda request: request.rank)]
    assert all(NOW <= estimate.p50 <= estimate.p90 for estimate in told_in_order)
    if order == "strict":
        assert [estimate.p50 for estimate in told_in_order] == sorted(estimate.p50 for estimate in told_in_order)


def test_the_luck_of_those_ahead_evens_out() -> None:
    """Behind 200 jobs that run anything up to 200 minutes, one after the other: the sum's deviation is the square root of 200 of theirs."""
    run_times = RunTimes([past(60.0 * i, "x") for i in range(1, 201)])
    one = queue(*(request(f"w{i:03}", since=float(i)) for i in range(202)), quota=1)
    last = expected_starts(one, run_times, NOW, families={request.key: "x" for request in one.waiting})["w201"]
    deviation = 60 * 200 / 12**0.5 * 200**0.5
    assert last.p90 - last.p50 == pytest.approx(1.28 * deviation, rel=0.35)


@pytest.mark.parametrize("order", ["strict", "easy"])
def test_where_run_times_are_as_learned_nine_in_ten_start_by_their_p90(order: Order) -> None:
    """Three hundred lines of thirty with run times from the very law that the history shows."""
    source = random.Random(5)
    run_times = RunTimes([past(source.lognormvariate(7, 1), "x") for _ in range(4000)])
    within: list[bool] = []
    for _ in range(300):
        jobs = [
            Job(key=f"w{i:02}", since=NOW, gpus=source.choice([1, 1, 2, 4]), seconds=source.lognormvariate(7, 1), limit=20_000.0)
            for i in range(30)
        ]
        waiting = tuple(request(job.key, job.gpus, NOW, run_limit=job.limit) for job in jobs)
        one = queue(*waiting, quota=8, order=order)
        found = expected_starts(one, run_times, NOW, families=dict.fromkeys((job.key for job in jobs), "x"))
        within += [start.at <= found[start.job.key].p90 for start in replay(jobs, quota=8, order=order) if start.at > NOW]
    assert 0.87 < sum(within) / len(within) < 0.93
