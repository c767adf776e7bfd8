"""What a replay shows: who waited how long, and how much of the GPUs was in use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean

from gpuqueue.simulate import Policy, Started

_WEEK = 7 * 86400.0
Steps = list[tuple[float, int]]
"""A number that changes over time: from when it is what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long the jobs of one team waited, in seconds."""

    jobs: int
    mean: float
    p50: float
    p95: float
    longest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """GPU time of one quota over a while, in GPU-seconds."""

    held: float
    quota: float

    @property
    def share(self) -> float:
        """Of the quota; 0 where there is none."""
        return self.held / self.quota if self.quota else 0.0


def waits_of(waits: Iterable[float]) -> Waits | None:
    """The figures that people compare; percentiles are waits that occurred. None of nobody."""
    found = sorted(waits)
    if not found:
        return None
    p50, p95 = (found[math.ceil(share * len(found)) - 1] for share in (0.5, 0.95))
    return Waits(jobs=len(found), mean=fmean(found), p50=p50, p95=p95, longest=found[-1])


def in_use(starts: Iterable[Started]) -> Steps:
    """How many GPUs are held from each moment on."""
    return steps_of((start.at, start.at + start.job.seconds, start.job.gpus) for start in starts)


def steps_of(held: Iterable[tuple[float, float, int]]) -> Steps:
    """How much is held from each moment on, from what is held from when until when."""
    changes: dict[float, int] = {}
    for since, until, much in held:
        changes[since] = changes.get(since, 0) + much
        changes[until] = changes.get(until, 0) - much
    moments = sorted(changes)
    return list(zip(moments, accumulate(changes[moment] for moment in moments), strict=True))


def use_of(starts: Sequence[Started], policies: Iterable[Policy], begin: float, end: float) -> dict[tuple[str, str], Use]:
    """By queue and lane, what was held of each quota from `begin` to `end`. Borrowed GPUs are their lender's."""
    held: dict[tuple[str, str], float] = {}
    for start in starts:
        seconds = min(end, start.at + start.job.seconds) - max(begin, start.at)
        held[start.ledger] = held.get(start.ledger, 0.0) + max(0.0, seconds) * start.job.gpus
    quotas = [(policy.queue.name, lane, quota) for policy in policies for lane, quota in quota_time(policy, begin, end).items()]
    return {(queue, lane): Use(held=held.get((queue, lane), 0.0), quota=quota) for queue, lane, quota in quotas}


def quota_time(policy: Policy, begin: float, end: float) -> dict[str, float]:
    """GPU-seconds that each lane's quota is worth from `begin` to `end`, with its windows."""
    found = dict.fromkeys((lane.name for lane in policy.queue.lanes), 0.0)
    while begin < end:
        until = min(end, begin + _WEEK)
        for lane in policy.lanes(begin):
            found[lane.name] += over_time(list(lane.quota), begin, until)
        begin = until
    return found


def over_time(steps: Steps, begin: float, end: float) -> float:
    """What changes in `steps`, added up over the seconds from `begin` to `end`; nothing before the first step."""
    spans = pairwise([*steps, (math.inf, 0)])
    return sum(value * max(0.0, min(end, until) - max(begin, since)) for (since, value), (until, _) in spans)
