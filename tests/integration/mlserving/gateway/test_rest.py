"""REST through the gateway, asked by http.client, aiohttp and curl, answered by aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import aiohttp
import pytest

from gateways import ask, call, channel, config, gateway, model_server, post
from waiting import eventually


@pytest.fixture
def connection(world: Any) -> Iterator[HTTPConnection]:
    opened = HTTPConnection(world.gateway.rest, timeout=20)
    yield opened
    opened.close()


def raw(address: str, sent: bytes, *, seconds: float = 10, half_close: bool = False) -> bytes:
    """What comes back for these bytes, until the other side closes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as opened:
        opened.sendall(sent)
        if half_close:
            opened.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := opened.recv(65536):
            found += chunk
        return found


def test_a_prediction_names_its_version_and_the_model_server_was_asked_for_that_one(connection: HTTPConnection) -> None:
    tracks = set()
    for n in range(30):
        status, headers, answer = call(connection, "POST", "/v1/models/m:predict", {"instances": [n]}, x_tenant="acme")
        assert (status, answer["predictions"]) == (200, [n])
        assert headers["x-model-version"] == str(answer["version"])
        assert headers["x-track"] == {1: "stable", 2: "canary"}[answer["version"]]
        assert re.fullmatch(r"[0-9a-f]{32}", headers["x-prediction-id"])
        assert headers["x-from"] == f"version-{answer['version']}"
        assert answer["headers"]["x-tenant"] == "acme"
        assert answer["headers"]["x-prediction-id"] == headers["x-prediction-id"]
        tracks.add(headers["x-track"])
    assert tracks == {"stable", "canary"}


def test_rest_and_grpc_agree_on_the_track_of_a_user(connection: HTTPConnection, world: Any) -> None:
    with channel(world.gateway.grpc) as opened:
        for n in range(20):
            _, headers, _ = call(connection, "POST", "/v1/models/m:predict", {"instances": [n]}, X_User=f"u{n}")
            assert headers["x-track"] == ask(opened, "x", metadata=(("x-user", f"u{n}"),)).headers["x-track"]


def test_questions_about_the_model_go_to_stable(connection: HTTPConnection) -> None:
    for _ in range(5):
        status, headers, answer = call(connection, "GET", "/v1/models/m")
        assert (status, headers["x-track"], answer["model_version_status"][0]["version"]) == (200, "stable", "1")


def test_a_named_version_goes_to_stable_as_it_is(connection: HTTPConnection) -> None:
    status, headers, answer = call(connection, "POST", "/v1/models/m/versions/1:predict", {"instances": [1]})
    assert (status, headers["x-track"], answer["version"]) == (200, "stable", 1)
    status, headers, answer = call(connection, "POST", "/v1/models/m/versions/77:predict", {"instances": [1]})
    assert (status, headers["x-track"], answer) == (404, "stable", {"error": "no m 77"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v1/models", 404), ("POST", "/v1/models/other:predict", 404), ("POST", "/v1/models/m:explain", 404),
        ("GET", "/v1/models/m:predict", 405), ("POST", "/v1/models/m", 405), ("HEAD", "/v1/models/m", 405), ("OPTIONS", "/v1/models/m:predict", 405),
        ("DELETE", "/v1/models/m", 405), ("POST", "/v1/models/m:predict/../x", 404), ("POST", "/v1/models/m/versions/x:predict", 404),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_and_the_connection_lives_on(connection: HTTPConnection, method: str, path: str, status: int) -> None:
    found, headers, answer = call(connection, method, path, {} if method == "POST" else None)
    assert found == status
    assert "allow" in headers or status == 404
    assert (answer is None) == (method == "HEAD")
    assert call(connection, "POST", "/v1/models/m:predict", {"instances": [1]})[0] == 200


def test_an_id_that_is_none_is_refused(connection: HTTPConnection) -> None:
    for identity in ("a b", "a" * 65, "../x"):
        status, _, answer = call(connection, "POST", "/v1/models/m:predict", {"instances": [1]}, x_prediction_id=identity)
        assert (status, "x-prediction-id" in answer["error"]) == (400, True)
    assert call(connection, "POST", "/v1/models/m:predict", {"instances": [1]}, x_prediction_id="mine")[1]["x-prediction-id"] == "mine"


def test_a_chunked_body_and_large_bodies_pass(world: Any) -> None:
    async def ask() -> None:
        async def pieces() -> Any:
            yield b'{"instances": ["'
            for _ in range(64):
                yield b"x" * 65536
            yield b'"], "bytes": 8000000}'

        async with aiohttp.ClientSession() as session:
            async with session.post(f"http://{world.gateway.rest}/v1/models/m:predict", data=pieces()) as response:
                answer = await response.json()
            assert (response.status, answer["predictions"] == ["x" * 65536 * 64], len(answer["more"])) == (200, True, 8_000_000)

    asyncio.run(ask())


def test_hundreds_of_callers_each_get_their_own_answer(world: Any) -> None:
    async def ask() -> None:
        connector = aiohttp.TCPConnector(limit=100)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(n: int) -> None:
                body = {"instances": [n], "sleep": 0.001 * (n % 40)}
                async with session.post(f"http://{world.gateway.rest}/v1/models/m:predict", json=body) as response:
                    answer = await response.json()
                    assert (response.status, answer["predictions"]) == (200, [n])
                    assert response.headers["x-model-version"] == str(answer["version"])

            await asyncio.gather(*(one(n) for n in range(600)))

    asyncio.run(ask())


def test_curl_gets_its_answer_with_expect_100(tmp_path: Any, world: Any) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": ["y" * 2_000_000]}))
    command = ["curl", "-sS", "-i", "-H", "Expect: 100-continue", "-d", f"@{body}", f"http://{world.gateway.rest}/v1/models/m:predict"]
    output = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
    assert output.startswith(b"HTTP/1.1 100 Continue")
    assert b"HTTP/1.1 200 OK" in output
    assert json.loads(output[output.index(b'{"pred') :])["predictions"] == ["y" * 2_000_000]


def test_a_body_above_the_limit_is_refused_before_it_is_sent(world: Any) -> None:
    answer = raw(
        world.gateway.rest, b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    host, port = world.gateway.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        opened.sendall(head)
        for _ in range(13):
            opened.sendall(chunk)
        assert opened.recv(100).startswith(b"HTTP/1.1 413 ")


def test_headers_without_end_are_refused(world: Any) -> None:
    assert raw(
        world.gateway.rest, b"GET /v1/models/m HTTP/1.1\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 500) for n in range(100))
    ).startswith(b"HTTP/1.1 431 ")
    assert raw(world.gateway.rest, b"GET /" + b"a" * 40_000).startswith(b"HTTP/1.1 431 ")
    assert raw(world.gateway.rest, b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models/m HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"GET /v1/models/m HTTP/1.1\r\n folded: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/models/m HTTP/9.9\r\n\r\n",
        b"CONNECT other:80 HTTP/1.1\r\nHost: other\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(world: Any, sent: bytes) -> None:
    answer = raw(world.gateway.rest, sent)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


def test_requests_sent_ahead_are_answered_in_their_order(world: Any) -> None:
    def one(n: int, more: str = "") -> bytes:
        body = json.dumps({"instances": [n], "sleep": 0.2 if n == 0 else 0}).encode()
        return f"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body

    answer = raw(
        world.gateway.rest, b"".join(one(n) for n in range(9)) + b"GET /nothing HTTP/1.1\r\n\r\n" + one(9, "Connection: close\r\n")
    )
    assert [int(found) for found in re.findall(rb'"predictions": \[(\d+)\]', answer)] == list(range(10))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * 9 + [b"404", b"200"]


def test_a_caller_of_http_1_0_and_one_that_closes_its_half_are_answered(world: Any) -> None:
    body = b'{"instances": [7]}'
    sent = b"POST /v1/models/m:predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert b'"predictions": [7]' in raw(world.gateway.rest, sent)
    assert b'"predictions": [7]' in raw(world.gateway.rest, sent.replace(b"1.0", b"1.1"), half_close=True)


def test_a_caller_that_goes_away_frees_the_model_server(world: Any) -> None:
    def cancelled() -> int:
        return int(world.stable.seen().get("cancelled", 0)) + int(world.canary.seen().get("cancelled", 0))

    def asked() -> int:
        return int(world.stable.seen().get("rest", 0)) + int(world.canary.seen().get("rest", 0))

    before, so_far = cancelled(), asked()
    host, port = world.gateway.rest.split(":")
    body = b'{"instances": [1], "sleep": -1}'
    opened = socket.create_connection((host, int(port)))
    opened.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    eventually("a server is asked", lambda: asked() > so_far, 20)
    opened.close()
    eventually("the request is cancelled at the server", lambda: cancelled() == before + 1, 20)


def test_a_model_that_hangs_is_given_up_at_the_model_s_deadline(tmp_path: Any, world: Any) -> None:
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(gateway(tmp_path, config(stable=(world.stable, 100), more="    deadline: 0.5\n")))
        connection = stack.enter_context(contextlib.closing(HTTPConnection(front.rest, timeout=10)))
        started = time.monotonic()
        status, headers, _ = call(connection, "POST", "/v1/models/m:predict", {"instances": [1], "sleep": -1})
        assert (status, "x-prediction-id" in headers, time.monotonic() - started < 5) == (504, True, True)
        assert call(connection, "POST", "/v1/models/m:predict", {"instances": [2]})[2]["predictions"] == [2]


def test_a_version_that_was_just_unloaded_is_asked_for_by_its_successor_s_number(tmp_path: Any) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(model_server(tmp_path / "m", "--version", "4"))
        front = stack.enter_context(gateway(tmp_path / "g", config(stable=(server, 100))))
        connection = stack.enter_context(contextlib.closing(HTTPConnection(front.rest, timeout=10)))
        for version in (4, 5, 6):
            post(f"http://{server.rest}/serve/{version}")
            status, headers, answer = call(connection, "POST", "/v1/models/m:predict", {"instances": [version]})
            assert (status, headers["x-model-version"], answer["version"]) == (200, str(version), version)


def test_a_header_of_the_connection_is_not_passed_on(connection: HTTPConnection) -> None:
    _, _, answer = call(
        connection, "POST", "/v1/models/m:predict", {"instances": [1]}, Connection="keep-alive, X-Secret", X_Secret="1", TE="trailers"
    )
    assert not {"X-Secret", "x-secret", "TE", "te"} & set(answer["headers"])
