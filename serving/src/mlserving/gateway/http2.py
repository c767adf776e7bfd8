"""One HTTP/2 connection, whichever end we are: frames in, frames out, windows kept. `grpc_server` and `grpc_backend` are the two ends.

Everything happens in callbacks of the event loop: no task stands behind a connection or a stream. What is received is handed on at
once, and the peer is let send more as soon as we have it; memory is bounded by who collects (`relay.Budget`), not by windows.
`http2_sending` is the half that writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from mlserving.gateway import frames as f
from mlserving.gateway.frames import ProtocolError
from mlserving.gateway.http2_sending import SLICE, Sender, Stream

CONNECTION_WINDOW = 16 * 2**20
STREAM_WINDOW = 4 * 2**20
FRAME = 65_536
"""The largest frame that we take."""
HEADER_LIST = 16_384
"""The most that headers may come to, decoded."""
_BLOCK = 32_768
_MOST_ACKNOWLEDGEMENTS = 1_000  # that a peer may ask for while it reads none of them


class Http2(Sender):
    """The part that is alike at both ends. Subclasses answer `on_headers`, `on_data`, `on_reset`, `on_goaway`, `on_sent`, `on_lost`."""

    def __init__(self) -> None:
        super().__init__()
        self.peer_streams = 2**31 - 1
        self.closing = False
        self._peer_stream_window = f.DEFAULT_WINDOW
        self._received = 0
        self._kept = b""
        self._block: tuple[int, int, list[bytes]] | None = None
        self._acknowledgements = 0

    # -- what subclasses say ----------------------------------------------------------------------------------------------

    def on_headers(self, stream_id: int, block: bytes, end: bool) -> None:
        """A header block came, whole."""
        raise NotImplementedError

    def on_data(self, stream: Stream, data: bytes, end: bool) -> None:
        """Bytes came for a stream that is open."""
        raise NotImplementedError

    def on_strange_data(self, stream_id: int) -> None:
        """Bytes came for a stream that is not open: the subclass knows whether it ever was."""

    def on_reset(self, stream: Stream, code: int) -> None:
        """The peer gave up a stream."""
        raise NotImplementedError

    def on_goaway(self, last_stream: int) -> None:
        """The peer looks at no stream after `last_stream`."""

    def on_pong(self) -> None:
        """The peer answered a PING of ours."""

    def on_room(self) -> None:
        """The peer allows more streams at a time."""

    # -- asyncio's side ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings."""
        super().connection_made(transport)
        self.greet()

    def greet(self) -> None:
        """What is sent first."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Part the bytes into frames. A broken rule ends the connection, and nothing else."""
        if self.closing and self.transport.is_closing():
            return
        try:
            self.take(self._kept + data if self._kept else data)
        except ProtocolError as error:
            self.end(error.code, str(error))

    def take(self, data: bytes) -> None:
        """Handle all whole frames in `data` and keep the rest."""
        at, size = 0, len(data)
        while size - at >= f.HEAD_SIZE:
            high, low, kind, flags, stream_id = f.read_head(data, at)
            length = high << 8 | low
            if length > FRAME:
                raise ProtocolError(f.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = at + f.HEAD_SIZE + length
            if end > size:
                break
            if self._block is not None and kind != f.CONTINUATION:
                raise ProtocolError(f.PROTOCOL_ERROR, "a header block is interrupted")
            if kind <= f.CONTINUATION:
                self._KINDS[kind](self, flags, stream_id & f.LARGEST_WINDOW, data[at + f.HEAD_SIZE : end])
            at = end
        self._kept = data[at:] if at else data

    def resume_writing(self) -> None:
        """It has caught up."""
        self._acknowledgements = 0
        super().resume_writing()

    def end(self, code: int, text: str = "") -> None:
        """Say why, and close."""
        if not self.transport.is_closing():
            self.transport.write(f.goaway(self.last_stream(), code, text))
            self.transport.close()
        self.closing = True

    def last_stream(self) -> int:
        """The newest of the peer's streams that we looked at."""
        return 0

    # -- one method for each kind of frame --------------------------------------------------------------------------------

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received >= CONNECTION_WINDOW // 2:
            self.transport.write(f.window_update(0, self._received))
            self._received = 0
        stream = self.streams.get(stream_id)
        if stream is None:
            if not stream_id:
                raise ProtocolError(f.PROTOCOL_ERROR, "DATA on stream 0")
            self.on_strange_data(stream_id)
            return
        if flags & f.PADDED:
            payload = f.without_padding(flags, payload)
        end = bool(flags & f.END_STREAM)
        stream.received += size
        if stream.received >= STREAM_WINDOW // 2 and not end:
            self.transport.write(f.window_update(stream_id, stream.received))
            stream.received = 0
        self.on_data(stream, payload, end)

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ProtocolError(f.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (f.PADDED | f.PRIORITISED):
            payload = f.without_padding(flags, payload)
            if flags & f.PRIORITISED:
                if len(payload) < 5:  # noqa: PLR2004  a priority's length
                    raise ProtocolError(f.FRAME_SIZE_ERROR, "HEADERS too short for their priority")
                payload = payload[5:]
        if flags & f.END_HEADERS:
            self.on_headers(stream_id, payload, bool(flags & f.END_STREAM))
        else:
            self._block = (stream_id, flags, [payload])

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream_id:
            raise ProtocolError(f.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first, parts = self._block
        parts.append(payload)
        if sum(map(len, parts)) > _BLOCK or len(parts) > _BLOCK // 512:
            raise ProtocolError(f.ENHANCE_YOUR_CALM, "headers that do not end")
        if flags & f.END_HEADERS:
            self._block = None
            self.on_headers(stream_id, b"".join(parts), bool(first & f.END_STREAM))

    def _priority(self, _: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ProtocolError(f.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:  # noqa: PLR2004  a priority's length
            raise ProtocolError(f.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")

    def _reset(self, _: int, stream_id: int, payload: bytes) -> None:
        if not stream_id or len(payload) != 4:  # noqa: PLR2004  a code's length
            raise ProtocolError(f.PROTOCOL_ERROR if not stream_id else f.FRAME_SIZE_ERROR, "RST_STREAM that is none")
        stream = self.streams.get(stream_id)
        if stream is None:
            self.on_strange_data(stream_id)
            return
        self.forget(stream)
        self.on_reset(stream, f.number(payload))

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or (flags & f.ACK and payload):
            raise ProtocolError(f.PROTOCOL_ERROR if stream_id else f.FRAME_SIZE_ERROR, "SETTINGS that are none")
        if flags & f.ACK:
            return
        for name, value in f.read_settings(payload):
            if name == f.INITIAL_WINDOW_SIZE:
                self._resize(value)
            elif name == f.MAX_FRAME_SIZE:
                self.peer_frame = min(value, SLICE)
            elif name == f.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
        self._acknowledge(f.frame(f.SETTINGS, f.ACK, 0))
        self.on_room()
        self._pump()

    def _resize(self, window: int) -> None:
        change, self._peer_stream_window = window - self._peer_stream_window, window
        for stream in self.streams.values():
            stream.window += change
            if stream.window > f.LARGEST_WINDOW:
                raise ProtocolError(f.FLOW_CONTROL_ERROR, "a window above 2^31-1")

    def _push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ProtocolError(f.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody asked for")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) != 8:  # noqa: PLR2004  a PING's length
            raise ProtocolError(f.PROTOCOL_ERROR if stream_id else f.FRAME_SIZE_ERROR, "a PING that is none")
        if flags & f.ACK:
            self.on_pong()
        else:
            self._acknowledge(f.frame(f.PING, f.ACK, 0, payload))

    def _acknowledge(self, answer: bytes) -> None:
        if self._paused:
            self._acknowledgements += 1
            if self._acknowledgements > _MOST_ACKNOWLEDGEMENTS:
                raise ProtocolError(f.ENHANCE_YOUR_CALM, "asks, and reads no answers")
        self.transport.write(answer)

    def _goaway(self, _: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ProtocolError(f.PROTOCOL_ERROR, "GOAWAY on a stream")
        f.number(payload, 4)
        self.on_goaway(f.number(payload))

    def _update(self, _: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004  a number's length
            raise ProtocolError(f.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        size = f.number(payload)
        if not stream_id:
            self.window += size
            if not size or self.window > f.LARGEST_WINDOW:
                raise ProtocolError(f.FLOW_CONTROL_ERROR if size else f.PROTOCOL_ERROR, "a window that cannot be")
        else:
            self._update_stream(stream_id, size)
        if self._held:
            self._pump()

    def _update_stream(self, stream_id: int, size: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self.on_strange_data(stream_id)
        elif not size or stream.window + size > f.LARGEST_WINDOW:
            self.transport.write(f.reset(stream_id, f.FLOW_CONTROL_ERROR if size else f.PROTOCOL_ERROR))
            self.forget(stream)
            self.on_reset(stream, f.FLOW_CONTROL_ERROR)
        else:
            stream.window += size

    _KINDS: ClassVar[tuple[Callable[[Http2, int, int, bytes], None], ...]] = (
        _data, _headers, _priority, _reset, _settings, _push, _ping, _goaway, _update, _continuation,
    )  # fmt: skip
    """By a frame's kind. Bound to each connection, they would keep it from going before the garbage collector came."""
