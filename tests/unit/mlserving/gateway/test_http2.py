"""Windows: whatever the peer allows, in whatever pieces, no byte too many is sent, none is lost, and none comes out of order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserving.gateway import frames as f
from mlserving.gateway.http2 import CONNECTION_WINDOW, Http2, Stream


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """(kind, flags, stream, payload) of each, and forget them."""
        data, found, at = self.written, [], 0
        while at < len(data):
            high, low, kind, flags, stream = f.read_head(data, at)
            end = at + 9 + (high << 8 | low)
            found.append((kind, flags, stream, data[at + 9 : end]))
            at = end
        self.written = b""
        return found


class End(Http2):
    """One end that greets with nothing and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.got: dict[int, bytearray] = {}

    def greet(self) -> None:
        pass

    def on_headers(self, stream_id: int, block: bytes, end: bool) -> None:
        pass

    def on_data(self, stream: Stream, data: bytes, end: bool) -> None:
        del end  # these tests count bytes
        self.got.setdefault(stream.id, bytearray()).extend(data)

    def on_reset(self, stream: Stream, code: int) -> None:
        pass

    def on_sent(self, stream: Stream) -> None:
        self.sent.append(stream.id)
        self.forget(stream)


def an_end() -> tuple[End, Wire]:
    end, wire = End(), Wire()
    end.connection_made(wire)  # type: ignore[arg-type]  # as much of a transport as is used
    return end, wire


_STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 200_000)),
    st.tuples(st.just("widen"), st.integers(1, 300_000)),
    st.tuples(st.just("widen_stream"), st.tuples(st.integers(0, 9), st.integers(1, 200_000))),
    st.tuples(st.just("resize"), st.integers(0, 300_000)),
    st.tuples(st.just("allow_frames"), st.sampled_from([16_384, 20_000, 1_000_000])),
    st.tuples(st.just("reading"), st.booleans()),
    st.tuples(st.just("give_up"), st.integers(0, 9)),
)


class Peer:
    """Keeps the windows as the other side does, and checks each frame against them."""

    def __init__(self, end: End, wire: Wire, *, trailers: bool) -> None:
        self.end, self.wire, self.trailers = end, wire, trailers
        self.bodies: dict[int, bytes] = {}
        self.given_up: set[int] = set()
        self.connection, self.initial, self.frame = 65_535, 65_535, 16_384
        self.allowed: dict[int, int] = {}
        self.got: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def look(self) -> None:
        for kind, flags, stream, payload in self.wire.frames():
            if kind == f.DATA:
                self.connection -= len(payload)
                self.allowed[stream] -= len(payload)
                assert self.connection >= 0
                assert not payload or self.allowed[stream] >= 0
                assert len(payload) <= self.frame
                assert stream not in self.ended
                self.got[stream] = self.got.get(stream, b"") + payload
            if kind in {f.DATA, f.HEADERS} and flags & f.END_STREAM:
                self.ended.add(stream)

    def tell(self, data: bytes) -> None:
        self.end.data_received(data)
        self.look()

    # -- one method for each kind of step --

    def send(self, size: int) -> None:
        """Have the end send a body on a new stream."""
        number = 2 * len(self.bodies) + 1
        stream = self.end.streams[number] = Stream(number, self.end._peer_stream_window)
        self.allowed[number] = self.initial
        self.bodies[number] = bytes((number % 251,)) * (size // 2) + b"e" * (size - size // 2)
        tail = f.headers(number, b"t", end=True, most=100) if self.trailers else b""
        self.end.send(stream, f.headers(number, b"h", end=False, most=100), self.bodies[number], tail)
        self.look()

    def widen(self, size: int) -> None:
        self.connection += size
        self.tell(f.window_update(0, size))

    def widen_stream(self, which: tuple[int, int]) -> None:
        number, size = 2 * which[0] + 1, which[1]
        if number in set(self.allowed) - self.given_up - self.ended:
            self.allowed[number] += size
            self.tell(f.window_update(number, size))

    def resize(self, window: int) -> None:
        for number in self.allowed:
            self.allowed[number] += window - self.initial
        self.initial = window
        self.tell(f.settings({f.INITIAL_WINDOW_SIZE: window}))

    def allow_frames(self, size: int) -> None:
        self.frame = size
        self.tell(f.settings({f.MAX_FRAME_SIZE: size}))

    def reading(self, reads: bool) -> None:
        (self.end.resume_writing if reads else self.end.pause_writing)()
        self.look()

    def give_up(self, which: int) -> None:
        number = 2 * which + 1
        if number in set(self.bodies) - self.ended:
            self.given_up.add(number)
            self.tell(f.reset(number, f.CANCEL))


@settings(max_examples=200, deadline=None)
@given(st.lists(_STEPS, max_size=40), st.booleans())
def test_no_window_is_ever_overdrawn_and_in_the_end_all_has_come(steps: list[tuple[str, Any]], trailers: bool) -> None:
    end, wire = an_end()
    peer = Peer(end, wire, trailers=trailers)
    for what, value in steps:
        getattr(peer, what)(value)
    end.resume_writing()
    peer.look()
    for number in set(peer.bodies) - peer.ended - peer.given_up:
        peer.allowed[number] += 2**30
        peer.tell(f.window_update(number, 2**30))
    peer.connection += 2**30
    peer.tell(f.window_update(0, 2**30))
    assert not wire.closed
    for number in set(peer.bodies) - peer.given_up:
        assert peer.got.get(number, b"") == peer.bodies[number]
        assert number in peer.ended
    assert sorted(end.sent) == sorted(set(peer.bodies) - peer.given_up)


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=8), st.lists(st.integers(1, 700), min_size=1, max_size=30))
def test_frames_cut_anywhere_are_put_together(parts: list[bytes], cuts: list[int]) -> None:
    end, _ = an_end()
    end.streams[1] = Stream(1, 65_535)
    data = b"".join(f.frame(f.DATA, 0, 1, part) for part in parts)
    at = 0
    for cut in [*cuts * 100]:
        end.data_received(data[at : at + cut])
        at += cut
        if at >= len(data):
            break
    end.data_received(data[at:])
    assert bytes(end.got.get(1, b"")) == b"".join(parts)


def test_a_peer_may_go_on_sending_since_its_windows_are_given_back() -> None:
    end, wire = an_end()
    end.streams[1] = Stream(1, 65_535)
    given_back = 0
    for _ in range(3 * CONNECTION_WINDOW // 16_000):
        end.data_received(f.frame(f.DATA, 0, 1, b"x" * 16_000))
        given_back += sum(f.number(payload) for kind, _, stream, payload in wire.frames() if kind == f.WINDOW_UPDATE and stream == 0)
    assert given_back >= 2 * CONNECTION_WINDOW


def test_a_peer_that_asks_and_never_reads_is_sent_away() -> None:
    end, wire = an_end()
    end.pause_writing()
    for _ in range(1_100):
        end.data_received(f.frame(f.PING, 0, 0, b"12345678"))
    assert wire.closed


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 200_000])
def test_an_empty_body_and_one_that_just_fits_end_their_stream_once(size: int) -> None:
    end, wire = an_end()
    end.data_received(f.settings({f.INITIAL_WINDOW_SIZE: 2**20}) + f.window_update(0, 2**20))
    wire.frames()
    stream = end.streams[1] = Stream(1, 2**20)
    end.send(stream, f.headers(1, b"h", end=False, most=100), b"x" * size)
    found = wire.frames()
    assert sum(len(payload) for kind, _, _, payload in found if kind == f.DATA) == size
    assert [bool(flags & f.END_STREAM) for *_, flags in [(kind, flags) for kind, flags, _, _ in found if kind == f.DATA]].count(True) == 1
