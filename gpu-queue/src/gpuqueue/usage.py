"""Who uses the GPUs that they hold, who does not, and of whom nobody can tell.

Pure: samples come from `gpuqueue.prometheus`, grants from the ledger, the moment from the caller. A round is `holders`, `look`, `ladder`;
what its pods held and used goes to `gpuqueue.accounts`.

No data is never idleness. dcgm-exporter loses the pod's labels on MIG and on shared GPUs, exporters restart, pods that have
just started have no past: of all of them the use is unknown, and nothing is done about unknown use but saying so. What holds,
whatever the samples say (tests explore it):

- A pod is idle only if every GPU it holds was seen in every part of the window, and none was ever at `below` or more.
- A grant is evicted only if its queue asked for that, it is not foreign, and all of its pods have been idle without a break since
  before the warning, which is at least `grace` ago. A break in knowledge, a restart of the controller included, starts from the
  beginning.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from gpuqueue.queue import Grant

FRESH = 300.0
"""Seconds: an older sample says nothing about now."""
LaneKey = tuple[str, str]
"""Queue and lane."""
PodKey = tuple[str, str]
"""Namespace and name."""


class State(Enum):
    """What is known of a pod's GPUs."""

    BUSY = "busy"
    IDLE = "idle"
    UNKNOWN = "unknown"


class Step(Enum):
    """How far up the ladder a grant is."""

    NONE = "none"
    WARN = "warn"
    """Tell the people in the pod's condition."""
    ALERT = "alert"
    """Half of the grace is over: tell the team."""
    EVICT = "evict"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePolicy:
    """`spec.idle` of a GpuQueue. Durations in seconds."""

    metric: str
    below: float
    window: float
    """Its `for`."""
    grace: float
    """How long a warning stands before an eviction; without any, nobody is evicted."""
    evict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A pod that holds granted GPUs."""

    uid: str
    namespace: str
    name: str
    queue: str
    """Whose policy and bill it is: in a pool's ledger, the queue that borrows."""
    lane: str
    grant: str
    """The grant's key."""
    gpus: int
    since: float | None
    """When it began to run, if anybody knows."""
    foreign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The activity of a pod's GPUs over the `window` seconds that ended `at`. Activity: 0 is none, 1 is all of the time."""

    at: float
    window: float
    mean: float
    """Over time and GPUs, where there is data."""
    highest: float
    """Of any GPU at any time."""
    share: float
    """Of the window for which there is data, of the GPU with the least."""
    gpus: int
    """Of how many GPUs (or MIG instances) there is any data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What is known of one pod."""

    holder: Holder
    policy: IdlePolicy | None
    state: State
    at: float
    idle_since: float | None = None
    """Of an idle one: since when without a break, as far back as the samples show."""
    activity: float | None = None
    """Mean, where there is data."""
    known: float = 0.0
    """The share of the window for which there is data of every GPU it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Where a grant is on the ladder."""

    grant: str
    step: Step
    idle_since: float | None = None
    warned: float | None = None
    """Since when it has been warned; given back to `climb` in the next round."""


def holders(queue: str, grants: Iterable[Grant], started: Mapping[str, float], ended: Collection[str] = ()) -> tuple[Holder, ...]:
    """Every pod that holds GPUs of `queue`'s ledger.

    Args:
        queue: whose ledger it is.
        grants: the ledger.
        started: by uid, when a pod began to run. Of one that is not there nobody can say since when its GPUs should be busy: a new
            pod may bear an old one's name, and the samples tell pods apart by name only.
        ended: uids of pods that are over.
    """
    return tuple(
        Holder(
            uid=pod.uid,
            namespace=grant.namespace,
            name=pod.name,
            queue=grant.owner or queue,
            lane=grant.lane,
            grant=grant.key,
            gpus=pod.gpus,
            since=started.get(pod.uid),
            foreign=grant.foreign,
        )
        for grant in grants
        for pod in grant.pods
        if pod.uid not in ended
    )


def look(
    held: Iterable[Holder],
    samples: Mapping[PodKey, Sample],
    policies: Mapping[str, IdlePolicy],
    before: Mapping[str, Use],
    now: float,
) -> dict[str, Use]:
    """What is known of each pod at `now`, by uid.

    Args:
        held: the pods that hold GPUs.
        samples: by namespace and pod, asked for by the metric and the window of the policies; empty while nobody answers. Queues whose
            policies differ in that are looked at one after the other.
        policies: by queue. Without one nobody is idle, and the activity is of interest for the bill only.
        before: what the last round returned.
        now: the moment.
    """
    return {
        holder.uid: judge(holder, samples.get((holder.namespace, holder.name)), policies.get(holder.queue), now, before.get(holder.uid))
        for holder in held
    }


def judge(holder: Holder, sample: Sample | None, policy: IdlePolicy | None, now: float, before: Use | None = None) -> Use:
    """What is known of one pod at `now`; `before` is what the last round knew of it."""
    if sample is None or not _means_something(sample, now):
        return Use(holder=holder, policy=policy, state=State.UNKNOWN, at=now)
    state = _state(holder, sample, policy) if policy else State.UNKNOWN
    comparable = before is not None and (before.holder.uid, before.policy) == (holder.uid, policy)
    return Use(
        holder=holder,
        policy=policy,
        state=state,
        at=sample.at,
        idle_since=_idle_since(sample, before if comparable else None) if state is State.IDLE else None,
        activity=min(1.0, sample.mean),
        known=min(1.0, sample.share) * min(1.0, sample.gpus / holder.gpus) if holder.gpus else 1.0,
    )


def _means_something(sample: Sample, now: float) -> bool:
    figures = (sample.at, sample.window, sample.mean, sample.highest, sample.share)
    return all(math.isfinite(figure) and figure >= 0 for figure in figures) and sample.gpus > 0 and abs(now - sample.at) <= FRESH


def _state(holder: Holder, sample: Sample, policy: IdlePolicy) -> State:
    if sample.highest >= policy.below:
        return State.BUSY
    begins = sample.at - sample.window
    covered = sample.window >= policy.window and holder.since is not None and holder.since <= begins
    seen = sample.share >= 1 and sample.gpus >= holder.gpus > 0
    return State.IDLE if covered and seen else State.UNKNOWN


def _idle_since(sample: Sample, before: Use | None) -> float:
    """The begin of the window, or of the windows before it that it touches."""
    begins = sample.at - sample.window
    if before is not None and before.idle_since is not None and begins <= before.at <= sample.at:
        return min(before.idle_since, begins)
    return begins


def ladder(uses: Iterable[Use], before: Mapping[str, Rung], now: float) -> dict[str, Rung]:
    """Where each grant stands at `now`, by key; `before` is what the last round returned."""
    together: dict[str, list[Use]] = defaultdict(list)
    for use in uses:
        together[use.holder.grant].append(use)
    return {grant: climb(of_grant, before[grant].warned if grant in before else None, now) for grant, of_grant in together.items()}


def climb(uses: Sequence[Use], warned: float | None, now: float) -> Rung:
    """Where one grant stands at `now`, given what is known of all of its pods.

    The pods of a group stand together: while one works, the others may wait for it.

    Args:
        uses: of the grant's pods that run, one or more, by one policy.
        warned: `Rung.warned` of the last round.
        now: the moment.
    """
    grant, policy = uses[0].holder.grant, uses[0].policy
    begins = [use.idle_since for use in uses if use.idle_since is not None and use.state is State.IDLE and now - use.at <= FRESH]
    if policy is None or len(begins) < len(uses):
        return Rung(grant=grant, step=Step.NONE)
    since = max(begins)
    stands = warned is not None and since <= warned <= now  # else it was another stretch of idleness that the warning was about
    first = warned if warned is not None and stands else now
    return Rung(grant=grant, step=_step(uses, policy, now - first), idle_since=since, warned=first)


def _step(uses: Sequence[Use], policy: IdlePolicy, warned_for: float) -> Step:
    if policy.evict and warned_for >= policy.grace > 0 and not any(use.holder.foreign for use in uses):
        return Step.EVICT
    return Step.ALERT if warned_for >= policy.grace / 2 > 0 else Step.WARN


def gpus_in(state: State, uses: Iterable[Use]) -> dict[LaneKey, int]:
    """How many GPUs of each queue and lane are in `state`, of queues with a policy; zero where others are."""
    counted: dict[LaneKey, int] = defaultdict(int)
    for use in (use for use in uses if use.policy):
        counted[use.holder.queue, use.holder.lane] += use.holder.gpus if use.state is state else 0
    return dict(counted)
