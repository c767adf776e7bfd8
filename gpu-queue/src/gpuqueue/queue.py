"""What a line is made of: lanes, requests that wait, and grants, which the ledger holds.

Plain frozen values. Times are seconds since the epoch, UTC. Adapters build them from Kubernetes objects; `decide` reads them and
knows nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Order = Literal["strict", "easy"]
FOREVER = float("inf")
MOST_PODS = 1000
"""Of one group: an entry of the ledger has room for no more."""
LEDGER_BYTES = 1_000_000
"""How large a ledger may grow. It is one object, and etcd takes none above a million and a half bytes, policy and annotations included: a
ledger that could not be written would hold up those who end, too."""
_ENTRY_BYTES, _MEMBER_BYTES = 240, 48
"""Of an entry and of one of its members, as they are written, without the words in them."""
_PLAIN = re.compile(r"[\w./: -]*", re.ASCII)
_WORST = 6
"""Bytes that one letter can take when it is written down: `<` is \\u003c."""


class Reason(Enum):
    """Why a request waits, each with the sentence that people read. The value is stable: metrics and conditions carry it."""

    FULL = "QuotaInUse"
    BEHIND = "Behind"
    WOULD_DELAY = "WouldDelayHead"
    INCOMPLETE = "GroupIncomplete"
    CONFUSED = "GroupConfused"
    TOO_LARGE = "NeverFits"
    NO_LANE = "NoLane"
    BUDGET = "BudgetSpent"
    BLOCKED = "GateCannotOpen"
    LEDGER = "LedgerFull"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A quota of one kind of GPU."""

    name: str
    quota: tuple[tuple[float, int], ...]
    """The quota from each moment on, in order; the first entry is in force now. One entry where no calendar changes it."""

    @property
    def now(self) -> int:
        """The quota in force."""
        return self.quota[0][1]

    @property
    def largest(self) -> int:
        """The most that the calendar ever gives."""
        return max(quota for _, quota in self.quota)

    def at(self, moment: float) -> int:
        """The quota in force at `moment`."""
        return next((quota for since, quota in reversed(self.quota) if since <= moment), self.now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod, as far as the queue is concerned."""

    uid: str
    gpus: int
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What waits: a pod, or a group of pods that starts together."""

    key: str
    """The pod's uid, or `namespace/group`."""
    namespace: str
    name: str
    lane: str | None
    pods: tuple[Pod, ...]
    """Those that are there, by uid."""
    since: float
    """When the first of them was created; the API knows whole seconds."""
    size: int = 1
    """How many pods the group says it has."""
    sizes_agree: bool = True
    """Whether all pods say the same about the group."""
    run_limit: float | None = None
    """Seconds that it says it runs at most."""
    blocked: str = ""
    """Who refuses to let the gate be opened, if a trial has shown that."""
    family: str = ""
    """What kind of job it is: jobs of one family run about as long."""
    gpus: int = field(init=False)
    """Of all its pods. Added up once: a long line is looked at often."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpus", sum(pod.gpus for pod in self.pods))

    @property
    def rank(self) -> tuple[float, str, str, str]:
        """First come, first served; what came in the same second is ordered by name, alike on every replica."""
        return (self.since, self.namespace, self.name, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An entry of the ledger: these GPUs are spoken for until every pod of it has ended."""

    key: str
    namespace: str
    name: str
    lane: str
    pods: tuple[Pod, ...]
    at: float
    limit: float | None = None
    foreign: bool = False
    """It ran before the queue knew it: counted, never killed, and it may exceed the quota."""
    owner: str = ""
    """In a pool's ledger: the queue that borrows."""
    family: str = ""
    """What kind of job it is, as its request said."""
    since: float | None = None
    """When its request came."""
    gpus: int = field(init=False)
    """What it holds, of all its pods, ended ones included."""
    weight: int = field(init=False)
    """Bytes that its entry takes at most."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpus", sum(pod.gpus for pod in self.pods))
        object.__setattr__(self, "weight", _weight(self))

    @property
    def ends(self) -> float:
        """When its limit is over."""
        return FOREVER if self.limit is None else self.at + self.limit


def _weight(grant: Grant) -> int:
    words = (grant.key, grant.namespace, grant.name, grant.lane, grant.family, grant.owner)
    members = sum(_MEMBER_BYTES + _bytes(pod.uid) + _bytes(pod.name) for pod in grant.pods)
    return _ENTRY_BYTES + sum(map(_bytes, words)) + members


def _bytes(word: str) -> int:
    return len(word) if _PLAIN.fullmatch(word) else _WORST * len(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """GPU time for a period."""

    gpu_seconds: float
    spent: float
    hold: bool
    """Whether nothing new starts once it is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One team's line, and everything that a decision about it follows from."""

    name: str
    lanes: tuple[Lane, ...]
    order: Order = "strict"
    default_limit: float | None = None
    """Seconds; for requests that say nothing. Without any limit a request counts as running for ever."""
    budget: Budget | None = None
    pool: str | None = None
    """The queue that it may borrow from."""
    max_borrow: int = 0
    ledger: tuple[Grant, ...] = ()
    waiting: tuple[Request, ...] = ()
    found: tuple[Request, ...] = ()
    """Pods that hold GPUs without a grant."""
    ended: frozenset[str] = frozenset()
    """Uids of pods that are over for good: seen terminal, or confirmed gone by a live read. Never a guess."""

    def lane(self, name: str | None) -> Lane | None:
        """The lane of that name."""
        return next((lane for lane in self.lanes if lane.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What somebody who waits is told."""

    key: str
    lane: str | None
    reason: Reason
    place: int
    """From 1, among those of the lane that can ever start; 0 for those that cannot."""
    of: int
    ahead: tuple[str, ...] = ()
    """Keys of those before it, nearest the front first."""
    detail: Mapping[str, object] = field(default_factory=dict)
    """Figures for the sentence: GPUs asked, free, quota, members."""
