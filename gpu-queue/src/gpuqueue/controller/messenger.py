"""Tells people: pod conditions and events, within a budget of writes a second, and never in the way of a grant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from gpuqueue.cluster.api import STRATEGIC, Api, Body
from gpuqueue.cluster.gpu_queues import stamp
from gpuqueue.cluster.pods import Facts
from gpuqueue.errors import Conflict, Gone, GpuQueueError
from gpuqueue.labels import CONDITION, DOMAIN
from gpuqueue.telling import Note, due
from gpuqueue.words import place_in

_BURST_SECONDS = 4.0
_CONTROLLER = f"{DOMAIN}/controller"
_MESSAGE_LIMIT = 1000


class Budget:
    """So many writes a second, some of them saved up (a token bucket)."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = per_second, clock
        self._saved, self._at = per_second * _BURST_SECONDS, clock()

    def take(self) -> bool:
        """Whether one more is allowed now."""
        now = self._clock()
        self._saved = min(self._rate * _BURST_SECONDS, self._saved + (now - self._at) * self._rate)
        self._at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Messenger:
    """Writes conditions and events.

    Args:
        api: the API server.
        identity: of this replica; events name it.
        budget: of writes.
        top: how far from the front moving up is told.
        surface: give conditions of waiting pods the reason that Argo shows.
        events: write events too.
        told: is called with `condition` or `event` for each write.
        trouble: is told, in words, what could not be written.
    """

    def __init__(
        self,
        api: Api,
        *,
        identity: str,
        budget: Budget,
        top: int,
        surface: bool,
        events: bool,
        told: Callable[[str], None],
        trouble: Callable[[str], None],
    ) -> None:
        self._api, self._identity, self._budget = api, identity, budget
        self._top, self._surface, self._events, self._told, self._trouble = top, surface, events, told, trouble
        self._sent: dict[str, str] = {}
        """Uid -> the message that was sent last: the watch takes a moment to show it."""

    async def tell(self, notes: Iterable[Note]) -> None:
        """Tell as many as the budget allows, the most urgent first."""
        for note in due((note for note in notes if self._sent.get(note.uid) != note.message), self._top):
            if not self._budget.take():
                return
            await self._condition(note)
            if self._events and (note.last is None or note.admitted) and self._budget.take():
                await self._event(_pod_reference(note), "Granted" if note.admitted else "Waiting", note.message, warning=False)

    def forget(self, present: Mapping[str, Facts]) -> None:
        """Keep no notes about pods that are gone, nor of what the pod itself shows by now."""
        self._sent = {
            uid: text
            for uid, text in self._sent.items()
            if (pod := present.get(uid)) is not None and (pod.told is None or pod.told.message != text)
        }

    async def about_queue(self, name: str, uid: str, reason: str, text: str) -> None:
        """An event on a GpuQueue: something that its owner should mend."""
        reference = {"apiVersion": f"{DOMAIN}/v1", "kind": "GpuQueue", "name": name, "uid": uid}
        if self._budget.take():
            await self._event(reference, reason, text, warning=True)

    async def about_pod(self, namespace: str, name: str, uid: str, reason: str, text: str) -> None:
        """A warning on a pod, whatever the budget: these are few."""
        reference = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}
        await self._event(reference, reason, text, warning=True)

    async def _condition(self, note: Note) -> None:
        reason = "Admitted" if note.admitted else "Unschedulable" if self._surface else place_in(note.message)[0] or "Waiting"
        condition = {
            "type": CONDITION,
            "status": "True" if note.admitted else "False",
            "reason": reason,
            "message": note.message[:_MESSAGE_LIMIT],
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        body: Body = {"metadata": {"uid": note.uid}, "status": {"conditions": [condition]}}
        path = f"/api/v1/namespaces/{note.namespace}/pods/{note.name}/status"
        self._sent[note.uid] = note.message
        if await self._write("PATCH", path, body, STRATEGIC):
            self._told("condition")
        else:
            self._sent.pop(note.uid, None)

    async def _event(self, regarding: dict[str, Any], reason: str, text: str, *, warning: bool) -> None:
        now = time.time()
        namespace = regarding.get("namespace", "default")
        body: Body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{regarding['name'][:200]}.{time.time_ns():x}", "namespace": namespace},
            "eventTime": stamp(now),
            "action": reason,
            "reason": reason,
            "regarding": regarding,
            "note": text[:_MESSAGE_LIMIT],
            "type": "Warning" if warning else "Normal",
            "reportingController": _CONTROLLER,
            "reportingInstance": self._identity[:128],
        }
        if await self._write("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body, "application/json"):
            self._told("event")

    async def _write(self, method: str, path: str, body: Body, content_type: str) -> bool:
        """Whether it was written; what could not be told is told another time, or is there for the asking."""
        try:
            await asyncio.shield(self._api.request(method, path, body=body, content_type=content_type))
        except (Gone, Conflict):
            return False
        except GpuQueueError as error:
            self._trouble(f"telling: {error}")
            return False
        return True


def _pod_reference(note: Note) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "namespace": note.namespace, "name": note.name, "uid": note.uid}
