"""Requests to the API server: JSON in, JSON out, every failure one of ours. Nothing here knows what a pod is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import msgspec

from gpuqueue.cluster.access import Access
from gpuqueue.errors import Conflict, Gone, Refused, Unavailable

STRATEGIC = "application/strategic-merge-patch+json"
SECONDS = 15.0
_CONNECTIONS = 64
_PAGE = 500
NOTHING: Mapping[str, str] = {}
_CODES: dict[int, type[Refused]] = {404: Gone, 409: Conflict, 410: Gone}

T = TypeVar("T")
Body = Mapping[str, Any] | Sequence[Mapping[str, Any]] | bytes | None
Noted = Callable[[str, str, int], None]
"""Told of each request: method, path, HTTP code (0: no answer)."""


class ListMeta(msgspec.Struct, rename="camel"):
    """Where a list was taken, and where its next page begins."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """A list, its items undecoded."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""


class Api:
    """An API server, as an asynchronous context manager."""

    def __init__(self, access: Access, *, agent: str = "gpuq", noted: Noted = lambda _method, _path, _code: None) -> None:
        self.access = access
        self._agent, self._noted = agent, noted
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=self.access.tls)
        self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": self._agent}, auto_decompress=True)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body = None,
        content_type: str = "application/json",
        seconds: float = SECONDS,
        query: Mapping[str, str] = NOTHING,
    ) -> bytes:
        """One request; returns the answer's body.

        Raises:
            Conflict: 409. Gone: 404 or 410. Refused: any other error of the server's, 5xx and 429 excepted.
            Unavailable: no answer in time, or one that means "later".
        """
        content = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        headers = await self.access.headers()
        if content is not None:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(
                method, self.access.server + path, params=query, data=content, headers=headers, timeout=timeout
            ) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._noted(method, path, 0)
            raise Unavailable(f"{self.access.server} did not answer {method} {path}: {error or type(error).__name__}") from error
        self._noted(method, path, answer.status)
        _raise_for(answer.status, text, f"{method} {path}")
        return text

    async def get(self, path: str, kind: type[T], query: Mapping[str, str] = NOTHING) -> T:
        """One object, decoded as `kind`."""
        return decoded(await self.request("GET", path, query=query), kind)

    async def pages(self, path: str, query: Mapping[str, str] = NOTHING) -> AsyncIterator[Page]:
        """A consistent list, page by page."""
        following = ""
        while True:
            more = {"continue": following} if following else {}
            page = await self.get(path, Page, {**query, "limit": str(_PAGE), **more})
            yield page
            following = page.metadata.continue_
            if not following:
                return

    async def watch(
        self, path: str, *, since: str, silence: float, lasting: float, query: Mapping[str, str] = NOTHING
    ) -> AsyncIterator[bytes]:
        """The lines of a watch: one event each.

        Args:
            path: of the collection.
            since: the resource version after which events are wanted.
            silence: seconds without a word, bookmarks included, after which the connection counts as dead.
            lasting: seconds after which the server is to end the watch.
            query: selectors.

        Raises:
            Gone: `since` is too old.
            Unavailable: the connection broke, or was silent for too long.
        """
        asked = {**query, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since, "timeoutSeconds": str(int(lasting))}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SECONDS, sock_read=silence)
        try:
            async with self._session.get(
                self.access.server + path, params=asked, headers=await self.access.headers(), timeout=timeout
            ) as answer:
                self._noted("WATCH", path, answer.status)
                if answer.status != 200:  # noqa: PLR2004 (OK)
                    _raise_for(answer.status, await answer.read(), f"WATCH {path}")
                rest = b""
                async for chunk in answer.content.iter_any():  # readline() has a limit that a pod can exceed
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._noted("WATCH", path, 0)
            raise Unavailable(f"the watch of {path} broke: {error or type(error).__name__}") from error


def decoded(text: bytes | msgspec.Raw, kind: type[T]) -> T:
    """`text` as `kind`.

    Raises:
        Unavailable: it is no JSON of that shape, so whoever sent it is not what it should be.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Unavailable(f"the answer is no {kind.__name__}: {error}") from error


def _raise_for(code: int, text: bytes, what: str) -> None:
    if code < 400:  # noqa: PLR2004 (not an error)
        return
    try:
        status = msgspec.json.decode(text, type=_Status)
    except msgspec.MsgspecError:
        status = _Status(message=text[:500].decode(errors="replace"))
    message = status.message or what
    if code >= 500 or code == 429:  # noqa: PLR2004 (broken or busy)
        raise Unavailable(f"{what}: {message} ({code})")
    raise _CODES.get(code, Refused)(code, status.reason, message)


async def backoff(attempt: int) -> None:
    """Wait before trying again: a quarter of a second, doubled each time up to eight, with jitter by the loop's own clock."""
    base = 0.25 * 2 ** min(attempt, 5)
    await asyncio.sleep(base * (0.75 + 0.5 * (asyncio.get_running_loop().time() % 1.0)))
