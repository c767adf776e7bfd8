"""One HTTP/1.1 connection to a model server, with one request under way at a time. `rest_backend` has them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

import httptools

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint
    from mlserving.gateway.rest_backend import RestPool

_MOST_HEAD = 65_536
_CONTINUE = 200  # answers below are interim ones


class RestAnswer:
    """What a model server answered."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status, self.fields, self.body = status, fields, body

    @property
    def code(self) -> str:
        """The status."""
        return str(self.status)

    @property
    def good(self) -> bool:
        """A prediction."""
        return self.status == 200  # noqa: PLR2004  HTTP's OK

    @property
    def elsewhere(self) -> bool:
        """A server that is going, or whose queue is full."""
        return self.status == 503  # noqa: PLR2004  HTTP's Service Unavailable


class Waiting(Protocol):
    """Who waits for an answer."""

    upstream: object

    def wire(self, endpoint: Endpoint) -> bytes:
        """The request to write."""

    def on_answer(self, answer: RestAnswer) -> None:
        """It came."""

    def on_lost(self, *, sent: bool, why: str) -> None:
        """It will not come."""

    def hold(self, size: int) -> bool:
        """Count bytes of the answer; False where there are too many."""

    def on_too_much(self) -> None:
        """There are."""


class RestLink(asyncio.Protocol):
    """One connection to a model server."""

    transport: asyncio.Transport

    def __init__(self, pool: RestPool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: Waiting | None = None
        self.idle_since = 0.0
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is said before there is a request."""
        self.transport = cast("asyncio.Transport", transport)

    def start(self, waiting: Waiting, endpoint: Endpoint) -> None:
        """Send a request."""
        self._waiting = waiting
        waiting.upstream = self
        self.transport.write(waiting.wire(endpoint))

    def withdraw(self) -> None:
        """HTTP/1.1 can only be told by closing that nobody waits."""
        if self._waiting is not None:
            self._waiting = None
            self.transport.abort()

    def _begin(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._headed = False
        self._size = self._status = 0
        self._whole = self._unasked = self._keep = False

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        if self._waiting is None:
            self.transport.abort()
            return
        self._size += len(data)
        if not self._headed and self._size > _MOST_HEAD + len(data):
            self._fail("an answer's headers do not end")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the model server's answer is no HTTP ({error})")
            return
        if self._whole:  # not before all bytes are read: the parser must be done before the next request begins
            self._complete(keep=self._keep and not self._unasked)

    def connection_lost(self, error: Exception | None) -> None:
        """An answer without a length ends like this; any other is lost."""
        self._pool.leave(self)
        self._end(error)
        self._begin()
        del self._parser  # which holds us: with it, nothing of this would go before the garbage collector came

    def _end(self, error: Exception | None) -> None:
        if self._waiting is None:
            return
        if self._headed and error is None and not any(name in {b"content-length", b"transfer-encoding"} for name, _ in self._fields):
            self._status = self._parser.get_status_code()
            self._complete(keep=False)
            return
        self._pool.lost()
        waiting, self._waiting = self._waiting, None
        waiting.upstream = None
        waiting.on_lost(sent=True, why=f"the connection to the model server was lost ({error or 'closed'})")

    # -- what the parser tells --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins. A second one is to a question that nobody asked."""
        self._unasked = self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if self._unasked:
            return
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._headed = True

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._waiting is None or self._unasked:
            return
        self._chunks.append(data)
        if not self._waiting.hold(len(data)):
            waiting, self._waiting = self._waiting, None
            waiting.upstream = None
            self.transport.abort()
            waiting.on_too_much()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._unasked:
            return
        self._status = self._parser.get_status_code()
        if self._status < _CONTINUE:
            self._fields, self._chunks, self._headed = [], [], False
            return
        self._whole, self._keep = True, self._parser.should_keep_alive()  # which the parser knows only here

    def _complete(self, *, keep: bool) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        waiting.upstream = None
        chunks = self._chunks
        answer = RestAnswer(self._status, self._fields, chunks[0] if len(chunks) == 1 else b"".join(chunks))
        self._begin()
        if keep:
            self._pool.take_back(self)
        else:
            self._pool.leave(self)
            self.transport.close()
        waiting.on_answer(answer)

    def _fail(self, why: str) -> None:
        waiting, self._waiting = self._waiting, None
        self.transport.abort()
        if waiting is not None:
            waiting.upstream = None
            waiting.on_lost(sent=True, why=why)
