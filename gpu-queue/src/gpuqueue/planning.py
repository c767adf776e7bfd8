"""What would have been: a history replayed as things were, and with other quotas, orders and pools.

Pure, as `simulate` is; `commands.planning` reads, prints and draws. Where nobody says what the quotas were, a lane is taken to have had
as many GPUs as its jobs ever held at once.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpuqueue.history import Past
from gpuqueue.queue import Lane, Order, Queue
from gpuqueue.replayed import Steps, Use, Waits, in_use, steps_of, use_of, waits_of
from gpuqueue.simulate import Job, Policy, Started, replay_queues

_BEFORE = " before "
"""Begins the key of what came before the window: a blank sorts first among those of one moment."""
Place = tuple[str, str]
"""A queue and one of its lanes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What happened, and under what."""

    pasts: tuple[Past, ...]
    """Of those that came before `begin`, only what ran or waited then."""
    policies: tuple[Policy, ...]
    begin: float

    @property
    def window(self) -> tuple[float, float]:
        """Until the last grant: afterwards a history thins out, for it lacks what has not ended."""
        end = max(past.at for past in self.pasts)
        return self.begin, end if end > self.begin else max(past.ended for past in self.pasts)

    @property
    def counted(self) -> tuple[Past, ...]:
        """Those that came within the window: only their waits say something about it."""
        return tuple(past for past in self.pasts if past.since >= self.begin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What should be different."""

    quotas: Mapping[Place, int] = field(default_factory=dict)
    """Outside of windows."""
    orders: Mapping[str, Order] = field(default_factory=dict)
    """By queue."""
    pools: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """By queue: from which it may borrow, and how many GPUs at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How a replay went."""

    policies: tuple[Policy, ...]
    waits: Mapping[str, tuple[float, ...]]
    """Seconds, of each job that started, by queue."""
    never: Mapping[str, int]
    """How many jobs no quota could hold, by queue."""
    use: Mapping[Place, Use]
    in_use: Steps


def recorded(pasts: Iterable[Past], policies: Sequence[Policy] = (), *, days: float | None = None) -> Recorded:
    """A history to replay: its last `days`, and lanes that `policies` do not know with the GPUs that were held in them at once."""
    known = tuple(pasts)
    first = min(past.since for past in known)
    begin = first if days is None else math.floor(max(first, max(past.at for past in known) - days * 86400))
    chosen = tuple(past for past in known if past.ended > begin or past.since >= begin)
    missing: dict[str, list[Lane]] = {}
    has = {(policy.queue.name, lane.name) for policy in policies for lane in policy.queue.lanes}
    for queue, lane in sorted({(past.queue, past.lane) for past in chosen} - has):
        missing.setdefault(queue, []).append(Lane(name=lane, quota=((0.0, _most_held(chosen, (queue, lane))),)))
    of = {policy.queue.name: policy for policy in policies}
    for queue, lanes in missing.items():
        base = of.get(queue, Policy(queue=Queue(name=queue, lanes=())))
        of[queue] = replace(base, queue=replace(base.queue, lanes=(*base.queue.lanes, *lanes)))
    return Recorded(pasts=chosen, policies=tuple(of[name] for name in sorted(of)), begin=begin)


def changed(policies: Sequence[Policy], change: Change) -> tuple[Policy, ...]:
    """The policies with the change made.

    Raises:
        ValueError: it names a queue or a lane that is not there; a queue that is only borrowed from may be new.
    """
    of = {policy.queue.name: policy for policy in policies}
    for pool, _ in change.pools.values():
        of.setdefault(pool, Policy(queue=Queue(name=pool, lanes=())))
    new = of.keys() - {policy.queue.name for policy in policies}
    for name in [*change.orders, *change.pools, *(queue for queue, _ in change.quotas)]:
        if name not in of:
            raise ValueError(f"there is no queue {name!r}; there are {', '.join(sorted(of))}")
    for (queue, lane), quota in change.quotas.items():
        of[queue] = _with_quota(of[queue], lane, quota, new=queue in new)
    for queue, order in change.orders.items():
        of[queue] = replace(of[queue], queue=replace(of[queue].queue, order=order))
    for queue, (pool, most) in change.pools.items():
        if pool == queue or of[pool].queue.pool is not None or pool in change.pools:
            raise ValueError(f"{queue!r} cannot borrow from {pool!r}: a pool is another queue, and does not borrow itself")
        of[queue] = replace(of[queue], queue=replace(of[queue].queue, pool=pool, max_borrow=most))
    return tuple(of[name] for name in sorted(of))


def outlook(history: Recorded, policies: Sequence[Policy]) -> Outlook:
    """Replay the history under `policies`."""
    counted = {past.queue: 0 for past in history.counted}
    for past in history.counted:
        counted[past.queue] += 1
    starts = _replayed(history, policies)
    waits: dict[str, list[float]] = {queue: [] for queue in counted}
    for start in starts:
        if not start.job.key.startswith(_BEFORE):
            waits[start.job.queue].append(start.wait)
    return Outlook(
        policies=tuple(policies),
        waits={queue: tuple(found) for queue, found in waits.items()},
        never={queue: counted[queue] - len(found) for queue, found in waits.items()},
        use=use_of(starts, policies, *history.window),
        in_use=in_use(starts),
    )


def _replayed(history: Recorded, policies: Sequence[Policy], queues: Container[str | None] | None = None) -> list[Started]:
    """What ran when the window began goes on first, then comes what waited, then what came: of some `queues`, or of all."""
    jobs = []
    for number, past in enumerate(sorted(history.pasts, key=lambda past: (past.since, past.namespace, past.name))):
        runs, waits = past.at < history.begin, past.since < history.begin
        job = Job(
            key=f"{_BEFORE if waits else ''}{0 if runs else 1}{number:07}",
            since=max(past.since, history.begin),
            gpus=past.gpus,
            seconds=past.ended - max(past.at, history.begin),
            limit=past.limit,
            queue=past.queue,
            lane=past.lane,
            family=past.family,
        )
        if queues is None or past.queue in queues:
            jobs.append(job)
    return replay_queues(jobs, policies)


def sweep(history: Recorded, place: Place, target: float) -> dict[int, Waits]:
    """The waits in one lane under several quotas, by quota; among them the smallest that has nineteen in twenty wait `target` at most.

    Doubled until it is enough, then halved down to it, as if every GPU more let people wait less. That is so but for rare anomalies.
    `place` must have jobs that count. Where windows cut the quota, none may be enough.
    """
    mine = [past for past in history.counted if (past.queue, past.lane) == place]
    found: dict[int, Waits] = {}

    def enough(quota: int) -> bool:
        if quota not in found:
            policies = changed(history.policies, Change(quotas={place: quota}))
            group = {place[0]} | {policy.queue.pool for policy in policies if policy.queue.name == place[0]}
            near = {policy.queue.name for policy in policies if group & {policy.queue.name, policy.queue.pool}}
            starts = [start for start in _replayed(history, policies, near) if not start.job.key.startswith(_BEFORE)]
            waits = waits_of(start.wait for start in starts if (start.job.queue, start.job.lane) == place)
            assert waits is not None, "the quota holds the largest job"
            found[quota] = waits
        return found[quota].p95 <= target

    low = high = max(1, *(past.gpus for past in mine))
    everything = max(high, sum(past.gpus for past in mine))
    present = next(lane.now for policy in history.policies for lane in policy.queue.lanes if (policy.queue.name, lane.name) == place)
    if present >= high:
        enough(present)
    while not enough(high) and high < everything:
        low, high = high, min(2 * high, everything)
    while high - low > 1 and enough(high):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return dict(sorted(found.items()))


def _with_quota(policy: Policy, lane: str, quota: int, *, new: bool) -> Policy:
    lanes = policy.queue.lanes
    if all(one.name != lane for one in lanes):
        if not new:
            raise ValueError(f"queue {policy.queue.name!r} has no lane {lane!r}; it has {', '.join(one.name for one in lanes)}")
        lanes = (*lanes, Lane(name=lane, quota=()))
    return replace(
        policy, queue=replace(policy.queue, lanes=tuple(replace(one, quota=((0.0, quota),)) if one.name == lane else one for one in lanes))
    )


def _most_held(pasts: Iterable[Past], place: Place) -> int:
    mine = [past for past in pasts if (past.queue, past.lane) == place]
    return max(held for _, held in steps_of((past.at, max(past.ended, past.at + 1), past.gpus) for past in mine))
