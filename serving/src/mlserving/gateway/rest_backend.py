"""HTTP/1.1 towards a model server: connections that are kept, each with one request under way."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from mlserving.gateway.grpc_backend import CONNECT_SECONDS

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint

_CONNECTIONS = 512
_IDLE_SECONDS = 20.0  # a kept connection that is older is not trusted
_MOST_HEAD = 65_536
_CONTINUE = 200  # answers below are interim ones
_OWN_PROBE_BYTES = 2**20


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
        self._waiting: Waiting | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is said before there is a request."""
        self.transport = cast("asyncio.Transport", transport)

    def start(self, waiting: Waiting, endpoint: Endpoint) -> None:
        """Send a request."""
        self._waiting = waiting
        waiting.upstream = self
        self._begin()
        self.transport.write(waiting.wire(endpoint))

    def withdraw(self) -> None:
        """HTTP/1.1 can only be told by closing that nobody waits."""
        if self._waiting is not None:
            self._waiting = None
            self.transport.abort()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
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
        answer = RestAnswer(self._status, self._fields, b"".join(self._chunks))
        self._fields, self._chunks = [], []
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


class QueuedRest:
    """Where a request waits that has no connection yet."""

    __slots__ = ("pool", "waiting")

    def __init__(self, waiting: Waiting, pool: RestPool) -> None:
        self.waiting, self.pool = waiting, pool

    def withdraw(self) -> None:
        """Do not wait any more."""
        self.pool.unqueue(self)


class RestPool:
    """The connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, host: str, port: int) -> None:
        self._endpoint, self._host, self._port = endpoint, host, port
        self._idle: list[RestLink] = []
        self._links: set[RestLink] = set()
        self._queue: deque[QueuedRest] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def send(self, waiting: Waiting) -> None:
        """Send a request on a connection that is free, or on a new one."""
        while self._idle:
            link = self._idle.pop()
            if link.transport.is_closing() or time.monotonic() - link.idle_since > _IDLE_SECONDS:
                link.transport.close()
                continue
            link.start(waiting, self._endpoint)
            return
        queued = QueuedRest(waiting, self)
        waiting.upstream = queued
        self._queue.append(queued)
        self._connect()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Ask one thing on our own account.

        Raises:
            OSError: no answer.
        """
        question = Question(path)
        self.send(question)
        try:
            answer = await question.answer
        finally:
            question.withdraw()
        return answer.status, answer.body

    def take_back(self, link: RestLink) -> None:
        """A connection is free."""
        if self._queue:
            link.start(self._queue.popleft().waiting, self._endpoint)
        elif self._closed:
            link.transport.close()
        else:
            link.idle_since = time.monotonic()
            self._idle.append(link)

    def leave(self, link: RestLink) -> None:
        """A connection is gone."""
        self._links.discard(link)
        if len(self._opening) < len(self._queue):
            self._connect()
        if link in self._idle:
            self._idle.remove(link)
            self.lost()

    def lost(self) -> None:
        """A connection ended from the other side: the server may be gone."""
        if not self._closed:
            self._endpoint.connection_lost()

    def unqueue(self, queued: QueuedRest) -> None:
        """A request that waited is not wanted any more."""
        if queued in self._queue:
            self._queue.remove(queued)

    def close(self) -> None:
        """Connections go when their answer has come."""
        self._closed = True
        idle, self._idle = self._idle, []
        for link in idle:
            link.transport.close()

    def _connect(self) -> None:
        if len(self._links) + len(self._opening) < _CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, link = await asyncio.get_running_loop().create_connection(lambda: RestLink(self), self._host, self._port)
        except (OSError, TimeoutError) as error:
            self._give_up(error)
            return
        self._links.add(link)
        self.take_back(link)

    def _give_up(self, error: Exception) -> None:
        why = str(error) or type(error).__name__
        waiting, self._queue = self._queue, deque()
        if any(not isinstance(each.waiting, Question) for each in waiting):
            self._endpoint.unreachable(why)
        for queued in waiting:
            queued.waiting.upstream = None
            queued.waiting.on_lost(sent=False, why=f"{self._host}:{self._port} cannot be reached: {why}")


class Question:
    """A GET of our own."""

    def __init__(self, path: str) -> None:
        self.upstream: object = None
        self.answer: asyncio.Future[RestAnswer] = asyncio.get_running_loop().create_future()
        self._path = path
        self._size = 0

    def wire(self, endpoint: Endpoint) -> bytes:
        """See Waiting."""
        return f"GET {self._path} HTTP/1.1\r\nHost: {endpoint.rest_authority}\r\nAccept: application/json\r\n\r\n".encode()

    def on_answer(self, answer: RestAnswer) -> None:
        """See Waiting."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def on_lost(self, *, sent: bool, why: str) -> None:  # noqa: ARG002  Waiting's shape
        """See Waiting."""
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(why))

    def hold(self, size: int) -> bool:
        """See Waiting."""
        self._size += size
        return self._size <= _OWN_PROBE_BYTES

    def on_too_much(self) -> None:
        """See Waiting."""
        self.on_lost(sent=True, why="the answer is too large")

    def withdraw(self) -> None:
        """Stop waiting."""
        upstream, self.upstream = self.upstream, None
        if isinstance(upstream, RestLink | QueuedRest):
            upstream.withdraw()
