"""Clients that are slow, too many, too large, or speak nonsense: they get an answer or a closed door, and everybody else theirs."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateways import PREDICT, Server, ask, call, channel, config, gateway, model_server, request
from mlserving.gateway import frames as f
from waiting import eventually

_LIMITS = "limits: {in_flight: 50, body_mb: 4, buffered_mb: 24}\n"
_FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway for all of them, of whom nothing is left over."""
    folder = tmp_path_factory.mktemp("hostile")
    with model_server(folder / "m", "--version", "1") as server, gateway(folder / "g", config(stable=(server, 100), more=_LIMITS)) as found:
        yield found
        for name in {"grpc", "rest"} & _GOOD.keys():
            _GOOD[name].close()
        eventually("nothing is buffered", lambda: found.metric("millrace_gateway_buffered_bytes") == 0, 20)
        eventually("nothing is under way", lambda: found.metric("millrace_gateway_in_flight") == 0, 20)
        everybody_else_is_served(found)
        assert "Traceback" not in found.log()


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def everybody_else_is_served(front: Server) -> None:
    with channel(front.grpc) as opened:
        assert ask(opened, "good").x == "good"
    connection = HTTPConnection(front.rest, timeout=10)
    assert call(connection, "POST", "/v1/models/m:predict", {"instances": ["good"]})[2]["predictions"] == ["good"]
    connection.close()


def test_a_burst_ten_times_the_limit_is_answered_at_once_and_memory_stays_bounded(front: Server) -> None:
    everybody_else_is_served(front)
    before = front.resident_mb()

    def caller(number: int) -> list[tuple[str, float]]:
        with channel(front.grpc) as opened:
            started = time.monotonic()
            futures = [
                opened.unary_unary(PREDICT).future(request(f"{number}-{n}" + "x" * 20_000, sleep=2.0), timeout=30) for n in range(100)
            ]
            found = []
            for future in futures:
                code = future.code().name
                found.append((code, time.monotonic() - started))
            return found

    with ThreadPoolExecutor(5) as threads:
        answers = [answer for each in threads.map(caller, range(5)) for answer in each]
    codes = [code for code, _ in answers]
    assert set(codes) == {"OK", "UNAVAILABLE"}
    assert 50 <= codes.count("OK") <= 150
    assert front.resident_mb() - before < 60
    assert front.metric("millrace_gateway_requests_total", code="UNAVAILABLE", track="") == codes.count("UNAVAILABLE")
    eventually("nothing is under way", lambda: front.metric("millrace_gateway_in_flight") == 0, 20)
    assert front.metric("millrace_gateway_buffered_bytes") == 0


def test_uploads_that_never_end_do_not_take_the_memory(front: Server) -> None:
    """Thirty clients send 3 MB of a request each and stop; the memory for requests is 24 MB."""
    before = front.resident_mb()
    with contextlib.ExitStack() as stack:
        head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
        for _ in range(30):
            opened = stack.enter_context(connect(front.rest))
            with contextlib.suppress(OSError):
                opened.sendall(head + b"x" * 3_000_000)
        eventually("somebody is turned away", lambda: front.metric("millrace_gateway_requests_total", protocol="rest", code="503") > 0, 20)
        assert front.resident_mb() - before < 80
    eventually("nothing is buffered", lambda: front.metric("millrace_gateway_buffered_bytes") == 0, 20)
    everybody_else_is_served(front)


def test_a_client_that_reads_nothing_holds_up_nobody(front: Server) -> None:
    head, body = _grpc_call(1, request("x", bytes=3e6))
    with connect(front.grpc) as opened:
        opened.sendall(f.PREFACE + f.settings({f.INITIAL_WINDOW_SIZE: 2**24}) + head + body)
        for number in range(3, 9, 2):
            opened.sendall(b"".join(_grpc_call(number, request("x", bytes=3e6))))
        started = time.monotonic()
        everybody_else_is_served(front)
        assert time.monotonic() - started < 10
    eventually("nothing is buffered", lambda: front.metric("millrace_gateway_buffered_bytes") == 0, 20)


def test_a_client_that_sends_a_byte_at_a_time_is_answered(front: Server) -> None:
    head, body = _grpc_call(1, request("slow"))
    with connect(front.grpc) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in f.PREFACE + f.settings({}) + head + body:
            opened.sendall(bytes((byte,)))
        found = b""
        while b"grpc-status" not in found:
            found += opened.recv(65536)
        assert b"slow" in found
    with connect(front.rest) as opened:
        for byte in b'POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n{"instances": [7]}':
            opened.sendall(bytes((byte,)))
        assert b'"predictions": [7]' in opened.recv(65536)


def test_headers_that_do_not_come_are_not_waited_for(front: Server) -> None:
    with connect(front.rest) as slow, connect(front.grpc) as silent:
        slow.settimeout(20)
        silent.settimeout(20)
        slow.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: ")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        while silent.recv(1000):  # our SETTINGS, and then the end
            pass


def _grpc_call(stream: int, message: bytes, *more: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    fields = [(b":path", PREDICT.encode()), (b":authority", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    block = b"\x83\x86" + b"".join(f.literal(name, value) for name, value in fields)
    data = b"\x00" + len(message).to_bytes(4, "big") + message
    parts = [data[at : at + 16_384] for at in range(0, len(data), 16_384)]
    body = b"".join(f.frame(f.DATA, f.END_STREAM if part is parts[-1] else 0, stream, part) for part in parts)
    return f.headers(stream, block, end=False, most=2**14), body


def answered(front: Server, sent: bytes) -> bytes:
    """What comes back for frames after a good preface, until the gateway closes or says the status of stream 1."""
    with connect(front.grpc) as opened:
        opened.sendall(f.PREFACE + f.settings({}) + sent)
        found = b""
        while b"grpc-status" not in found:
            try:
                chunk = opened.recv(65536)
            except ConnectionResetError:
                break
            if not chunk:
                break
            found += chunk
        return found


@pytest.mark.parametrize(
    "header", [(b"x-evil", b"a\r\nx-track: stable"), (b"x-evil", b"a\x00b"), (b"X-Upper", b"a"), (b"connection", b"close"), (b"x y", b"z")]
)
def test_headers_that_smuggle_are_refused(front: Server, header: tuple[bytes, bytes]) -> None:
    head, body = _grpc_call(1, request("x"), header)
    found = answered(front, head + body)
    assert b"grpc-status\x013" in found  # INVALID_ARGUMENT


def test_an_id_that_is_no_text_is_refused(front: Server) -> None:
    head, body = _grpc_call(1, request("x"), (b"x-prediction-id", b"\xc3\xa9"))
    assert b"grpc-status\x013" in answered(front, head + body)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("DATA on stream 0", f.frame(f.DATA, 0, 0, b"x")),
        ("DATA for a stream that never was", f.frame(f.DATA, 0, 5, b"x")),
        ("HEADERS on an even stream", f.headers(2, b"\x83", end=True, most=100)),
        ("CONTINUATION of nothing", f.frame(f.CONTINUATION, f.END_HEADERS, 1, b"\x83")),
        ("a frame within a header block", f.frame(f.HEADERS, 0, 1, b"\x83") + f.frame(f.PING, 0, 0, b"12345678")),
        ("an index that is not there", f.headers(1, b"\xff\xff\xff\xff\x7f", end=True, most=100)),
        ("headers that do not end", f.frame(f.HEADERS, 0, 1, b"\x83") + f.frame(f.CONTINUATION, 0, 1, b"\x00" * 16_000) * 4),
        ("a window above 2^31-1", f.window_update(0, 2**31 - 1) * 2),
        ("a window of 0", f.window_update(0, 0)),
        ("SETTINGS of seven bytes", f.frame(f.SETTINGS, 0, 0, b"1234567")),
        ("SETTINGS on a stream", f.frame(f.SETTINGS, 0, 1)),
        ("a frame size that is not allowed", f.settings({f.MAX_FRAME_SIZE: 1})),
        ("an initial window that is not allowed", f.settings({f.INITIAL_WINDOW_SIZE: 2**31})),
        ("PING of three bytes", f.frame(f.PING, 0, 0, b"123")),
        ("PUSH_PROMISE", f.frame(f.PUSH_PROMISE, f.END_HEADERS, 1, b"\x00\x00\x00\x02")),
        ("more padding than payload", f.frame(f.HEADERS, f.PADDED | f.END_HEADERS, 1, b"\xff\x83")),
        ("a frame that is too large", f.head(2**20, f.DATA, 0, 1)),
        ("RST_STREAM for a stream that never was", f.reset(9, f.CANCEL)),
        ("WINDOW_UPDATE for a stream that never was", f.window_update(9, 1)),
        ("PRIORITY on stream 0", f.frame(f.PRIORITY, 0, 0, b"12345")),
    ],
)  # fmt: skip
def test_a_broken_rule_of_http_2_ends_the_connection_with_goaway(front: Server, name: str, sent: bytes) -> None:
    found = answered(front, sent)
    assert f.frame(f.GOAWAY, 0, 0, b"")[3:5] in found, name
    everybody_else_is_served(front)


def test_padding_priority_continuation_and_unknown_frames_are_understood(front: Server) -> None:
    head, body = _grpc_call(1, request("odd"))
    block = head[f.HEAD_SIZE :]
    padded = bytes((7,)) + b"\x00\x00\x00\x00\x10" + block[:30] + b"\x00" * 7
    sent = (
        f.frame(f.HEADERS, f.PADDED | f.PRIORITISED, 1, padded)
        + f.frame(f.CONTINUATION, 0, 1, block[30:31])
        + f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[31:])
    )
    data = body[f.HEAD_SIZE :]
    sent += f.frame(99, 0xFF, 1, b"unknown") + f.frame(f.PRIORITY, 0, 7, b"12345")
    sent += (
        f.frame(f.DATA, f.PADDED, 1, b"\x03" + data[:10] + b"\x00" * 3)
        + f.frame(f.DATA, 0, 1, data[10:])
        + f.frame(f.DATA, f.END_STREAM, 1)
    )
    found = answered(front, sent)
    assert (b"odd" in found, b"grpc-status\x010" in found) == (True, True)


def test_pings_that_are_never_read_end(front: Server) -> None:
    with connect(front.grpc) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.sendall(f.PREFACE + f.settings({}))
        ping = f.frame(f.PING, 0, 0, b"12345678") * 1000
        before = front.resident_mb()
        with contextlib.suppress(OSError):
            for _ in range(2000):
                opened.sendall(ping)
        assert front.resident_mb() - before < 30
    everybody_else_is_served(front)


def _some_frames() -> st.SearchStrategy[bytes]:
    streams = st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1])
    whole = st.builds(f.frame, st.integers(0, 12), st.integers(0, 255), streams, st.binary(max_size=60))
    good = st.builds(lambda stream, x: b"".join(_grpc_call(stream, request(x))), st.sampled_from([1, 3, 5, 7]), st.text(max_size=5))
    return st.lists(st.one_of(whole, good, st.binary(max_size=40)), max_size=8).map(b"".join)


@_FUZZ
@given(_some_frames(), st.booleans())
def test_any_bytes_on_the_grpc_port_harm_nobody_else(front: Server, sent: bytes, greeted: bool) -> None:
    _throw(front.grpc, (f.PREFACE + f.settings({}) if greeted else b"") + sent)
    _still_right(front)


@_FUZZ
@given(st.binary(max_size=300).flatmap(lambda message: st.sampled_from([message, b"\x0a\x03\x0a\x01m" + message])))
def test_any_message_is_answered_with_a_status(front: Server, message: bytes) -> None:
    head, body = _grpc_call(1, message)
    assert b"grpc-status" in answered(front, head + body)


@_FUZZ
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([
                b"POST /v1/models/m:predict HTTP/1.1\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
                b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"GET /v1/models/m HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n", b"x-prediction-id: a\r\n",
                b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b'{"instances": [1]}',
            ]),
        ),
        max_size=10,
    ).map(b"".join)
)  # fmt: skip
def test_any_bytes_on_the_rest_port_harm_nobody_else(front: Server, sent: bytes) -> None:
    _throw(front.rest, sent)
    _still_right(front)


def _throw(address: str, sent: bytes) -> None:
    """Send, and read a little of what comes back."""
    with connect(address) as opened, contextlib.suppress(OSError):
        opened.sendall(sent)
        opened.shutdown(socket.SHUT_WR)
        opened.settimeout(0.05)
        while opened.recv(65536):
            pass


_GOOD: dict[str, Any] = {}


def _still_right(front: Server) -> None:
    """A client on a kept connection is answered right. (A new one for each example would test the kernel.)"""
    if _GOOD.get("address") != front.grpc:
        _GOOD.update(address=front.grpc, grpc=channel(front.grpc), rest=HTTPConnection(front.rest, timeout=10))
    assert ask(_GOOD["grpc"], "good").x == "good"
    assert call(_GOOD["rest"], "POST", "/v1/models/m:predict", {"instances": ["good"]})[2]["predictions"] == ["good"]
    assert front.process.poll() is None
