"""Traces of jobs under some quotas and orders, replayed by the very `decide` that runs in production.

Time jumps from event to event: a job comes, a job that runs ends, a calendar changes a quota. What would change a quota, an order or
a team's habits is answered by replaying what happened: `gpuq plan` and `gpuq what-if` are callers of `replay_queues`. Budgets are not
replayed: a trace does not say what had been spent before it.

`retry_at_random` is what teams have without a queue: a ResourceQuota that refuses what does not fit, and pods that are made again after
a random while. Whoever asks at the right moment gets the GPUs.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuqueue.calendar import HORIZON, Window, lane_of
from gpuqueue.decide import decide
from gpuqueue.queue import FOREVER, Grant, Lane, Order, Pod, Queue, Request

_QUEUE, _LANE = "trace", "gpu"
_DAY = 86400.0

Watch = Callable[[Sequence[Queue], float], None]
"""Sees the queues as `decide` is about to see them, and the moment."""


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
    queue: str = _QUEUE
    lane: str = _LANE
    family: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """When a job started."""

    job: Job
    at: float
    lender: str = ""
    """The queue in whose ledger it was entered, if it borrowed."""

    @property
    def wait(self) -> float:
        """Seconds from being there to starting."""
        return self.at - self.job.since

    @property
    def ledger(self) -> tuple[str, str]:
        """Whose GPUs it holds: queue and lane."""
        return (self.lender or self.job.queue, self.job.lane)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A queue as a trace is replayed under it."""

    queue: Queue
    """Nobody in it; its lanes with the quota that is in force outside of windows."""
    windows: Mapping[str, tuple[Window, ...]] = field(default_factory=dict)
    """By lane."""

    def lanes(self, now: float) -> tuple[Lane, ...]:
        """As a calendar has them from `now` on."""
        return tuple(lane_of(lane.name, lane.now, self.windows.get(lane.name, ()), now) for lane in self.queue.lanes)

    def largest(self, lane: str | None) -> int:
        """The most GPUs that a lane ever has; 0 for one that it does not have."""
        found = self.queue.lane(lane)
        return max([found.now, *(window.quota for window in self.windows.get(found.name, ()))]) if found else 0


def replay(jobs: Iterable[Job], *, quota: int, order: Order, watch: Watch | None = None) -> list[Started]:
    """The starts of all jobs that `quota` can ever hold, in the order in which they start, as one line of one lane.

    Args:
        jobs: the trace, in any order.
        quota: GPUs.
        order: of the queue.
        watch: is shown every state before it is decided upon.
    """
    policy = Policy(queue=Queue(name=_QUEUE, lanes=(Lane(name=_LANE, quota=((0.0, quota),)),), order=order))
    return replay_queues((replace(job, queue=_QUEUE, lane=_LANE) for job in jobs), [policy], watch=watch)


def replay_queues(jobs: Iterable[Job], policies: Sequence[Policy], *, watch: Watch | None = None) -> list[Started]:
    """The starts of all jobs that can ever start, in the order in which they start.

    Queues that share no pool do not touch each other, and are replayed one after the other.

    Args:
        jobs: the trace, in any order; keys are unique.
        policies: of all queues and their pools.
        watch: is shown every state before it is decided upon.
    """
    by_name = {policy.queue.name: policy for policy in policies}
    together: dict[str, list[Policy]] = {}
    for policy in policies:
        together.setdefault(policy.queue.pool or policy.queue.name, []).append(policy)
    coming: dict[str, list[Job]] = {}
    for job in jobs:
        policy_of = by_name.get(job.queue)
        if policy_of is not None and job.gpus <= _most(policy_of, job.lane, by_name):
            coming.setdefault(policy_of.queue.pool or job.queue, []).append(job)
    starts = [start for name, those in coming.items() for start in _Replay(together[name], those, watch).starts()]
    return sorted(starts, key=lambda start: start.at)


def _most(policy: Policy, lane: str, by_name: Mapping[str, Policy]) -> int:
    """The most GPUs that one job of this queue and lane can ever have."""
    pool = by_name.get(policy.queue.pool or "")
    return max(policy.largest(lane), min(policy.queue.max_borrow, pool.largest(lane)) if pool else 0)


class _Replay:
    """Queues that share a pool, or one alone, while time jumps."""

    def __init__(self, policies: Sequence[Policy], jobs: Iterable[Job], watch: Watch | None) -> None:
        self.policies = {policy.queue.name: policy for policy in policies}
        self.watch = watch
        self.coming = sorted(jobs, key=lambda job: (job.since, job.key), reverse=True)
        self.by_key = {job.key: job for job in self.coming}
        self.lanes: dict[str, tuple[Lane, ...]] = {}
        self.read_again = -FOREVER
        """When the calendars are next looked at: at the next change of a quota, or after a day."""
        self.ledgers: dict[str, dict[str, Grant]] = {name: {} for name in self.policies}
        self.waiting: dict[str, dict[str, Request]] = {name: {} for name in self.policies}
        self.ends: list[tuple[float, str, str]] = []
        self.moved = -FOREVER
        """When something last happened."""

    def starts(self) -> list[Started]:
        """Let everything happen."""
        found: list[Started] = []
        while (now := self._next_event()) < FOREVER:
            self._end_and_come(now)
            if any(self.waiting.values()):
                found += self._decide(now)
        return found

    def _next_event(self) -> float:
        comes = self.coming[-1].since if self.coming else FOREVER
        soonest = min(comes, self.ends[0][0] if self.ends else FOREVER)
        if not any(self.waiting.values()) or (soonest == FOREVER and self.read_again > self.moved + HORIZON.total_seconds()):
            return soonest
        return min(soonest, self.read_again)

    def _end_and_come(self, now: float) -> None:
        while self.ends and self.ends[0][0] <= now:
            _, queue, key = heapq.heappop(self.ends)
            del self.ledgers[queue][key]
            self.moved = now
        while self.coming and self.coming[-1].since <= now:
            job = self.coming.pop()
            self.waiting[job.queue][job.key] = _request(job)
            self.moved = now

    def _decide(self, now: float) -> list[Started]:
        if now >= self.read_again:
            self._read_calendars(now)
        queues = [
            replace(
                policy.queue,
                lanes=self.lanes[name],
                ledger=tuple(self.ledgers[name].values()),
                waiting=tuple(self.waiting[name].values()),
            )
            for name, policy in self.policies.items()
        ]
        if self.watch is not None:
            self.watch(queues, now)
        outcomes = decide(queues, now, explain=False)
        return [self._start(name, grant, now) for name, outcome in outcomes.items() for grant in outcome.granted]

    def _start(self, ledger: str, grant: Grant, now: float) -> Started:
        job = self.by_key[grant.key]
        del self.waiting[job.queue][job.key]
        self.ledgers[ledger][job.key] = grant
        heapq.heappush(self.ends, (now + job.seconds, ledger, job.key))
        self.moved = now
        return Started(job=job, at=now, lender=ledger if ledger != job.queue else "")

    def _read_calendars(self, now: float) -> None:
        self.lanes = {name: policy.lanes(now) for name, policy in self.policies.items()}
        changes = [lane.quota[1][0] for lanes in self.lanes.values() for lane in lanes if len(lane.quota) > 1]
        self.read_again = min([now + _DAY, *changes]) if any(policy.windows for policy in self.policies.values()) else FOREVER


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
    return Request(key=job.key, namespace="", name=job.key, lane=job.lane, pods=(pod,), since=job.since, run_limit=job.limit)
