"""HTTP/1.1 towards a model server: connections that are kept, each with one request under way."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from mlserving.gateway.grpc_backend import CONNECT_SECONDS
from mlserving.gateway.rest_link import RestAnswer, RestLink, Waiting

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint

_CONNECTIONS = 512
_IDLE_SECONDS = 20.0  # a kept connection that is older is not trusted
_OWN_PROBE_BYTES = 2**20


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
        return b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: application/json\r\n\r\n" % (self._path.encode(), endpoint.rest_authority)

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
