"""What has run, kept where the next leader finds it: lines of `history` in ConfigMaps, one or a few for each day.

No volume, no database: a grant that has ended is a line of about a hundred bytes, and a ConfigMap holds thousands. The figures that must be
exact (GPU time spent) are in the ledger's own writes; a leader that is killed loses the lines of its last half minute, and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from gpuqueue.cluster.api import Api, decoded
from gpuqueue.cluster.pods import Meta
from gpuqueue.errors import Conflict, Gone
from gpuqueue.history import Past, line_of, read_history
from gpuqueue.labels import DOMAIN

HISTORY = f"{DOMAIN}/history"
"""Label of the ConfigMaps; its value is the day."""
_PREFIX = "gpu-queue-history-"
_KEY = "pasts"
_FULL_BYTES = 800_000
"""A ConfigMap holds a mebibyte."""
_MOST_PENDING = 50_000
_AT_ONCE = 500
"""Lines of one write: the longest of so many fit into an empty ConfigMap."""


class ConfigMap(msgspec.Struct):
    """The part of a ConfigMap that is read."""

    metadata: Meta
    data: dict[str, str] | None = None


class Archive:
    """The history of a release of the queue.

    Args:
        api: the API server.
        namespace: of the ConfigMaps.
        days: how long lines are kept.
        clock: seconds since the epoch.
    """

    def __init__(self, api: Api, *, namespace: str, days: int, clock: Callable[[], float] = time.time) -> None:
        self._api, self._days, self._clock = api, days, clock
        self._namespace = namespace
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._pending: list[Past] = []

    def add(self, pasts: Iterable[Past]) -> None:
        """To be written with the next `flush`."""
        self._pending = [*self._pending, *pasts][-_MOST_PENDING:]

    async def load(self) -> list[Past]:
        """All that is kept, oldest day first.

        Raises:
            Unavailable, Refused: it cannot be read.
        """
        found: list[tuple[str, str]] = []
        async for page in self._api.pages(self._path, {"labelSelector": HISTORY}):
            for item in page.items or ():
                kept = decoded(item, ConfigMap)
                found.append((kept.metadata.name, (kept.data or {}).get(_KEY, "")))
        return [past for _, text in sorted(found) for past in read_history(text.splitlines()).pasts]

    async def flush(self) -> int:
        """Write what is pending; returns how many lines.

        Raises:
            Unavailable, Refused: it could not be written; it stays pending.
        """
        written, batch = 0, list(self._pending)
        days: dict[str, list[Past]] = {}
        for past in batch:
            days.setdefault(_day(past.ended), []).append(past)
        for day, pasts in days.items():
            for first in range(0, len(pasts), _AT_ONCE):
                part = pasts[first : first + _AT_ONCE]
                await self._append(day, [line_of(past) for past in part])
                done = set(map(id, part))
                self._pending = [past for past in self._pending if id(past) not in done]
                written += len(part)
        return written

    async def expire(self) -> None:
        """Delete what is older than the days that are kept."""
        oldest = _day(self._clock() - timedelta(days=self._days).total_seconds())
        async for page in self._api.pages(self._path, {"labelSelector": HISTORY}):
            for item in page.items or ():
                meta = decoded(item, ConfigMap).metadata
                if (meta.labels or {}).get(HISTORY, oldest) < oldest:
                    await self._delete(meta.name)

    async def _append(self, day: str, lines: Sequence[str]) -> None:
        """Lines that are there already came with a write whose answer was lost."""
        number = 0
        while True:
            name = f"{_PREFIX}{day}-{number}"
            held = await self._read(name)
            before = (held.data or {}).get(_KEY, "") if held else ""
            present = set(before.splitlines())
            lines = [line for line in lines if line not in present]
            text = "".join(line + "\n" for line in lines)
            if before and len(before.encode()) + len(text.encode()) > _FULL_BYTES:
                number += 1
                continue
            try:
                await self._write(name, day, held, before + text)
            except Conflict:
                continue
            return

    async def _read(self, name: str) -> ConfigMap | None:
        try:
            return await self._api.get(f"{self._path}/{name}", ConfigMap)
        except Gone:
            return None

    async def _write(self, name: str, day: str, held: ConfigMap | None, text: str) -> None:
        version = {"resourceVersion": held.metadata.resource_version} if held else {}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self._namespace, "labels": {HISTORY: day}, **version},
            "data": {_KEY: text},
        }
        if held is None:
            await self._api.request("POST", self._path, body=body)
        else:
            await self._api.request("PUT", f"{self._path}/{name}", body=body)

    async def _delete(self, name: str) -> None:
        try:
            await self._api.request("DELETE", f"{self._path}/{name}")
        except Gone:
            return


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
