"""Opening gates, and finding out beforehand whether they can be opened.

Some other policy or webhook of the cluster may refuse every update of a pod, ours too. A grant for such a pod would hold GPUs for nobody, so
before the first grant in a namespace under one set of admission rules the patch is tried without being done (`dryRun`); whoever refuses is named
to the person who waits. Rules that look at pods one by one can still surprise: then the grant stays, is tried again, and is reported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

import msgspec

from gpuqueue.cluster.api import NOTHING, STRATEGIC, Api, Body
from gpuqueue.errors import Conflict, Gone, Refused, Unavailable
from gpuqueue.labels import GATE
from gpuqueue.reconcile import OpenGate, TryGate

MANAGER = "gpu-queue"
_AGAIN_SECONDS = 10.0
_ADMISSION = "/apis/admissionregistration.k8s.io/v1/"
_RULES = (
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
)


class _Identity(msgspec.Struct):
    uid: str
    generation: int = 0


class _Rule(msgspec.Struct):
    metadata: _Identity


class _Rules(msgspec.Struct):
    items: list[_Rule] | None = None


@dataclass(slots=True, kw_only=True)
class Opened:
    """What became of a gate."""

    uid: str
    refusal: str = ""
    """Who refused, in their words; empty if it is open, or the pod is not what it was."""
    pod: bytes = b""
    """The pod as the API server answered, if the gate is open."""


@dataclass(slots=True)
class Gates:
    """Opens gates, several at a time.

    Args:
        api: the API server.
        parallel: how many at a time.
        done: is told of each gate what became of it.
        blocked: is told who would refuse, by uid, and with an empty text that nobody would any more.
    """

    api: Api
    parallel: asyncio.Semaphore
    done: Callable[[Opened], None]
    blocked: Callable[[str, str], None]
    refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Uid -> when and how the API server refused to let its gate be opened."""
    _opening: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _passed: set[str] = field(default_factory=set)
    """Namespaces in which a trial has passed under the present rules."""
    _failed: dict[str, TryGate] = field(default_factory=dict)
    """By uid: pods whose trial has not."""

    def open(self, what: OpenGate) -> None:
        """Begin to open a gate, unless that is under way or was refused just now."""
        refused = self.refused.get(what.uid)
        if what.uid in self._opening or (refused and time.monotonic() - refused[0] < _AGAIN_SECONDS):
            return
        task = asyncio.create_task(self._open(what))
        self._opening[what.uid] = task
        task.add_done_callback(lambda _: self._opening.pop(what.uid, None))

    async def settled(self) -> None:
        """Return when no gate is being opened."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)

    async def trial(self, what: TryGate) -> str:
        """Who would refuse, in their words; empty if nobody does."""
        if what.namespace in self._passed:
            return ""
        refusal = await self._try(what)
        if refusal:
            self._failed[what.uid] = what
            self.blocked(what.uid, refusal)
        else:
            self._passed.add(what.namespace)
        return refusal

    def refusal(self, uid: str) -> str:
        """Who refused to let this pod's gate be opened after it was granted, as far as known."""
        return self.refused.get(uid, (0.0, ""))[1]

    def forget(self, present: Container[str]) -> None:
        """Keep no notes about pods that are gone."""
        self.refused = {uid: known for uid, known in self.refused.items() if uid in present}
        self._failed = {uid: known for uid, known in self._failed.items() if uid in present}

    async def watch_rules(self, seconds: float = 15.0) -> None:
        """Forget what was tried whenever the cluster's admission rules change, and try those again that failed."""
        before: object = None
        while True:
            await asyncio.sleep(seconds)
            try:
                rules = [await self._rules(kind) for kind in _RULES]
                if rules != before:
                    before = rules
                    self._passed.clear()
                for what in list(self._failed.values()):
                    refusal = await self._try(what)
                    if not refusal:
                        self._failed.pop(what.uid, None)
                    self.blocked(what.uid, refusal)
            except Unavailable:
                continue

    async def _rules(self, kind: str) -> list[tuple[str, int]]:
        try:
            listed = await self.api.get(_ADMISSION + kind, _Rules, {"resourceVersion": "0"})
        except Refused:  # a kind that this cluster has not, or that we may not see
            return []
        return sorted((rule.metadata.uid, rule.metadata.generation) for rule in listed.items or ())

    async def _try(self, what: TryGate) -> str:
        try:
            await self._patch(what, {"dryRun": "All"})
        except (Gone, Conflict):
            return ""
        except Refused as error:
            return "" if "dry run" in error.message else error.message
        except Unavailable as error:
            if "failed calling webhook" in str(error):
                return str(error)
            raise
        return ""

    async def _open(self, what: OpenGate) -> None:
        async with self.parallel:
            try:
                pod = await self._patch(what)
            except (Gone, Conflict, Unavailable):
                outcome = Opened(uid=what.uid)  # the next round sees what became of it
            except Refused as error:
                outcome = Opened(uid=what.uid, refusal=error.message)
                self.refused[what.uid] = (time.monotonic(), error.message)
                self._passed.discard(what.namespace)
            else:
                outcome = Opened(uid=what.uid, pod=pod)
                self.refused.pop(what.uid, None)
        self.done(outcome)

    async def _patch(self, what: OpenGate | TryGate, query: Mapping[str, str] = NOTHING) -> bytes:
        """Of exactly this pod: another one of the same name has another uid, and the API server refuses to change that."""
        body: Body = {"metadata": {"uid": what.uid}, "spec": {"schedulingGates": [{"$patch": "delete", "name": GATE}]}}
        path = f"/api/v1/namespaces/{what.namespace}/pods/{what.name}"
        return await self.api.request("PATCH", path, body=body, content_type=STRATEGIC, query={"fieldManager": MANAGER, **query})
