"""Opening gates, and finding out beforehand whether they can be opened.

Some other policy or webhook of the cluster may refuse every update of a pod, ours too. A grant for such a pod would hold GPUs for nobody, so
before the first grant in a namespace under one set of admission rules the patch is tried without being done (`dryRun`); whoever refuses is named
to the person who waits. Rules that look at pods one by one can still surprise: then the grant stays, is tried again, and is reported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from gpuqueue.cluster.api import NOTHING, STRATEGIC, Api, Body
from gpuqueue.errors import Conflict, Gone, Refused, Unavailable
from gpuqueue.labels import GATE
from gpuqueue.reconcile import OpenGate, TryGate

MANAGER = "gpu-queue"
_AGAIN_SECONDS = 10.0
_TRIED_SECONDS = 30.0
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


@dataclass(slots=True)
class Gates:
    """Opens gates, several at a time.

    Args:
        api: the API server.
        parallel: how many at a time.
        done: is told of each gate what became of it.
    """

    api: Api
    parallel: asyncio.Semaphore
    done: Callable[[Opened], None]
    refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Uid -> when and how the API server refused to let its gate be opened."""
    _opening: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _tried: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Namespace, or uid -> the refusal (or nothing), and when it was tried."""

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
        now = time.monotonic()
        if what.namespace in self._tried:
            return ""
        known = self._tried.get(what.uid)
        if known and now - known[1] < _TRIED_SECONDS:
            return known[0]
        refusal = await self._try(what)
        self._tried[what.uid if refusal else what.namespace] = (refusal, now)
        return refusal

    def forget(self, uids: Iterable[str]) -> None:
        """These are of no interest any more."""
        for uid in uids:
            self.refused.pop(uid, None)
            self._tried.pop(uid, None)

    async def watch_rules(self, seconds: float = 30.0) -> None:
        """Forget what was tried whenever the cluster's admission rules change."""
        before: object = None
        while True:
            try:
                rules = [await self._rules(kind) for kind in _RULES]
            except Unavailable:
                rules = None
            if rules is not None and rules != before:
                before = rules
                self._tried.clear()
            await asyncio.sleep(seconds)

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
                await self._patch(what)
            except (Gone, Conflict, Unavailable):
                outcome = Opened(uid=what.uid)  # the next round sees what became of it
            except Refused as error:
                outcome = Opened(uid=what.uid, refusal=error.message)
                self.refused[what.uid] = (time.monotonic(), error.message)
                self._tried.pop(what.namespace, None)
            else:
                outcome = Opened(uid=what.uid)
                self.refused.pop(what.uid, None)
        self.done(outcome)

    async def _patch(self, what: OpenGate | TryGate, query: Mapping[str, str] = NOTHING) -> None:
        """Of exactly this pod: another one of the same name has another uid, and the API server refuses to change that."""
        body: Body = {"metadata": {"uid": what.uid}, "spec": {"schedulingGates": [{"$patch": "delete", "name": GATE}]}}
        path = f"/api/v1/namespaces/{what.namespace}/pods/{what.name}"
        await self.api.request("PATCH", path, body=body, content_type=STRATEGIC, query={"fieldManager": MANAGER, **query})
