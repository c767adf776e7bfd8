"""Staying up to date with one kind of object: list, then watch, for ever.

What can go wrong with a watch does: it ends, breaks, falls silent with the connection still up, or is told that it asks for too old a
past (410). The first two go on where they stopped; silence is taken for death, since bookmarks come about every minute; the
last lists anew. And since a view that is wrong without knowing it is worse than one that is late, the list is taken again
now and then in any case, and what it corrects is reported.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

from gpuqueue.cluster.api import Api, ListMeta, backoff, decoded
from gpuqueue.errors import Gone, Refused, Unavailable

SILENCE = 90.0
LASTING = 270.0
CHECK_SECONDS = 600.0
_TOO_OLD = 410

T = TypeVar("T")
S_contra = TypeVar("S_contra", contravariant=True)


class Sink(Protocol[S_contra]):
    """What is told of changes."""

    def replace(self, things: Mapping[str, S_contra]) -> int:
        """All that there is, by uid; returns how many differ from what was held."""

    def put(self, thing: S_contra) -> None:
        """There is a new one, or it has changed."""

    def drop(self, thing: S_contra) -> None:
        """It is not in the watched set any more: deleted, or no longer selected."""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct):
    metadata: ListMeta


class _Failure(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class Follower(Generic[T]):
    """Keeps `sink` up to date with the objects of `path`.

    Args:
        api: whom to ask.
        path: of the collection, over all namespaces.
        read: makes of an object's JSON its uid, its version and what is kept of it.
        sink: is told.
        query: selectors.
        trouble: is told, in words, what went wrong; the follower goes on.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        *,
        read: Callable[[msgspec.Raw], tuple[str, str, T]],
        sink: Sink[T],
        query: dict[str, str] | None = None,
        trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api, self._path, self._read, self._sink = api, path, read, sink
        self._query, self._trouble = query or {}, trouble
        self.heard = -1e9
        """When the server last spoke (monotonic seconds)."""
        self.synced = False
        """Whether it has ever listed."""
        self.corrected = 0
        """Objects that lists taken as a check have corrected, beyond what changed meanwhile."""

    @property
    def age(self) -> float:
        """Seconds since the server last spoke."""
        return time.monotonic() - self.heard

    async def run(self) -> None:
        """Never returns."""
        attempt = 0
        while True:
            try:
                since, checked = await self._list(), time.monotonic()
                while time.monotonic() - checked < CHECK_SECONDS:
                    since = await self._watch(since)
                    attempt = 0
            except (Refused, Unavailable) as error:
                if not (isinstance(error, Gone) and error.code == _TOO_OLD):  # that happens, and is no trouble
                    self._trouble(f"{self._path}: {error}")
                await backoff(attempt)
                attempt += 1

    async def _list(self) -> str:
        found: dict[str, T] = {}
        since = ""
        async for page in self._api.pages(self._path, self._query):
            since = page.metadata.resource_version
            for item in page.items or ():
                if read := self._readable(item):
                    found[read[0]] = read[2]
        differing = self._sink.replace(found)
        if self.synced:
            self.corrected += differing
        self.synced, self.heard = True, time.monotonic()
        return since

    async def _watch(self, since: str) -> str:
        """Follow from `since` until the server ends the watch or the connection does; returns from where to go on."""
        lasting = LASTING * random.uniform(0.8, 1.2)  # noqa: S311 (so that not every watch ends at once)
        failed = 0
        while True:
            try:
                async for line in self._api.watch(self._path, since=since, silence=SILENCE, lasting=lasting, query=self._query):
                    since, failed = self._heard(line, since), 0
            except Unavailable as error:
                self._trouble(str(error))
                await backoff(failed)
                failed += 1
            else:
                return since

    def _heard(self, line: bytes, since: str) -> str:
        self.heard = time.monotonic()
        event = decoded(line, _Event)
        if event.type == "ERROR":
            failure = decoded(event.object, _Failure)
            if failure.code == _TOO_OLD:
                raise Gone(failure.code, failure.reason, failure.message)
            raise Unavailable(f"the watch of {self._path} was ended: {failure.message}")
        if event.type == "BOOKMARK":
            return decoded(event.object, _Versioned).metadata.resource_version
        read = self._readable(event.object)
        if read is None:
            return since
        _, version, thing = read
        if event.type == "DELETED":
            self._sink.drop(thing)
        else:
            self._sink.put(thing)
        return version

    def _readable(self, item: msgspec.Raw) -> tuple[str, str, T] | None:
        """What is kept of an object; None, and a word about it, if it has not the shape that it should have."""
        try:
            return self._read(item)
        except (msgspec.MsgspecError, ValueError) as error:
            self._trouble(f"{self._path}: left out an object that cannot be read: {error}")
            return None
