"""Round after round: what has been heard goes into `reconcile`, and what that asks for is done.

A round starts when something was heard, or after a while in any case. It may fail at any point; the next one begins anew from what is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from gpuqueue.cluster import gpu_queues, pods
from gpuqueue.cluster.api import Api, decoded
from gpuqueue.cluster.gpu_queues import Policy, WaitingField
from gpuqueue.cluster.view import View
from gpuqueue.controller.gates import Gates
from gpuqueue.errors import Conflict, Gone
from gpuqueue.queue import Grant, Queue
from gpuqueue.reconcile import ConfirmOver, Effect, OpenGate, ReadLedger, Report, TryGate, WriteLedger, reconcile

_ALIVE_SECONDS = 5.0
"""How long the answer that a pod is not over is good: keeping its grant for that long is safe."""
_FREE_SECONDS = 3.0
"""How long a write that only takes out what has ended waits for one that lets somebody in: the two are then one write."""
_SUMMARY_SECONDS = 10.0
"""How often the figures of the line in a queue's status are written when the ledger does not change."""


class Rounds:
    """Performs rounds.

    Args:
        api: the API server.
        view: what has been heard.
        gates: opens gates.
        written: is told of each ledger that was written: the policy as it was and as it is now.
        conflicted: is told of each queue whose ledger somebody else had written.
        later: is told of each queue that is due for a round, and in how many seconds.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        api: Api,
        view: View,
        gates: Gates,
        *,
        written: Callable[[Policy, Policy], None] = lambda _before, _after: None,
        conflicted: Callable[[str], None] = lambda _queue: None,
        later: Callable[[str, float], None] = lambda _queue, _seconds: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api, self._view, self._gates, self._clock = api, view, gates, clock
        self._written, self._conflicted, self._later = written, conflicted, later
        self._alive: dict[str, float] = {}
        """Uids that the server said are not over, and when."""
        self._over: set[str] = set()
        """Uids that the server said are over, for as long as a ledger names them."""
        self._frees: dict[str, float] = {}
        """Queue -> since when (monotonic) something could be taken out of its ledger."""
        self.over_since: dict[str, float] = {}
        """Key of a grant that is over and still in a ledger -> when that was noticed."""
        self._lines: dict[str, WaitingField] = {}
        self._summarized: dict[str, tuple[WaitingField, float]] = {}

    async def once(self, names: Collection[str]) -> Report:
        """One round over these queues, among which are all that they lend to and borrow from.

        Raises:
            Unavailable, Refused: the API server did not do what was needed; nothing is lost.
        """
        now = self._clock()
        conversation = reconcile(self._view.queues(now, names), self._view.seen(names), now)
        answer: Any = None
        while True:
            try:
                effect = conversation.send(answer)
            except StopIteration as end:
                report: Report = end.value
                break
            answer = await self._perform(effect, now)
        self._lines |= {queue.name: line_of(queue, report.outcomes[queue.name].ledger) for queue in report.queues}
        for queue in report.conflicts:
            self._conflicted(queue)
            await self._read_again(queue)
        return report

    async def summarize(self, names: Collection[str]) -> None:
        """Write the figures of lines that have changed, where no ledger write has carried them lately."""
        for name in names:
            line = self._lines.get(name)
            policy = self._view.policies.get(name)
            last, at = self._summarized.get(name, (None, 0.0))
            if (
                line is None
                or policy is None
                or line == (last or policy.status.queue or WaitingField())
                or time.monotonic() - at < _SUMMARY_SECONDS
            ):
                continue
            await self._write(policy, policy.grants, self._clock())

    async def _perform(self, effect: Effect, now: float) -> Any:
        match effect:
            case ReadLedger(queue=name):
                return self._view.ledger(name)
            case ConfirmOver(uid=uid, namespace=namespace, name=name):
                return await self._is_over(uid, namespace, name)
            case TryGate():
                return await self._gates.trial(effect)
            case WriteLedger():
                return await self._write_ledger(effect, now)
            case OpenGate(uid=uid):
                known = self._view.pods.get(uid)
                if known is None or known.phase == "gated":  # it may have been opened since the round began
                    self._gates.open(effect)
        return None

    async def _write_ledger(self, effect: WriteLedger, now: float) -> bool | None:
        policy = self._view.policies.get(effect.queue)
        if policy is None or policy.version != effect.version:
            return False
        if effect.only_frees and self._can_wait(policy, effect.grants, now):
            return None
        written = await self._write(policy, effect.grants, now)
        if written:
            self._frees.pop(effect.queue, None)
        return written

    def _can_wait(self, policy: Policy, grants: tuple[Grant, ...], now: float) -> bool:
        """Whether all but these may stay in the ledger for now, though they are over. A round is due when they may no longer."""
        kept = {grant.key for grant in grants}
        for grant in policy.grants:
            if grant.key not in kept:
                self.over_since.setdefault(grant.key, now)
        if policy.name not in self._frees:
            self._frees[policy.name] = time.monotonic()
            self._later(policy.name, _FREE_SECONDS)
        return time.monotonic() - self._frees[policy.name] < _FREE_SECONDS

    async def _is_over(self, uid: str, namespace: str, name: str) -> bool:
        if uid in self._over:
            return True
        if time.monotonic() - self._alive.get(uid, -1e9) < _ALIVE_SECONDS:
            return False
        try:
            pod = decoded(await self._api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}"), pods.PodObject)
        except Gone:
            self._over.add(uid)
            return True
        if pod.metadata.uid != uid or pods.over(pod):
            self._alive.pop(uid, None)
            self._over.add(uid)
            return True
        self._alive[uid] = time.monotonic()
        return False

    async def _write(self, policy: Policy, grants: tuple[Grant, ...], now: float) -> bool:
        line = self._lines.get(policy.name)
        body = gpu_queues.status_body(policy, grants, line, now, self.over_since)
        try:
            text = await self._api.request("PUT", f"{gpu_queues.PATH}/{policy.name}/status", body=body)
        except (Conflict, Gone):
            return False
        after = gpu_queues.read(text)
        self._view.put_policy(after)
        if line is not None:
            self._summarized[policy.name] = (line, time.monotonic())
        self._written(policy, after)
        return True

    async def _read_again(self, name: str) -> None:
        """Somebody wrote the ledger: do not wait for the watch to tell."""
        try:
            self._view.put_policy(gpu_queues.read(await self._api.request("GET", f"{gpu_queues.PATH}/{name}")))
        except (Gone, msgspec.MsgspecError):
            return

    def forget_the_gone(self) -> None:
        """Keep no notes about pods that nobody speaks of."""
        limit = time.monotonic() - 2 * _ALIVE_SECONDS
        self._alive = {uid: at for uid, at in self._alive.items() if at > limit}
        held = [grant for policy in self._view.policies.values() for grant in policy.grants]
        self._over &= {pod.uid for grant in held for pod in grant.pods}
        keys = {grant.key for grant in held}
        self.over_since = {key: since for key, since in self.over_since.items() if key in keys}
        self._frees = {name: since for name, since in self._frees.items() if name in self._view.policies}


def line_of(queue: Queue, ledger: Iterable[Grant]) -> WaitingField:
    """What a queue's status says about its line, once `ledger` is written."""
    held = {grant.key for grant in ledger}
    waiting = [request for request in queue.waiting if request.key not in held]
    since = min((request.since for request in waiting), default=None)
    return WaitingField(
        waiting=len(waiting),
        gpus_waiting=sum(request.gpus for request in waiting),
        head_since="" if since is None else gpu_queues.stamp(since),
    )
