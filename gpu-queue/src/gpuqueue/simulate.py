"""A trace of jobs under some quota and order, replayed by the very `decide` that runs in production.

Time jumps from event to event: a job comes, or a job that runs ends. What would change a quota, an order or a team's habits is
answered by replaying what happened: `gpuq plan` and `gpuq what-if` are callers of `replay`.

`retry_at_random` is what teams have without a queue: a ResourceQuota that refuses what does not fit, and pods that are made again after
a random while. Whoever asks at the right moment gets the GPUs.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gpuqueue.decide import decide
from gpuqueue.queue import Grant, Lane, Order, Pod, Queue, Request

_LANE = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a trace says of a job."""

    key: str
    since: float
    gpus: int
    seconds: float
    """How long it runs once it starts."""
    limit: float | None = None
    """How long it says that it runs at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """When a job started."""

    job: Job
    at: float

    @property
    def wait(self) -> float:
        """Seconds from being there to starting."""
        return self.at - self.job.since


def replay(jobs: Iterable[Job], *, quota: int, order: Order) -> list[Started]:
    """The starts of all jobs that `quota` can ever hold, in the order in which they start.

    Args:
        jobs: the trace, in any order.
        quota: GPUs.
        order: of the queue.
    """
    coming = sorted((job for job in jobs if job.gpus <= quota), key=lambda job: (job.since, job.key))
    by_key = {job.key: job for job in coming}
    queue = Queue(name="trace", lanes=(Lane(name=_LANE, quota=((0.0, quota),)),), order=order)
    ledger: dict[str, Grant] = {}
    waiting: dict[str, Request] = {}
    ends: list[tuple[float, str]] = []
    starts: list[Started] = []
    place = 0
    while place < len(coming) or ends:
        now = min(coming[place].since if place < len(coming) else float("inf"), ends[0][0] if ends else float("inf"))
        while ends and ends[0][0] <= now:
            del ledger[heapq.heappop(ends)[1]]
        while place < len(coming) and coming[place].since <= now:
            waiting[coming[place].key] = _request(coming[place])
            place += 1
        if not waiting:
            continue
        known = replace(queue, ledger=tuple(ledger.values()), waiting=tuple(waiting.values()))
        for grant in decide([known], now, explain=False)[queue.name].granted:
            job = by_key[grant.key]
            del waiting[grant.key]
            ledger[grant.key] = grant
            heapq.heappush(ends, (now + job.seconds, job.key))
            starts.append(Started(job=job, at=now))
    return starts


def retry_at_random(jobs: Iterable[Job], *, quota: int, between: tuple[float, float] = (10.0, 120.0), seed: int = 17) -> list[Started]:
    """The same trace without a queue: what does not fit is refused, and asks again after a random time within `between` seconds."""
    source = random.Random(seed)  # noqa: S311  # a simulation
    asks = [(job.since, number, job) for number, job in enumerate(jobs) if job.gpus <= quota]
    heapq.heapify(asks)
    ends: list[tuple[float, int]] = []
    free, starts = quota, []
    while asks:
        now, number, job = heapq.heappop(asks)
        while ends and ends[0][0] <= now:
            free += heapq.heappop(ends)[1]
        if job.gpus <= free:
            free -= job.gpus
            heapq.heappush(ends, (now + job.seconds, job.gpus))
            starts.append(Started(job=job, at=now))
        else:
            heapq.heappush(asks, (now + source.uniform(*between), number, job))
    return starts


def overtaken(starts: Sequence[Started]) -> int:
    """How many jobs started after a job of at least their size that came later: what a fair line is there to prevent."""
    count, waiting = 0, sorted(starts, key=lambda start: start.job.since)
    latest: dict[int, float] = {}
    """By size: the earliest start among the later jobs of at least that size."""
    sizes = sorted({start.job.gpus for start in starts})
    for start in reversed(waiting):
        if any(latest.get(size, float("inf")) < start.at for size in sizes if size >= start.job.gpus):
            count += 1
        latest[start.job.gpus] = min(latest.get(start.job.gpus, float("inf")), start.at)
    return count


def _request(job: Job) -> Request:
    pod = Pod(uid=job.key, gpus=job.gpus)
    return Request(key=job.key, namespace="", name=job.key, lane=_LANE, pods=(pod,), since=job.since, run_limit=job.limit)
