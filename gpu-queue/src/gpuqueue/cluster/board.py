"""The whole picture at one moment: who holds what, who waits where and why. The page, the API, `gpuq` and the conditions all read it.

It comes from the very conversation that the controller has (`reconcile`), performed without doing anything: so it says what the next round
would find, on the leader, on its standby, and on the laptop of somebody who types `gpuq why`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gpuqueue.cluster.gpu_queues import Policy
from gpuqueue.cluster.pods import Facts
from gpuqueue.cluster.view import View
from gpuqueue.decide import decide
from gpuqueue.queue import Grant, Queue, Request, Wait
from gpuqueue.reconcile import ConfirmOver, Effect, OpenGate, ReadLedger, Report, TryGate, WriteLedger, converse, reconcile
from gpuqueue.words import Known, message

_UNOPENED_SECONDS = 60.0

Starts = Mapping[str, tuple[float, float]]
"""Key -> when it is expected to start: as likely as not, and nine times out of ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One request that waits."""

    queue: str
    request: Request
    wait: Wait


@dataclass(frozen=True, kw_only=True)
class Board:
    """The picture."""

    now: float
    policies: Mapping[str, Policy]
    queues: Mapping[str, Queue]
    """With ledgers as they would be after the next round."""
    lines: Mapping[str, Line]
    """By key, in the order of the lines."""
    starts: Starts = field(default_factory=dict)

    @cached_property
    def by_pod(self) -> dict[str, Line]:
        """By the uid of each pod that waits."""
        return {pod.uid: line for line in self.lines.values() for pod in line.request.pods}

    @cached_property
    def grants(self) -> dict[str, tuple[str, Grant]]:
        """By the uid of each pod that may run: the queue in whose ledger it is, and its grant."""
        return {pod.uid: (name, grant) for name, queue in self.queues.items() for grant in queue.ledger for pod in grant.pods}

    @cached_property
    def names(self) -> dict[str, Request]:
        """Those that wait, by key."""
        return {key: line.request for key, line in self.lines.items()}

    @cached_property
    def by_queue(self) -> dict[str, list[Line]]:
        """Those that wait, by queue, in the order of the lines."""
        found: dict[str, list[Line]] = {name: [] for name in self.queues}
        for line in self.lines.values():
            found[line.queue].append(line)
        return found

    @cached_property
    def _known(self) -> dict[str, Known]:
        """What the sentences of each queue have in common."""
        return {
            name: Known(
                queue=queue,
                now=self.now,
                kinds={lane.name: lane.match for lane in self.policies[name].spec.lanes},
                budget_ends=self.policies[name].period(self.now).end,
                names=self.names,
            )
            for name, queue in self.queues.items()
        }

    def message(self, line: Line) -> str:
        """What is said to one that waits."""
        return message(line.wait, replace(self._known[line.queue], starts=self.starts.get(line.request.key)))

    def unopened(self, pods: Mapping[str, Facts]) -> list[tuple[str, Grant]]:
        """Grants of which a pod's gate is still shut a minute after the grant, with the queues in whose ledgers they are."""
        return [
            (name, grant)
            for name, queue in self.queues.items()
            for grant in queue.ledger
            if self.now - grant.at > _UNOPENED_SECONDS
            and any((pod := pods.get(each.uid)) is not None and pod.phase == "gated" for each in grant.pods)
        ]


def board(view: View, now: float, *, starts: Starts | None = None) -> Board:
    """The picture of a view.

    Args:
        view: what has been heard.
        now: the moment.
        starts: when those that wait are expected to start, as far as anybody knows.
    """
    report = _rehearse(view, now)
    outcomes = decide(report.queues, now)
    lines = {
        wait.key: Line(queue=queue.name, request=request, wait=wait)
        for queue in report.queues
        for requests in [{request.key: request for request in queue.waiting}]
        for wait in outcomes[queue.name].waits
        if (request := requests.get(wait.key)) is not None
    }
    queues = {queue.name: _after(queue, outcomes[queue.name].ledger) for queue in report.queues}
    return Board(now=now, policies=dict(view.policies), queues=queues, lines=lines, starts=starts or {})


def _after(queue: Queue, ledger: tuple[Grant, ...]) -> Queue:
    held = {grant.key for grant in ledger}
    return replace(queue, ledger=ledger, waiting=tuple(request for request in queue.waiting if request.key not in held))


def _rehearse(view: View, now: float) -> Report:
    """A round in which nothing is asked of anybody and nothing is written."""

    def answer(effect: Effect) -> Any:
        match effect:
            case ReadLedger(queue=name):
                return view.ledger(name)
            case TryGate():
                return ""
            case ConfirmOver() | WriteLedger():
                return False
            case OpenGate():
                return None

    return converse(reconcile(view.queues(now), view.seen(), now), answer)
