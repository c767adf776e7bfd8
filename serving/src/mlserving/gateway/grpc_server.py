"""gRPC towards callers: one HTTP/2 connection of a client, whose calls are collected, handed to the relay, and answered."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from mlserving.gateway import frames as f
from mlserving.gateway.calls import INVALID, NO_MEMORY, NOT_FOUND, TOO_LARGE, UNKNOWN_METHOD, Refusal
from mlserving.gateway.grpc_calls import REQUEST_SPECS, GrpcAnswer, GrpcCall, answer_frames
from mlserving.gateway.heads import Blocks, RequestHead, request_head, status_trailers, trailers_only
from mlserving.gateway.http2 import CONNECTION_WINDOW, FRAME, HEADER_LIST, STREAM_WINDOW, Http2
from mlserving.gateway.http2_sending import Stream
from mlserving.gateway.model_spec import Malformed, first_field, message_of, read_spec
from mlserving.gateway.resets import Resets

if TYPE_CHECKING:
    from mlserving.gateway.relay import Relay

STREAMS = 1024
"""Calls at a time on one connection; gRPC clients wait for their turn by themselves."""
_LOOK_SECONDS = 1.0
_HEARD_SECONDS = 2.0
"""A client that has not answered a PING by then is told its last call all the same."""

HEALTH = "/grpc.health.v1.Health/Check"
_PREFIX = 5


class ClientStream(Stream):
    """A call of a client, while it is read, answered and written."""

    __slots__ = ("arrived", "call", "chunks", "head", "held", "since", "size", "whole")

    def __init__(self, number: int, window: int, head: RequestHead) -> None:
        super().__init__(number, window)
        self.head = head
        self.chunks: list[bytes] = []
        self.size = 0
        self.held = 0
        """Bytes that count against the memory before there is a Call that counts them."""
        self.since = time.monotonic()
        self.arrived = 0.0
        self.whole = False
        self.call: GrpcCall | None = None


class GrpcServer(Http2):
    """One client's connection."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay
        self._blocks = Blocks(request_head)
        self._last = 0
        self._greeted = False
        self._born = time.monotonic()
        self._closing_since = 0.0
        self._resets = Resets(self._born)
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None

    # -- the connection ---------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say what we allow; the client's preface comes by itself."""
        if not self._relay.admit(self, "grpc"):
            self.transport.abort()
            return
        values = {
            f.MAX_CONCURRENT_STREAMS: STREAMS, f.INITIAL_WINDOW_SIZE: STREAM_WINDOW, f.MAX_FRAME_SIZE: FRAME, f.MAX_HEADER_LIST_SIZE: HEADER_LIST,
        }  # fmt: skip
        self.transport.write(f.settings(values) + f.window_update(0, CONNECTION_WINDOW - f.DEFAULT_WINDOW))
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def take(self, data: bytes) -> None:
        """The preface, then frames."""
        if not self._greeted:
            if not f.PREFACE.startswith(data[: len(f.PREFACE)]):
                raise f.ProtocolError(f.PROTOCOL_ERROR, "this port speaks gRPC: HTTP/2 with prior knowledge")
            if len(data) < len(f.PREFACE):
                self._kept = data
                return
            self._greeted = True
            data = data[len(f.PREFACE) :]
            if len(data) > 3 and data[3] != f.SETTINGS:  # noqa: PLR2004  where a frame's kind stands
                raise f.ProtocolError(f.PROTOCOL_ERROR, "the preface ends with SETTINGS")
        super().take(data)

    def connection_lost(self, _: Exception | None) -> None:
        """The client is gone: nobody waits for its calls."""
        self.closing = True
        for timer in (self._timer, self._leaving):
            if timer is not None:
                timer.cancel()
        self._relay.connections.discard(self)
        streams = list(self.streams.values())
        self.streams.clear()
        self._held.clear()
        for stream in streams:
            self._abandon(stream)

    def last_stream(self) -> int:
        """See Http2."""
        return self._last

    def leave(self) -> None:
        """Have the client move to another connection, finish the calls under way, close.

        In two steps (RFC 9113, section 6.8): calls that are on their way here when it is told to go are answered still. Only once it has
        heard that, by its answer to a PING, it is told which was the last one; a client that is told at once has to send the others again,
        and not every client does.
        """
        if not (self._leaving or self.closing):
            self._leaving = asyncio.get_running_loop().call_later(_HEARD_SECONDS, self._take_no_more)
            self.transport.write(f.goaway(f.LARGEST_WINDOW, f.NO_ERROR) + f.frame(f.PING, 0, 0, b"farewell"))

    def on_pong(self) -> None:
        """It has heard that we leave."""
        if self._leaving:
            self._take_no_more()

    def _take_no_more(self) -> None:
        if not self.closing:
            self.closing = True
            self.transport.write(f.goaway(self._last, f.NO_ERROR))
            self._close_if_done()

    def pause_writing(self) -> None:
        """The client takes nothing: nothing more is taken from it either, so that what it causes to be written is bounded."""
        super().pause_writing()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if not (self._paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def _look(self) -> None:
        """Every second: no preface, uploads that do not end, a client that does not take its answers."""
        now, limits = time.monotonic(), self._relay.limits
        if not self._greeted and now - self._born > limits.head_seconds:
            self._cut_off("head")
            return
        for stream in list(self.streams.values()):
            assert isinstance(stream, ClientStream)
            if not stream.whole and now - stream.since > limits.body_seconds:
                self._relay.metrics.cut_off("grpc", "body")
                self._refuse(stream, Refusal(4, 408), "the request did not arrive in time")
        since = self.waiting_since()
        if since is None and self.transport.is_closing():  # and the last bytes are not taken
            since = self._closing_since = self._closing_since or now
        if since is not None and now - since > limits.answer_seconds:
            self._cut_off("answer")
            return
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _cut_off(self, reason: Literal["head", "answer"]) -> None:
        self._relay.metrics.cut_off("grpc", reason)
        self.transport.abort()

    # -- reading calls ----------------------------------------------------------------------------------------------------

    def on_headers(self, stream_id: int, block: bytes, end: bool) -> None:
        """A call begins, or ends with trailers."""
        head = self._blocks.read(block)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, end)
            return
        if not stream_id & 1:
            raise f.ProtocolError(f.PROTOCOL_ERROR, "a client's streams are odd")
        if stream_id <= self._last:
            self.transport.write(f.reset(stream_id, f.STREAM_CLOSED))
            return
        if self.closing:  # after our GOAWAY: the client knows that it was not looked at
            return
        self._last = stream_id
        if len(self.streams) >= STREAMS:
            self.transport.write(f.reset(stream_id, f.REFUSED_STREAM))
            return
        opened = self.streams[stream_id] = ClientStream(stream_id, self._peer_stream_window, head)
        self._begin(opened, end)

    def _begin(self, stream: ClientStream, end: bool) -> None:
        head = stream.head
        stream.whole = end
        if head.wrong:
            self._refuse(stream, INVALID, head.wrong)
        elif head.path not in REQUEST_SPECS and head.path != HEALTH:
            self._refuse(stream, UNKNOWN_METHOD, f"the gateway does not serve {head.path[:200]}")
        elif end:
            self._refuse(stream, INVALID, "a request without a message")

    def _trailers(self, stream: Stream, end: bool) -> None:
        assert isinstance(stream, ClientStream)
        if stream.whole or not end:
            raise f.ProtocolError(f.STREAM_CLOSED if stream.whole else f.PROTOCOL_ERROR, "headers where none can be")
        stream.whole = True
        self._complete(stream)

    def on_data(self, stream: Stream, data: bytes, end: bool) -> None:
        """A part of a request, nearly always the whole."""
        assert isinstance(stream, ClientStream)
        if stream.whole:
            raise f.ProtocolError(f.STREAM_CLOSED, "DATA after the end of a stream")
        if data:
            stream.chunks.append(data)
            stream.size += len(data)
            stream.held += len(data)
            roomy = self._relay.budget.take(len(data))
            if stream.size > self._relay.most_body + _PREFIX:
                self._refuse(stream, TOO_LARGE, f"the request is larger than {self._relay.most_body} bytes (limits.body_mb)")
                return
            if not roomy:
                self._refuse(stream, NO_MEMORY, "the gateway has no memory left for the request (limits.buffered_mb)")
                return
        if end:
            stream.whole = True
            self._complete(stream)

    def on_strange_data(self, stream_id: int) -> None:
        """For a stream that is over: late, and no harm. For one that never was: a broken rule."""
        if stream_id > self._last and not self.closing:
            raise f.ProtocolError(f.PROTOCOL_ERROR, "a frame for a stream that was never opened")

    def _complete(self, stream: ClientStream) -> None:
        stream.arrived = time.perf_counter()
        head, chunks = stream.head, stream.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        stream.chunks = []
        try:
            message = message_of(body, head.encoding, self._relay.most_body)
            if head.path == HEALTH:
                self._health(stream, message)
                return
            spec = read_spec(message, REQUEST_SPECS[head.path])
        except Malformed as error:
            self._refuse(stream, INVALID, f"the request cannot be read: {error}")
            return
        call = GrpcCall(self._relay, self, stream, head, spec, body)
        call.arrived = stream.arrived
        call.held, stream.held = stream.held, 0
        call.prediction_id = head.prediction_id
        stream.call = call
        self._relay.start(call, head.timeout)

    def on_reset(self, stream: Stream, _: int) -> None:
        """The client cancelled a call. One whose deadline is over does not count: of a server that hangs, good clients cancel all they ask."""
        assert isinstance(stream, ClientStream)
        most = self._relay.limits.resets
        late = stream.call is not None and stream.call.late
        self._abandon(stream)
        if self.closing:
            self._close_if_done()
        elif not late and not self._resets.cancelled(time.monotonic(), most):
            self._relay.metrics.cut_off("grpc", "resets")
            raise f.ProtocolError(f.ENHANCE_YOUR_CALM, f"more than {most} calls were cancelled (limits.resets)")

    def _abandon(self, stream: Stream) -> None:
        assert isinstance(stream, ClientStream)
        self._relay.budget.give(stream.held)
        stream.held = 0
        call, stream.call = stream.call, None
        if call is not None:
            call.connection = call.stream = None
            self._relay.cancelled(call)

    # -- answering --------------------------------------------------------------------------------------------------------

    def answer(self, stream: ClientStream, answer: GrpcAnswer, ours: bytes) -> None:
        """Send a model server's answer."""
        head, tail = answer_frames(stream.id, answer, ours, self.peer_frame)
        if answer.body:
            self.send(stream, head, answer.body, tail)
        else:
            self.transport.write(head + tail)
            self.on_sent(stream)

    def refuse(self, stream: ClientStream, block: bytes) -> None:
        """Send an answer that is nothing but a status."""
        self.transport.write(f.headers(stream.id, block, end=True, most=self.peer_frame))
        self.on_sent(stream)

    def on_sent(self, stream: Stream) -> None:
        """The answer is out of our hands."""
        assert isinstance(stream, ClientStream)
        self.forget(stream)
        self._relay.budget.give(stream.held)
        stream.held = 0
        if stream.call is not None:
            stream.call.release()
            stream.call = None
            self._resets.answered()
        if not stream.whole:  # answered before the request was whole: the rest is not wanted
            self.transport.write(f.reset(stream.id, f.NO_ERROR))
        if self.closing:
            self._close_if_done()

    def _refuse(self, stream: ClientStream, refusal: Refusal, text: str) -> None:
        self._relay.refused_early("grpc", refusal)
        self.refuse(stream, trailers_only(refusal.grpc, text))

    def _health(self, stream: ClientStream, message: bytes) -> None:
        """grpc.health.v1: SERVING while we take calls. `service` is empty or one that we pass on."""
        service = first_field(message).decode("utf-8", "replace")
        if service not in {"", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}:
            self._refuse(stream, NOT_FOUND, f"no service {service[:100]!r}")
            return
        head = f.headers(stream.id, b"\x88" + f.literal(b"content-type", b"application/grpc"), end=False, most=self.peer_frame)
        body = b"\x00\x00\x00\x00\x02\x08" + (b"\x02" if self._relay.leaving else b"\x01")
        self.send(stream, head, body, f.headers(stream.id, status_trailers(0, ""), end=True, most=self.peer_frame))

    def _close_if_done(self) -> None:
        if not self.streams and not self.transport.is_closing():
            self.transport.close()
