"""One round of the controller, as a conversation: what it wants to read and write, in the only order that is safe.

`reconcile` is a generator. It yields an effect, is sent the effect's result, and goes on; it does no input or output itself. The
controller performs the effects against Kubernetes, the model checker against a small world in every order that can happen, so
that what is checked is what runs.

The order is what makes over-admission impossible, whoever else believes to be the leader, however old a view is, and wherever
it stops:

1. Read the ledger. A pod that the ledger names is over only if it was *seen* in a terminal phase, or if a live read says that
   it is gone; that a view does not hold it means nothing.
2. Try, without doing it, whether the gates of those who would start can be opened: what some policy refuses is not granted.
3. Write the ledger, on condition that nobody wrote it since: first the grant,
4. then the gate, of every pod that the ledger as written names and that is still gated. This finishes what a predecessor began.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gpuqueue.decide import Outcome, decide
from gpuqueue.queue import Grant, Pod, Queue, Request

Phase = Literal["gated", "open", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPod:
    """A managed pod as some view has it, which may be old."""

    uid: str
    namespace: str
    name: str
    phase: Phase
    gpus: int
    queue: str
    lane: str | None
    since: float
    group: str | None = None
    size: int = 1
    run_limit: float | None = None
    blocked: str = ""
    family: str = ""

    @property
    def key(self) -> str:
        """Of the request that it belongs to."""
        return self.uid if self.group is None else f"{self.namespace}/{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLedger:
    """Read a queue's ledger. Result: `Ledger`, or None if the queue is gone.

    It may be any that the queue has ever had: a write against an old one is refused, and a pod that any ledger ever named has its
    entry until it is over.
    """

    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmOver:
    """Ask the API server itself whether a pod is over. Result: True if it is terminal, gone, or another pod has its name now."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TryGate:
    """Ask whether this pod's gate could be opened, without opening it. Result: empty, or who refuses, in their words."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLedger:
    """Write a queue's ledger if its version is still `version`. Result: True, or False if somebody else wrote it.

    A write that `only_frees` lets nobody in: what it takes out may as well be taken out by the next one. Result then also None, for not now.
    """

    queue: str
    version: str
    grants: tuple[Grant, ...]
    only_frees: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGate:
    """Remove the gate of exactly this pod. Result: whatever; the next round sees what became of it."""

    uid: str
    namespace: str
    name: str


Effect = ReadLedger | ConfirmOver | TryGate | WriteLedger | OpenGate


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What `ReadLedger` answers."""

    version: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a round did."""

    queues: tuple[Queue, ...] = ()
    """What it decided about: `decide` says of them why each request waits."""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    """Queues whose ledger somebody else wrote meanwhile: another round is due."""
    opened: tuple[str, ...] = ()
    """Uids of pods whose gate it tried to open."""


def reconcile(queues: Iterable[Queue], pods: Iterable[SeenPod], now: float) -> Generator[Effect, Any, Report]:
    """One round over all queues.

    Args:
        queues: their policy; ledger and waiting requests are filled in here.
        pods: the managed pods, as far as this replica has heard of them.
        now: the moment, seconds since the epoch.
    """
    seen = {pod.uid: pod for pod in pods}
    filled, versions = [], {}
    for queue in sorted(queues, key=lambda queue: queue.name):
        ledger: Ledger | None = yield ReadLedger(queue=queue.name)
        if ledger is None:
            continue
        versions[queue.name] = ledger.version
        ended = yield from _ended(ledger, seen)
        filled.append(replace(queue, ledger=ledger.grants, ended=ended))
    filled = [replace(queue, ended=queue.ended | _held_by_owner(queue, filled)) for queue in filled]
    entered = {pod.uid for queue in filled for grant in queue.ledger for pod in grant.pods}
    unentered = yield from _without_grant(pod for pod in seen.values() if pod.uid not in entered)
    filled, outcomes = yield from _decide([_with_requests(queue, unentered) for queue in filled], seen, now)
    conflicts: list[str] = []
    opened: list[str] = []
    for queue in filled:
        grants = outcomes[queue.name].ledger
        written: bool | None = True
        if grants != queue.ledger:
            only_frees = set(grants) <= set(queue.ledger)
            written = yield WriteLedger(queue=queue.name, version=versions[queue.name], grants=grants, only_frees=only_frees)
        if written is False:
            conflicts.append(queue.name)
        else:  # where it was not written now, all of `grants` are in the ledger that was read
            opened += yield from _open_gates(grants, seen)
    return Report(queues=tuple(filled), outcomes=outcomes, conflicts=tuple(conflicts), opened=tuple(opened))


def converse(conversation: Generator[Effect, Any, Report], answer: Callable[[Effect], Any]) -> Report:
    """Have a whole round with somebody who answers at once; the controller, who must wait for answers, has its own way."""
    told: Any = None
    while True:
        try:
            told = answer(conversation.send(told))
        except StopIteration as end:
            report: Report = end.value
            return report


def _decide(queues: list[Queue], seen: Mapping[str, SeenPod], now: float) -> Generator[Effect, Any, tuple[list[Queue], dict[str, Outcome]]]:
    """The queues with what is known about gates that cannot be opened, and what `decide` says of them."""
    open_to_all: set[str] = set()
    while True:
        outcomes = decide(queues, now, explain=False)
        blocked: dict[str, str] = {}
        for grant in (grant for outcome in outcomes.values() for grant in outcome.granted):
            for pod in grant.pods:
                if pod.uid in open_to_all or seen[pod.uid].phase != "gated":
                    continue
                refusal = yield TryGate(uid=pod.uid, namespace=grant.namespace, name=pod.name)
                if refusal:
                    blocked[grant.key] = refusal
                    break
                open_to_all.add(pod.uid)
        if not blocked:
            return queues, outcomes
        queues = [
            replace(queue, waiting=tuple(replace(r, blocked=blocked[r.key]) if r.key in blocked else r for r in queue.waiting))
            for queue in queues
        ]


def _ended(ledger: Ledger, seen: Mapping[str, SeenPod]) -> Generator[Effect, Any, frozenset[str]]:
    """The pods of the ledger that are over for good."""
    over = set()
    for grant in ledger.grants:
        for pod in grant.pods:
            known = seen.get(pod.uid)
            if known is None:
                confirmed = yield ConfirmOver(uid=pod.uid, namespace=grant.namespace, name=pod.name)
                if confirmed:
                    over.add(pod.uid)
            elif known.phase == "ended":
                over.add(pod.uid)
    return frozenset(over)


def _held_by_owner(pool: Queue, queues: Iterable[Queue]) -> frozenset[str]:
    """Pods for which `pool` holds GPUs that it lent, and for which the borrower's own ledger holds GPUs too.

    Two leaders of different minds can grant one pod in both. The borrower's entry stays until the pod is over, so the pool's can go.
    """
    lent = {pod.uid: grant.owner for grant in pool.ledger if grant.owner for pod in grant.pods}
    own = {queue.name: {pod.uid for grant in queue.ledger if not grant.owner for pod in grant.pods} for queue in queues}
    return frozenset(uid for uid, owner in lent.items() if uid in own.get(owner, ()))


def _without_grant(pods: Iterable[SeenPod]) -> Generator[Effect, Any, list[SeenPod]]:
    """Those of the pods that no ledger names which wait, or which truly run: an old view may show a pod that is long over."""
    found = []
    for pod in pods:
        over = (yield ConfirmOver(uid=pod.uid, namespace=pod.namespace, name=pod.name)) if pod.phase == "open" else pod.phase == "ended"
        if not over:
            found.append(pod)
    return found


def _with_requests(queue: Queue, pods: Iterable[SeenPod]) -> Queue:
    """`queue` with what waits in it, and with what runs without a grant; `pods` are in no ledger."""
    own = [pod for pod in pods if pod.queue == queue.name]
    groups: dict[str, list[SeenPod]] = {}
    for pod in own:
        if pod.phase == "gated":
            groups.setdefault(pod.key, []).append(pod)
    found = tuple(_request(pod.uid, [pod]) for pod in own if pod.phase == "open")
    return replace(queue, waiting=tuple(_request(key, members) for key, members in groups.items()), found=found)


def _request(key: str, members: list[SeenPod]) -> Request:
    members = sorted(members, key=lambda pod: pod.uid)
    first = min(members, key=lambda pod: (pod.since, pod.name))
    limits = [pod.run_limit for pod in members if pod.run_limit is not None]
    return Request(
        key=key,
        namespace=first.namespace,
        name=first.name if first.group is None else first.group,
        lane=first.lane,
        pods=tuple(Pod(uid=pod.uid, gpus=pod.gpus, name=pod.name) for pod in members),
        since=first.since,
        size=first.size,
        sizes_agree=len({(pod.size, pod.lane) for pod in members}) == 1,
        run_limit=max(limits) if len(limits) == len(members) else None,
        blocked=next((pod.blocked for pod in members if pod.blocked), ""),
        family=first.family,
    )


def _open_gates(grants: Iterable[Grant], seen: Mapping[str, SeenPod]) -> Generator[Effect, Any, list[str]]:
    """Those of the granted pods that are still gated; their uids."""
    opened = []
    for uid in (pod.uid for grant in grants for pod in grant.pods):
        pod = seen.get(uid)
        if pod is not None and pod.phase == "gated":
            yield OpenGate(uid=uid, namespace=pod.namespace, name=pod.name)
            opened.append(uid)
    return opened
