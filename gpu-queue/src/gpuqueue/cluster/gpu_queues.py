"""GpuQueue objects: policy in, ledger in and out.

The API server holds the schema, so what cannot be decoded was stored by breaking the glass: such an object is reported and left
alone, and its neighbours go on. A field that is well formed and means nothing (a cron that names no minute) falls back to what is safe,
and is named in `Policy.complaints`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

from gpuqueue import simulate
from gpuqueue.calendar import Window, lane_of
from gpuqueue.cluster.pods import Meta, moment
from gpuqueue.durations import moment_of, seconds_of, words_of
from gpuqueue.labels import DOMAIN
from gpuqueue.periods import Per, Period, period_of
from gpuqueue.queue import Budget, Grant, Lane, Order, Pod, Queue

_ALL = 100
PATH = f"/apis/{DOMAIN}/v1/gpuqueues"


class WindowField(msgspec.Struct, rename={"lasting": "for", "zone": "timeZone"}):
    """`spec.lanes[].windows[]`"""

    cron: str
    lasting: str
    quota: int
    zone: str = "UTC"


class LaneField(msgspec.Struct):
    """`spec.lanes[]`"""

    name: str
    quota: int
    match: dict[str, str] = {}
    windows: list[WindowField] = []


class BudgetField(msgspec.Struct, rename="camel"):
    """`spec.budget`"""

    gpu_hours: int
    per: Per = "month"
    warn_at: list[int] = []
    when_spent: str = "warn"


class IdleField(msgspec.Struct, rename={"lasting": "for"}):
    """`spec.idle`"""

    metric: str
    below: float
    lasting: str
    grace: str = "15m"
    action: str = "warn"


class PoolField(msgspec.Struct, rename="camel"):
    """`spec.pool`"""

    name: str
    max_borrow: int


class SpecField(msgspec.Struct, rename="camel"):
    """`spec`"""

    lanes: list[LaneField]
    namespaces: list[str] = []
    order: Order = "strict"
    default_run_limit: str | None = None
    enforce_run_limit: bool = False
    budget: BudgetField | None = None
    idle: IdleField | None = None
    pool: PoolField | None = None


class MemberField(msgspec.Struct, omit_defaults=True):
    """`status.grants[].members[]`"""

    uid: str
    name: str = ""
    gpus: int = 0


class GrantField(msgspec.Struct, omit_defaults=True):
    """`status.grants[]`"""

    uid: str
    name: str
    namespace: str
    gpus: int
    lane: str
    at: str
    since: str = ""
    kind: str = ""
    limit: str = ""
    foreign: bool = False
    owner: str = ""
    members: list[MemberField] = []


class WaitingField(msgspec.Struct, omit_defaults=True, rename="camel"):
    """`status.queue`"""

    waiting: int = 0
    gpus_waiting: int = 0
    head_since: str = ""


class SpentField(msgspec.Struct, rename="camel"):
    """`status.spent`"""

    period: str = ""
    gpu_seconds: int = 0


class StatusField(msgspec.Struct, omit_defaults=True):
    """`status`"""

    grants: list[GrantField] = []
    queue: WaitingField | None = None
    spent: SpentField | None = None


class GpuQueue(msgspec.Struct):
    """The object."""

    metadata: Meta
    spec: SpecField
    status: StatusField = msgspec.field(default_factory=StatusField)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A GpuQueue, read."""

    name: str
    uid: str
    version: str
    created: float
    spec: SpecField
    windows: Mapping[str, tuple[Window, ...]]
    """By lane; those that mean something."""
    grants: tuple[Grant, ...]
    status: StatusField
    complaints: tuple[str, ...]
    """What in the spec means nothing, and what counts instead."""

    def queue(self, now: float) -> Queue:
        """As `decide` wants it; waiting requests are filled in by `reconcile`."""
        spec = self.spec
        return Queue(
            name=self.name,
            lanes=tuple(lane_of(lane.name, lane.quota, self.windows[lane.name], now) for lane in spec.lanes),
            order=spec.order,
            default_limit=_seconds(spec.default_run_limit),
            budget=self.budget(now),
            pool=spec.pool.name if spec.pool else None,
            max_borrow=spec.pool.max_borrow if spec.pool else 0,
            ledger=self.grants,
        )

    def replayed(self, now: float) -> simulate.Policy:
        """As `gpuq plan` replays a trace under it."""
        queue = self.queue(now)
        lanes = tuple(Lane(name=lane.name, quota=((0.0, lane.quota),)) for lane in self.spec.lanes)
        return simulate.Policy(queue=replace(queue, lanes=lanes, ledger=(), budget=None), windows=self.windows)

    def budget(self, now: float) -> Budget | None:
        """The GPU time of this period, with what runs now counted up to now."""
        field = self.spec.budget
        if field is None:
            return None
        return Budget(gpu_seconds=field.gpu_hours * 3600.0, spent=self.spent(now), hold=field.when_spent == "hold")

    def budget_warning(self, now: float) -> str:
        """The highest of `warnAt` that has been reached, in words; empty if none has."""
        budget, field = self.budget(now), self.spec.budget
        if budget is None or field is None:
            return ""
        reached = [percent for percent in field.warn_at if budget.spent >= budget.gpu_seconds * percent / 100]
        what = "nothing new starts" if field.when_spent == "hold" and max(reached, default=0) >= _ALL else "see: gpuq usage " + self.name
        return f"{max(reached)} % of the {field.gpu_hours:,} GPU hours of {self.period(now).name} are spent; {what}" if reached else ""

    def spent(self, now: float, grants: Iterable[Grant] | None = None, over: Mapping[str, float] = MappingProxyType({})) -> float:
        """GPU-seconds of the period that `now` is in: of grants that have ended, and of those that are held, so far; until `over` by key."""
        period = self.period(now)
        done = self.status.spent.gpu_seconds if self.status.spent and self.status.spent.period == period.name else 0
        held = self.grants if grants is None else grants
        return done + sum(grant.gpus * max(0.0, over.get(grant.key, now) - max(grant.at, period.begin)) for grant in held)

    def period(self, now: float) -> Period:
        """The budget's period; a month where there is no budget."""
        return period_of(self.spec.budget.per if self.spec.budget else "month", now)

    def lane_for(self, pins: Mapping[str, str]) -> str | None:
        """The lane of a pod that fixes these node labels: the first that matches, and one without labels only when no other does."""
        lanes = sorted(self.spec.lanes, key=lambda lane: not lane.match)
        return next((lane.name for lane in lanes if lane.match.items() <= pins.items()), None)


def read(text: bytes | msgspec.Raw) -> Policy:
    """A GpuQueue from its JSON.

    Raises:
        msgspec.ValidationError: it has not the schema's shape.
    """
    thing = _DECODER.decode(text)
    now = datetime.now(UTC).timestamp()
    windows, complaints = {}, []
    for lane in thing.spec.lanes:
        windows[lane.name], wrong = _windows(lane, now)
        complaints += wrong
    if thing.spec.default_run_limit and _seconds(thing.spec.default_run_limit) is None:
        complaints.append(f"spec.defaultRunLimit {thing.spec.default_run_limit!r} is no duration; it counts as none")
    return Policy(
        name=thing.metadata.name,
        uid=thing.metadata.uid,
        version=thing.metadata.resource_version,
        created=moment(thing.metadata.created),
        spec=thing.spec,
        windows=windows,
        grants=tuple(_grant(entry) for entry in thing.status.grants),
        status=thing.status,
        complaints=tuple(complaints),
    )


_DECODER = msgspec.json.Decoder(GpuQueue)


def status_body(
    policy: Policy, grants: Sequence[Grant], waiting: WaitingField | None, now: float, over: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """The body of the write that makes `grants` the ledger, on condition that the object is still as `policy` has it.

    What grants that end have used up in this period goes to `spent` in the same write: it is counted once, whoever crashes when. `over` says
    since when they are over, by key, where that was not just now.
    """
    period = policy.period(now)
    kept = {grant.key for grant in grants}
    ended = [grant for grant in policy.grants if grant.key not in kept]
    spent = SpentField(period=period.name, gpu_seconds=round(policy.spent(now, ended, over)))
    status = StatusField(
        grants=[_entry(grant) for grant in grants],
        queue=waiting or policy.status.queue,
        spent=spent,
    )
    return {
        "apiVersion": f"{DOMAIN}/v1",
        "kind": "GpuQueue",
        "metadata": {"name": policy.name, "resourceVersion": policy.version},
        "status": msgspec.to_builtins(status),
    }


def claims(policies: Iterable[Policy]) -> tuple[dict[str, str], dict[str, str]]:
    """Which queue each namespace belongs to, and what is to be said to queues that claim one of another: the older one keeps it."""
    owner: dict[str, str] = {}
    named = [
        (n, policy.name) for policy in sorted(policies, key=lambda policy: (policy.created, policy.name)) for n in policy.spec.namespaces
    ]
    twice = {
        queue: f"namespace {namespace} is in queue {owner[namespace]} and in queue {queue}; {owner[namespace]} is older and keeps it. "
        f"Take it out of one: kubectl edit gq {queue}"
        for namespace, queue in named
        if owner.setdefault(namespace, queue) != queue
    }
    return owner, twice


def stamp(at: float) -> str:
    """A moment as Kubernetes writes it, with microseconds: what was granted in one second keeps its order."""
    return moment_of(at).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _windows(field: LaneField, now: float) -> tuple[tuple[Window, ...], list[str]]:
    """The windows of a lane that mean something, and complaints about the others."""
    windows, complaints = [], []
    for number, said in enumerate(field.windows):
        try:
            window = Window(cron=said.cron, seconds=seconds_of(said.lasting), quota=said.quota, zone=said.zone)
            lane_of(field.name, field.quota, [window], now)
        except ValueError as error:
            complaints.append(f"spec.lanes[{field.name}].windows[{number}]: {error}; it is left out")
        else:
            windows.append(window)
    return tuple(windows), complaints


def _seconds(text: str | None) -> float | None:
    try:
        return seconds_of(text) if text else None
    except ValueError:
        return None


def _grant(entry: GrantField) -> Grant:
    members = entry.members or [MemberField(uid=entry.uid, name=entry.name, gpus=entry.gpus)]
    pods = tuple(Pod(uid=member.uid, name=member.name, gpus=member.gpus) for member in members)
    short = entry.gpus - sum(pod.gpus for pod in pods)
    if short > 0:  # an entry edited by hand: what it says that it holds, it holds
        pods = (replace(pods[0], gpus=pods[0].gpus + short), *pods[1:])
    return Grant(
        key=entry.uid,
        namespace=entry.namespace,
        name=entry.name,
        lane=entry.lane,
        pods=pods,
        at=moment(entry.at),
        limit=_seconds(entry.limit),
        foreign=entry.foreign,
        owner=entry.owner,
        family=entry.kind,
        since=moment(entry.since) if entry.since else None,
    )


def _entry(grant: Grant) -> GrantField:
    alone = len(grant.pods) == 1 and grant.pods[0].uid == grant.key
    return GrantField(
        uid=grant.key,
        name=grant.name,
        namespace=grant.namespace,
        gpus=grant.gpus,
        lane=grant.lane,
        at=stamp(grant.at),
        since=stamp(grant.since) if grant.since is not None else "",
        kind=grant.family,
        limit=words_of(grant.limit) if grant.limit else "",
        foreign=grant.foreign,
        owner=grant.owner,
        members=[] if alone else [MemberField(uid=pod.uid, name=pod.name, gpus=pod.gpus) for pod in grant.pods],
    )
