"""Clients that take their time or more than their share, and a spool without space: what each may cost is bounded, and nobody else pays."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from disks import fill, small_disk
from gateways import PREDICT, Server, ask, call, channel, config, gateway, model_server, request
from mlserving.gateway import frames as f
from mlserving.predictions import reading
from raw_clients import Client, GrpcClient
from waiting import eventually

MIB = 2**20
RESETS = 40
LIMITS = f"limits: {{in_flight: 50, buffered_mb: 24, head_seconds: 1, body_seconds: 1.5, answer_seconds: 2, idle_seconds: 3, resets: {RESETS}}}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with model_server(tmp_path_factory.mktemp("server"), "--version", "1") as found:
        yield found


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Server]:
    with gateway(tmp_path_factory.mktemp("front"), config(stable=(server, 100), more=LIMITS)) as found:
        yield found
        assert "Traceback" not in found.log()


def rest(body: object, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = ["POST /v1/models/m:predict HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def everybody_else_is_served(front: Server) -> None:
    with channel(front.grpc) as opened:
        assert ask(opened, "good").x == "good"
    connection = HTTPConnection(front.rest, timeout=10)
    assert call(connection, "POST", "/v1/models/m:predict", {"instances": ["good"]})[2]["predictions"] == ["good"]
    connection.close()


def cut_off(front: Server, protocol: str, reason: str) -> float:
    return front.metric("millrace_gateway_cut_off_total", protocol=protocol, reason=reason)


def nothing_is_left(front: Server) -> None:
    eventually("nothing is buffered", lambda: front.metric("millrace_gateway_buffered_bytes") == 0, 20)
    eventually("nothing is under way", lambda: front.metric("millrace_gateway_in_flight") == 0, 20)


# -- calls that are cancelled as fast as they are made ------------------------------------------------------------------------


def test_a_client_that_cancels_all_it_asks_is_told_to_calm_down_and_the_model_server_is_spared(front: Server, server: Server) -> None:
    before, cut = server.seen().get("predict", 0), cut_off(front, "grpc", "resets")
    with GrpcClient(front.grpc) as client:
        with contextlib.suppress(ConnectionError):
            for n in range(2000):
                client.call(2 * n + 1, request("x", sleep=-1))
                client.send(f.reset(2 * n + 1, f.CANCEL))
        client.everything()
    assert cut_off(front, "grpc", "resets") == cut + 1
    assert server.seen().get("predict", 0) - before <= RESETS + 1
    nothing_is_left(front)
    everybody_else_is_served(front)


def test_the_last_word_to_such_a_client_is_goaway_with_enhance_your_calm(front: Server) -> None:
    with GrpcClient(front.grpc) as client:
        for n in range(RESETS + 1):
            client.call(2 * n + 1, request("x", sleep=-1))
            client.send(f.reset(2 * n + 1, f.CANCEL))
        told = client.everything()
    goaway = told[told.rindex(b"more than 40 calls were cancelled") - 8 - f.HEAD_SIZE :]
    assert (f.read_head(goaway)[2], f.number(goaway, f.HEAD_SIZE + 4)) == (f.GOAWAY, f.ENHANCE_YOUR_CALM)


def test_a_client_that_lets_as_many_calls_be_answered_may_go_on_cancelling(front: Server) -> None:
    """As hedged requests do: grpcio cancels one of two, again and again."""
    cut = cut_off(front, "grpc", "resets")
    with channel(front.grpc) as opened:
        for n in range(RESETS * 2):
            twin = opened.unary_unary(PREDICT).future(request("twin", sleep=-1), timeout=20)
            assert ask(opened, f"{n}").x == f"{n}"
            twin.cancel()
    nothing_is_left(front)
    assert cut_off(front, "grpc", "resets") == cut


def test_calls_whose_time_is_over_may_all_be_cancelled(front: Server) -> None:
    """As good clients do while a server hangs: each ends its calls at their deadlines, by its own clock."""
    cut = cut_off(front, "grpc", "resets")
    with GrpcClient(front.grpc) as client:
        for batch in range(3):
            streams = [2 * n + 1 for n in range(batch * RESETS, (batch + 1) * RESETS)]
            for stream in streams:
                client.call(stream, request("x", sleep=-1), (b"grpc-timeout", b"1S"))
            eventually("all calls are under way", lambda: front.metric("millrace_gateway_in_flight") == RESETS, 20, every=0.02)
            time.sleep(0.96)
            client.send(b"".join(f.reset(stream, f.CANCEL) for stream in streams))
            eventually("nothing is under way", lambda: front.metric("millrace_gateway_in_flight") == 0, 20)
        client.call(2 * 3 * RESETS + 1, request("still"))
        client.told(b"still")
    assert cut_off(front, "grpc", "resets") == cut


# -- clients that take their time -------------------------------------------------------------------------------------------


def test_a_grpc_client_that_does_not_begin_is_cut_off_after_head_seconds(front: Server) -> None:
    cut, started = cut_off(front, "grpc", "head"), time.monotonic()
    with Client(front.grpc) as client:
        client.everything()
    assert 1 <= time.monotonic() - started < 8
    assert cut_off(front, "grpc", "head") == cut + 1


def test_a_rest_client_whose_headers_do_not_come_is_told_408_after_head_seconds(front: Server) -> None:
    started = time.monotonic()
    with Client(front.rest) as client:
        client.send(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: ")
        assert client.everything().startswith(b"HTTP/1.1 408 ")
    assert 1 <= time.monotonic() - started < 8


def test_headers_that_follow_a_request_and_do_not_end_are_not_waited_for_longer(front: Server) -> None:
    with Client(front.rest) as client:
        client.send(rest({"instances": [1]}) + b"POST /v1/mo")
        started = time.monotonic()
        told = client.everything()
        assert told.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in told
        assert time.monotonic() - started < 2.9  # idle_seconds is 3


def test_a_body_that_drips_is_not_waited_for(front: Server) -> None:
    with Client(front.rest) as client:
        client.send(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(12):
                client.send(b" ")
                time.sleep(0.25)
        assert client.everything().startswith(b"HTTP/1.1 408 ")
    with GrpcClient(front.grpc) as client:
        client.send(client.head(1) + f.frame(f.DATA, 0, 1, b"\x00"))
        client.told(b"grpc-status\x014")  # DEADLINE_EXCEEDED
    nothing_is_left(front)


def test_a_connection_that_nobody_uses_ends_after_idle_seconds(front: Server) -> None:
    with Client(front.rest) as client:
        client.send(rest({"instances": [1]}))
        started = time.monotonic()
        assert client.everything().count(b"HTTP/1.1 200 ") == 1
        assert 2.5 <= time.monotonic() - started < 10


def test_a_rest_client_that_does_not_take_its_answer_is_cut_off_after_answer_seconds(front: Server) -> None:
    cut = cut_off(front, "rest", "answer")
    with Client(front.rest, small=True) as client:
        client.send(rest({"instances": [1], "bytes": 12 * MIB}))
        eventually("the reader is cut off", lambda: cut_off(front, "rest", "answer") == cut + 1, 20)
    nothing_is_left(front)


def test_a_grpc_client_that_takes_a_byte_now_and_then_is_cut_off_all_the_same(front: Server) -> None:
    """It holds the memory of its answer; WINDOW_UPDATEs of one byte would hold it for ever."""
    cut = cut_off(front, "grpc", "answer")
    with GrpcClient(front.grpc, window=0) as client:
        client.call(1, request("x", bytes=MIB))
        eventually("more than 1 MiB is buffered", lambda: front.metric("millrace_gateway_buffered_bytes") > MIB, 20)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                client.send(f.window_update(1, 1))
                time.sleep(0.2)
                if cut_off(front, "grpc", "answer") > cut:
                    break
        assert cut_off(front, "grpc", "answer") == cut + 1
    nothing_is_left(front)


def test_an_answer_that_is_read_slowly_but_in_time_comes_whole(front: Server) -> None:
    with Client(front.rest, small=True) as client:
        client.send(rest({"instances": [1], "bytes": 4 * MIB}, "Connection: close"))
        found, started = bytearray(), time.monotonic()
        while chunk := client.socket.recv(65_536):
            found += chunk
            time.sleep(max(0.0, started + len(found) / (4 * MIB) - time.monotonic()))  # a second for all of it
    assert json.loads(found[found.index(b"\r\n\r\n") + 4 :])["more"] == "m" * 4 * MIB


# -- many of them -----------------------------------------------------------------------------------------------------------


def test_more_connections_than_are_let_in_are_closed_at_once_and_those_there_are_served(tmp_path: Path, server: Server) -> None:
    limits = config(stable=(server, 100), more="limits: {connections: 20}\n")
    with gateway(tmp_path, limits) as front, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(front.rest if n % 2 else front.grpc)) for n in range(20)]
        eventually("all are let in", lambda: front.metric("millrace_gateway_connections") == 20, 20)
        for address in (front.rest, front.grpc):
            assert stack.enter_context(Client(address)).everything() == b""
        assert front.metric("millrace_gateway_cut_off_total", reason="connections") == 2
        clients[1].send(rest({"instances": ["good"]}))
        assert clients[1].told(b'"predictions": ["good"]')
        for client in clients[2:6]:
            client.socket.close()
        eventually("four have gone", lambda: front.metric("millrace_gateway_connections") == 16, 20)
        everybody_else_is_served(front)


def test_many_clients_that_read_nothing_take_no_more_memory_than_is_given_to_all(front: Server) -> None:
    """Forty answers of 8 MiB; 24 MiB are given. Who finds no room is told so at once."""
    before = front.resident_mb()
    most = 0.0
    with contextlib.ExitStack() as stack:
        for number in range(40):
            if number % 2:
                client = stack.enter_context(Client(front.rest, small=True))
                client.send(rest({"instances": [number], "bytes": 8 * MIB}))
                client.socket.recv(1, socket.MSG_PEEK)  # it is being written
            else:
                frames = stack.enter_context(GrpcClient(front.grpc, small=True))
                frames.call(1, request("x", bytes=8 * MIB))
            most = max(most, front.resident_mb() - before)
        for _ in range(20):
            most = max(most, front.resident_mb() - before)
            time.sleep(0.05)
        assert front.metric("millrace_gateway_buffered_bytes") <= 24 * MIB
    assert most < 100
    nothing_is_left(front)
    everybody_else_is_served(front)


def test_a_rest_client_that_asks_on_and_on_and_reads_nothing_is_answered_once_at_a_time(front: Server, server: Server) -> None:
    """Each answer is 6 MiB; the next is not asked for before this one is taken."""
    before, asked = front.resident_mb(), server.seen().get("rest", 0)
    with Client(front.rest, small=True) as client:
        client.send(rest({"instances": [1], "bytes": 6 * MIB}) * 50)
        eventually("the server is asked", lambda: server.seen().get("rest", 0) > asked, 20)
        time.sleep(1)
        assert front.resident_mb() - before < 60
        assert server.seen()["rest"] - asked <= 2
    nothing_is_left(front)


def test_a_grpc_client_whose_nonsense_is_answered_and_never_read_does_not_fill_the_memory(front: Server) -> None:
    """A refusal is short, and a client may ask for a hundred thousand a second."""
    with GrpcClient(front.grpc, small=True) as client:
        block = client.head(1, (b"x y" * 13, b"z"))[f.HEAD_SIZE :]
        asked = [
            b"".join(f.headers(2 * n + 1, block, end=True, most=2**14) for n in range(at, at + 1000)) for at in range(0, 120_000, 1000)
        ]
        before = front.resident_mb()
        client.socket.settimeout(1)
        with contextlib.suppress(OSError):
            for each in asked:
                client.send(each)
        time.sleep(0.3)
        assert front.resident_mb() - before < 8
    everybody_else_is_served(front)


# -- no space for the log ---------------------------------------------------------------------------------------------------


def test_on_a_full_disk_requests_go_on_lost_log_records_are_counted_and_space_makes_it_well(tmp_path: Path, server: Server) -> None:
    """The spool has two MiB, and something else fills them. What was not dropped is in the log in the end, all of it."""
    settings, predictions = config(stable=(server, 100), more="    log: {share: 1.0}\n"), tmp_path / "predictions"
    with (
        small_disk(tmp_path / "disk", "2m") as disk,
        gateway(tmp_path / "g", settings, "--spool", str(disk / "spool"), "--predictions", str(predictions)) as front,
        channel(front.grpc) as opened,
    ):
        fill(disk / "ballast")
        started = time.monotonic()
        for n in range(250):  # 100 KB each to log: more than disk and queue hold
            assert ask(opened, f"{n}" + "x" * 50_000, timeout=5).code == "OK"
        assert time.monotonic() - started < 60
        dropped = front.metric("millrace_gateway_spool_dropped_total", reason="error")
        assert dropped > 0
        (disk / "ballast").unlink()
        eventually(
            "all that is spooled is logged",
            lambda: front.metric("millrace_predictions_logged_total") == front.metric("millrace_gateway_spooled_total"),
            60,
        )
        assert ask(opened, "with space again").code == "OK"
        assert front.metric("millrace_gateway_spooled_total") == 251 - dropped
        assert front.metric("millrace_gateway_spool_dropped_total") == dropped
        assert front.stop() == 0
        assert reading.log(predictions, "m").count() == 251 - dropped
