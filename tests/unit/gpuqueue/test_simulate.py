"""Replaying traces with the rule that runs in production."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.calendar import Window
from gpuqueue.queue import Lane, Order, Queue
from gpuqueue.simulate import Job, Policy, Started, overtaken, replay, replay_queues, retry_at_random

JOBS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 6), st.integers(1, 40)).map(
        lambda j: Job(key="", since=float(j[0]), gpus=j[1], seconds=float(j[2]), limit=float(j[2]))
    ),
    max_size=25,
).map(lambda jobs: [Job(key=f"j{i:02}", since=j.since, gpus=j.gpus, seconds=j.seconds, limit=j.limit) for i, j in enumerate(jobs)])


def in_use(starts: list[Started], moment: float) -> int:
    return sum(start.job.gpus for start in starts if start.at <= moment < start.at + start.job.seconds)


def test_a_small_trace_by_hand() -> None:
    jobs = [
        Job(key="a", since=0.0, gpus=3, seconds=10.0, limit=10.0),
        Job(key="b", since=1.0, gpus=4, seconds=5.0, limit=5.0),
        Job(key="c", since=2.0, gpus=1, seconds=8.0, limit=8.0),
        Job(key="d", since=3.0, gpus=9, seconds=1.0),
    ]
    strict = {start.job.key: start.at for start in replay(jobs, quota=4, order="strict")}
    assert strict == {"a": 0.0, "b": 10.0, "c": 15.0}
    easy = {start.job.key: start.at for start in replay(jobs, quota=4, order="easy")}
    assert easy == {"a": 0.0, "c": 2.0, "b": 10.0}


@given(JOBS)
@settings(max_examples=150, deadline=None)
def test_every_job_that_fits_starts_once_and_the_quota_holds_at_every_moment(jobs: list[Job]) -> None:
    possible = sorted(job.key for job in jobs if job.gpus <= 5)
    for starts in (replay(jobs, quota=5, order="strict"), replay(jobs, quota=5, order="easy"), retry_at_random(jobs, quota=5)):
        assert sorted(start.job.key for start in starts) == possible
        assert all(start.wait >= 0 for start in starts)
        assert all(in_use(starts, start.at) <= 5 for start in starts)


@given(JOBS)
@settings(max_examples=150, deadline=None)
def test_in_strict_order_nobody_is_overtaken(jobs: list[Job]) -> None:
    starts = replay(jobs, quota=5, order="strict")
    assert [start.job.key for start in starts] == [job.key for job in sorted(jobs, key=lambda j: (j.since, j.key)) if job.gpus <= 5]
    assert overtaken(starts) == 0


def test_overtaking_is_counted_once_for_each_job_that_suffers_it() -> None:
    jobs = [Job(key=str(i), since=float(i), gpus=gpus, seconds=1.0) for i, gpus in enumerate([2, 1, 2, 1])]
    at = (5.0, 9.0, 4.0, 3.0)
    assert overtaken([Started(job=job, at=moment) for job, moment in zip(jobs, at, strict=True)]) == 2


def policy(name: str, quota: int, **more: object) -> Policy:
    windows = more.pop("windows", {})
    queue = Queue(**{"name": name, "lanes": (Lane(name="gpu", quota=((0.0, quota),)),), **more})  # type: ignore[arg-type]
    return Policy(queue=queue, windows=windows)  # type: ignore[arg-type]


def job(key: str, queue: str, gpus: int = 1, since: float = 0.0, seconds: float = 10.0) -> Job:
    return Job(key=key, queue=queue, gpus=gpus, since=since, seconds=seconds)


def at(starts: list[Started]) -> dict[str, float]:
    return {start.job.key: start.at for start in starts}


def test_teams_do_not_touch_each_others_quota() -> None:
    jobs = [job("a1", "a", 2), job("a2", "a", 1, 1.0), job("b1", "b", 2, 2.0), job("c1", "c", 1)]
    assert at(replay_queues(jobs, [policy("a", 2), policy("b", 2)])) == {"a1": 0.0, "b1": 2.0, "a2": 10.0}


def test_who_may_borrow_starts_from_the_pool_and_the_pool_remembers_it() -> None:
    jobs = [job("a1", "a", 2), job("a2", "a", 2, 1.0), job("p1", "pool", 2, 2.0)]
    starts = replay_queues(jobs, [policy("a", 2, pool="pool", max_borrow=2), policy("pool", 2)])
    assert at(starts) == {"a1": 0.0, "a2": 1.0, "p1": 11.0}
    assert [start.ledger for start in starts] == [("a", "gpu"), ("pool", "gpu"), ("pool", "gpu")]


def test_a_job_larger_than_its_quota_starts_if_the_pool_can_hold_it() -> None:
    jobs = [job("a1", "a", 3), job("a2", "a", 4)]
    assert at(replay_queues(jobs, [policy("a", 1, pool="pool", max_borrow=3), policy("pool", 8)])) == {"a1": 0.0}


def test_a_window_that_opens_lets_people_start_though_nothing_ends() -> None:
    windows = {"gpu": (Window(cron="0 20 * * *", seconds=3600.0, quota=4),)}
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()
    jobs = [job("long", "a", 1, noon, 10 * 86400.0), job("wide", "a", 3, noon + 60, 600.0)]
    starts = at(replay_queues(jobs, [policy("a", 1, windows=windows)]))
    assert starts == {"long": noon, "wide": noon + 8 * 3600}


def test_a_window_that_never_opens_again_is_not_waited_for_without_end() -> None:
    windows = {"gpu": (Window(cron="0 20 1 1 *", seconds=3600.0, quota=4),)}
    march = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()
    assert replay_queues([job("wide", "a", 3, march)], [policy("a", 1, windows=windows)]) == []


@given(JOBS, JOBS, st.sampled_from(["strict", "easy"]), st.integers(1, 6), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_no_ledger_ever_exceeds_its_quota_and_nobody_borrows_more_than_they_may(
    ours: list[Job], theirs: list[Job], order: Order, pool: int, most: int
) -> None:
    jobs = [replace(job, key=f"a{job.key}", queue="a") for job in ours] + [replace(job, key=f"b{job.key}", queue="b") for job in theirs]
    quotas = {"a": 3, "b": 4, "pool": pool}
    policies = [policy(name, quotas[name], order=order, pool="pool", max_borrow=most) for name in ("a", "b")]
    starts = replay_queues(jobs, [*policies, policy("pool", pool)])
    assert len({start.job.key for start in starts}) == len(starts)
    assert {start.job.key for start in starts} == {job.key for job in jobs if job.gpus <= max(quotas[job.queue], min(most, pool))}
    for start in starts:
        for name, quota in quotas.items():
            assert in_use([one for one in starts if one.ledger[0] == name], start.at) <= quota
        borrowed = [one for one in starts if one.lender and one.job.queue == start.job.queue]
        assert in_use(borrowed, start.at) <= most


@given(JOBS, st.sampled_from(["strict", "easy"]))
@settings(deadline=None)
def test_a_watcher_sees_every_job_come_before_it_starts(jobs: list[Job], order: Order) -> None:
    seen: dict[str, float] = {}

    def watch(queues: Sequence[Queue], now: float) -> None:
        for request in queues[0].waiting:
            seen.setdefault(request.key, now)

    starts = replay(jobs, quota=5, order=order, watch=watch)
    assert seen == {start.job.key: start.job.since for start in starts}
