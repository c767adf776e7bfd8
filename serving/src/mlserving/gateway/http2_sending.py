"""Sending on an HTTP/2 connection: in one write where the peer's windows allow it, in slices where they do not. `http2` is the rest of it.

What is to be sent waits in its stream where the peer's windows are full, or where the peer does not read. It is still counted by who made it
(`relay.Budget`), so clients that read slowly cannot take more memory than is given to all.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

from mlserving.gateway import frames as f

SLICE = 65_536
"""How much one stream sends before the next one's turn."""
_WRITE_BUFFER = 128 * 1024


class Stream:
    """What both ends keep of a stream."""

    __slots__ = ("held_since", "id", "received", "rest", "tail", "window")

    def __init__(self, number: int, window: int) -> None:
        self.id = number
        self.window = window
        """How much the peer lets us send."""
        self.received = 0
        """Bytes since the last WINDOW_UPDATE."""
        self.rest: memoryview | None = None
        """What is still to be sent, where the windows hold it back."""
        self.tail = b""
        """The frame that ends the stream; empty where the last DATA does."""
        self.held_since = 0.0
        """When (monotonic) it had to wait."""


class Sender(asyncio.Protocol):
    """The half of a connection that writes. Subclasses answer `on_sent`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.peer_frame = f.DEFAULT_FRAME
        self.window = f.DEFAULT_WINDOW
        self._held: dict[int, Stream] = {}
        self._paused: bool = False
        self._paused_since = 0.0

    def on_sent(self, stream: Stream) -> None:
        """All that `send` was given has been handed to the transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hear early of a peer that does not read."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self._paused, self._paused_since = True, time.monotonic()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._pump()

    def send(self, stream: Stream, head: bytes, body: bytes, tail: bytes = b"") -> None:
        """Send HEADERS (a whole frame), DATA, and the frame that ends the stream (without one the last DATA does).

        Whole and in one write where the windows allow, which they nearly always do.
        """
        size = len(body)
        if size <= self.window and size <= stream.window and size <= self.peer_frame and not self._held and not self._paused:
            self.window -= size
            stream.window -= size
            self.transport.write(b"".join((head, f.head(size, f.DATA, 0 if tail else f.END_STREAM, stream.id), body, tail)))
            self.on_sent(stream)
            return
        self.transport.write(head)
        stream.rest, stream.tail, stream.held_since = memoryview(body), tail, time.monotonic()
        self._held[stream.id] = stream
        self._pump()

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self.streams.pop(stream.id, None)
        self._held.pop(stream.id, None)
        stream.rest = None

    def waiting_since(self) -> float | None:
        """Since when (monotonic) something is to be sent that the peer does not take; None where nothing is."""
        oldest = next(iter(self._held.values()), None)
        times = [*([self._paused_since] if self._paused else []), *([oldest.held_since] if oldest else [])]
        return min(times, default=None)

    def _pump(self) -> None:
        """Send what the windows allow, a slice of each stream in turn."""
        moved = True
        while moved and self._held and not self._paused:
            moved = False
            for stream in list(self._held.values()):
                moved |= not self._paused and self._send_slice(stream)

    def _send_slice(self, stream: Stream) -> bool:
        rest = cast("memoryview", stream.rest)
        most = max(0, min(len(rest), SLICE, self.window, stream.window))
        if not most and len(rest):
            return False
        parts: list[bytes | memoryview] = []
        last = most == len(rest)
        for at in range(0, most, self.peer_frame) or (0,):
            piece = rest[at : min(at + self.peer_frame, most)]
            ends = last and at + len(piece) == most and not stream.tail
            parts += (f.head(len(piece), f.DATA, f.END_STREAM if ends else 0, stream.id), piece)
        self.window -= most
        stream.window -= most
        stream.rest = rest[most:]
        if last:
            parts.append(stream.tail)
            del self._held[stream.id]
        self.transport.write(b"".join(parts))
        if last:
            stream.rest = None
            self.on_sent(stream)
        return True
