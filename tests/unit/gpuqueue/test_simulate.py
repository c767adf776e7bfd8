"""Replaying traces with the rule that runs in production."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.simulate import Job, Started, overtaken, replay, retry_at_random

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
