"""gRPC towards a model server: a few HTTP/2 connections for each endpoint, on which many calls are under way at a time.

A call waits here only while a connection is being made, or while the server allows no more streams. What happened to a call
whose connection ended is told exactly: the server said that it was not looked at, or it may have been.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from mlserving.gateway import frames as f
from mlserving.gateway.calls import BROKEN_ANSWER, NO_MEMORY
from mlserving.gateway.grpc_calls import GrpcAnswer, GrpcCall
from mlserving.gateway.heads import AnswerHead, Blocks, answer_head
from mlserving.gateway.http2 import CONNECTION_WINDOW, FRAME, HEADER_LIST, STREAM_WINDOW, Http2
from mlserving.gateway.http2_sending import Stream

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint

CONNECT_SECONDS = 2.0
_CONNECTIONS = 4
_CROWDED = 32  # streams on every connection before another one is opened
_SILENCE_SECONDS = 3.0  # that an answer to a PING may take
_LAST_STREAM = 2**30
_OK = 200


class Upstream(Stream):
    """A call on a connection to a model server."""

    __slots__ = ("call", "chunks", "head", "link")

    def __init__(self, number: int, window: int, call: GrpcCall, link: Link) -> None:
        super().__init__(number, window)
        self.call, self.link = call, link
        self.head: AnswerHead | None = None
        self.chunks: list[bytes] = []

    def withdraw(self) -> None:
        """Tell the server that nobody waits any more."""
        self.link.withdraw(self)


class Link(Http2):
    """One connection to a model server."""

    def __init__(self, pool: GrpcPool) -> None:
        super().__init__()
        self._pool = pool
        self._next = 1
        self._blocks = Blocks(answer_head)
        self._asked: asyncio.TimerHandle | None = None

    def greet(self) -> None:
        """The preface and what we allow."""
        values = {
            f.ENABLE_PUSH: 0, f.MAX_CONCURRENT_STREAMS: 0, f.INITIAL_WINDOW_SIZE: STREAM_WINDOW, f.MAX_FRAME_SIZE: FRAME,
            f.MAX_HEADER_LIST_SIZE: HEADER_LIST,
        }  # fmt: skip
        self.transport.write(f.PREFACE + f.settings(values) + f.window_update(0, CONNECTION_WINDOW - f.DEFAULT_WINDOW))

    @property
    def room(self) -> bool:
        """Whether one more call may start here."""
        return not self.closing and len(self.streams) < self.peer_streams

    def start(self, call: GrpcCall, endpoint: Endpoint) -> None:
        """Send a call."""
        number, self._next = self._next, self._next + 2
        stream = Upstream(number, self._peer_stream_window, call, self)
        self.streams[number] = stream
        call.upstream = stream
        call.sent_at = time.perf_counter()
        self.send(stream, f.headers(number, call.block(endpoint), end=False, most=self.peer_frame), call.body)
        if number > _LAST_STREAM:
            self.closing = True

    def withdraw(self, stream: Upstream) -> None:
        """Give up a call."""
        if stream.id in self.streams and not self.transport.is_closing():
            self.transport.write(f.reset(stream.id, f.CANCEL))
        self._over(stream)

    def ask_for_life(self) -> None:
        """A call had no answer in time: see whether anything is at the other end at all."""
        if self._asked is None and not self.transport.is_closing():
            self.transport.write(f.frame(f.PING, 0, 0, b"millrace"))
            self._asked = asyncio.get_running_loop().call_later(_SILENCE_SECONDS, self.transport.abort)

    def on_pong(self) -> None:
        """Something is."""
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None

    def on_headers(self, stream_id: int, block: bytes, end: bool) -> None:
        """The beginning of an answer, or its end."""
        head = self._blocks.read(block)
        stream = self.streams.get(stream_id)
        if not isinstance(stream, Upstream):  # given up before; read because HPACK's table goes on
            return
        if 100 <= head.http < _OK:  # noqa: PLR2004  an interim answer
            return
        if not end:
            if stream.head is not None:
                raise f.ProtocolError(f.PROTOCOL_ERROR, "headers in the middle of an answer")
            stream.head = head
            return
        self._complete(stream, head)

    def on_data(self, stream: Stream, data: bytes, end: bool) -> None:
        """A part of the answer's message."""
        assert isinstance(stream, Upstream)
        if data:
            stream.chunks.append(data)
            if not stream.call.hold(len(data)):
                self.withdraw(stream)
                stream.call.upstream = None
                stream.call.relay.failed(stream.call, NO_MEMORY, "the gateway has no memory left for the answer (limits.buffered_mb)")
                return
        if end:
            self._complete(stream, AnswerHead(block=b"", http=0, code=None))

    def on_reset(self, stream: Stream, code: int) -> None:
        """The server gave up a call."""
        assert isinstance(stream, Upstream)
        self._over(stream)
        self._lost(stream, sent=code != f.REFUSED_STREAM, why=f"the model server reset the call (code {code})")

    def on_goaway(self, last_stream: int) -> None:
        """The server is going: what it did not look at is sent elsewhere, the rest may still be answered."""
        self.closing = True
        self._pool.leave(self)
        for stream in [stream for number, stream in self.streams.items() if number > last_stream]:
            self.forget(stream)
            self._lost(stream, sent=False, why="the model server is going away")
        self._close_if_done()

    def on_room(self) -> None:
        """The server may allow more streams than before."""
        self._pool.fill()

    def connection_lost(self, error: Exception | None) -> None:
        """Every call on this connection is without an answer."""
        self.closing = True
        self.on_pong()
        self._pool.leave(self, lost=True)
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            self._lost(stream, sent=True, why=f"the connection to the model server was lost ({error or 'closed'})")

    def close_when_done(self) -> None:
        """Start nothing new, and close after the last answer."""
        self.closing = True
        self._close_if_done()

    def _complete(self, stream: Upstream, trailers: AnswerHead) -> None:
        head, call = stream.head, stream.call
        self._over(stream)
        call.upstream = None
        first = head or trailers
        if first.http != _OK or (head is not None and trailers.code is None):
            call.relay.failed(call, BROKEN_ANSWER, f"the model server's answer is not gRPC's (HTTP {first.http})")
            return
        chunks = stream.chunks
        call.relay.answered(call, GrpcAnswer(head, chunks[0] if len(chunks) == 1 else b"".join(chunks), trailers))

    def _lost(self, stream: Stream, *, sent: bool, why: str) -> None:
        assert isinstance(stream, Upstream)
        call = stream.call
        call.upstream = None
        call.relay.lost(call, sent=sent, why=why)

    def _over(self, stream: Upstream) -> None:
        unfinished = stream.rest is not None
        self.forget(stream)
        if unfinished and not self.transport.is_closing():  # answered before the request was whole
            self.transport.write(f.reset(stream.id, f.CANCEL))
        if self.closing:
            self._close_if_done()
        else:
            self._pool.fill()

    def _close_if_done(self) -> None:
        if not self.streams and not self.transport.is_closing():
            self.transport.close()


class Queued:
    """Where a call waits that has no connection yet."""

    __slots__ = ("call", "pool")

    def __init__(self, call: GrpcCall, pool: GrpcPool) -> None:
        self.call, self.pool = call, pool

    def withdraw(self) -> None:
        """Do not wait any more."""
        self.pool.unqueue(self)


class GrpcPool:
    """The connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, host: str, port: int) -> None:
        self._endpoint, self._host, self._port = endpoint, host, port
        self._links: list[Link] = []
        self._queue: deque[Queued] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    def send(self, call: GrpcCall) -> None:
        """Send a call as soon as there is a connection with room."""
        link = self._link()
        if link is not None and not self._queue:
            link.start(call, self._endpoint)
            return
        queued = Queued(call, self)
        call.upstream = queued
        self._queue.append(queued)

    def fill(self) -> None:
        """Start calls that wait, as far as there is room."""
        while self._queue and (link := self._link()) is not None:
            link.start(self._queue.popleft().call, self._endpoint)

    def unqueue(self, queued: Queued) -> None:
        """A call that waited is not wanted any more."""
        if queued in self._queue:
            self._queue.remove(queued)

    def leave(self, link: Link, *, lost: bool = False) -> None:
        """A connection takes no more calls."""
        if link in self._links:
            self._links.remove(link)
        if lost and not self._closed:
            self._endpoint.connection_lost()
        if self._queue:
            self._connect()

    def ask_for_life(self) -> None:
        """Find out which connections are dead."""
        for link in self._links:
            link.ask_for_life()

    def close(self) -> None:
        """Take no more calls; connections go when their last answer has come."""
        self._closed = True
        for link in list(self._links):
            link.close_when_done()

    def _link(self) -> Link | None:
        """The connection with the fewest streams; another one is opened where all are crowded."""
        links = self._links
        best = links[0] if len(links) == 1 else min(links, key=lambda link: len(link.streams), default=None)
        if best is None or (len(best.streams) >= _CROWDED and len(links) < _CONNECTIONS):
            self._connect()
        return best if best is not None and best.room else None

    def _connect(self) -> None:
        if self._connecting is None and (not self._closed or self._queue):  # what waited before we were closed is still sent
            self._connecting = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, link = await loop.create_connection(lambda: Link(self), self._host, self._port)
        except (OSError, TimeoutError) as error:
            self._connecting = None
            self._give_up(error)
            return
        self._connecting = None
        self._links.append(link)
        self.fill()
        if self._closed:
            link.close_when_done()

    def _give_up(self, error: Exception) -> None:
        self._endpoint.unreachable(str(error) or type(error).__name__)
        if self._links:  # what waits for room goes on waiting for the connections that there are
            return
        waiting, self._queue = self._queue, deque()
        for queued in waiting:
            queued.call.upstream = None
            queued.call.relay.lost(queued.call, sent=False, why=f"{self._host}:{self._port} cannot be reached: {error}")
