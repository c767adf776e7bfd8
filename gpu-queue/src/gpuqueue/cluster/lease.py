"""Who leads: a Lease that one replica holds and renews.

It saves work, and keeps two replicas from telling people different things. Nothing that must never happen rests on it: the ledger's
compare-and-swap does that (`reconcile`). A replica that is stopped for a minute and wakes up believing to lead does no harm.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from gpuqueue.cluster.api import Api, decoded
from gpuqueue.cluster.pods import Meta
from gpuqueue.errors import Conflict, Gone, GpuQueueError

_MARGIN = 0.7
"""A leader that could not renew stops after this share of the time for which it holds the lease, before another can take it."""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    renew_time: str | None = None
    lease_duration_seconds: int | None = None
    lease_transitions: int | None = None
    acquire_time: str | None = None


class _Lease(msgspec.Struct):
    metadata: Meta
    spec: _Spec


class Leadership:
    """Takes part in the choice of a leader.

    Args:
        api: whom to ask.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this replica.
        seconds: for which a lease is held without being renewed; at least 2.
    """

    def __init__(self, api: Api, *, namespace: str, name: str, identity: str, seconds: float) -> None:
        self._api, self._identity, self._seconds = api, identity, seconds
        self._folder, self._name = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", name
        self._namespace = namespace
        self._renewed = -1e9
        self._rival: tuple[str, float] = ("", 0.0)
        """The version of somebody else's lease, and when we first saw it: their clock is not ours."""
        self.holder = ""
        """Who leads, as far as known."""
        self.trouble = ""

    @property
    def leading(self) -> bool:
        """Whether this replica leads."""
        return self.holder == self._identity and time.monotonic() - self._renewed < self._seconds * _MARGIN

    async def run(self) -> None:
        """Take part for ever."""
        while True:
            before = self.holder
            try:
                await self._attempt()
                self.trouble = ""
            except GpuQueueError as error:
                self.trouble = str(error)
            await asyncio.sleep(self._seconds / (4 if self.holder == self._identity or before != self.holder else 5))

    async def release(self) -> None:
        """Let another lead at once."""
        if self.holder != self._identity:
            return
        self.holder, self._renewed = "", -1e9
        try:
            lease = await self._read()
            if lease is not None and lease.spec.holder_identity == self._identity:
                await self._write(lease, holder="")
        except GpuQueueError as error:
            self.trouble = str(error)

    async def _attempt(self) -> None:
        started = time.monotonic()
        lease = await self._read()
        try:
            if lease is None or self._free(lease):
                await self._write(lease, holder=self._identity)
                self.holder, self._renewed = self._identity, started
            else:
                self.holder = lease.spec.holder_identity or ""
        except Conflict:
            self.holder = ""

    def _free(self, lease: _Lease) -> bool:
        if lease.spec.holder_identity in (self._identity, "", None):
            return True
        if self._rival[0] != lease.metadata.resource_version:
            self._rival = (lease.metadata.resource_version, time.monotonic())
        held = lease.spec.lease_duration_seconds or self._seconds
        return time.monotonic() - self._rival[1] > held

    async def _read(self) -> _Lease | None:
        try:
            return decoded(await self._api.request("GET", f"{self._folder}/{self._name}", seconds=self._seconds / 2), _Lease)
        except Gone:
            return None

    async def _write(self, lease: _Lease | None, *, holder: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        took_over = lease is None or lease.spec.holder_identity != holder
        transitions = 0 if lease is None else (lease.spec.lease_transitions or 0) + took_over
        acquired = now if took_over or lease is None else lease.spec.acquire_time
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        body: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata | ({"resourceVersion": lease.metadata.resource_version} if lease else {}),
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._seconds)),
                "acquireTime": acquired,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
        if lease is None:
            await self._api.request("POST", self._folder, body=body, seconds=self._seconds / 2)
        else:
            await self._api.request("PUT", f"{self._folder}/{self._name}", body=body, seconds=self._seconds / 2)
