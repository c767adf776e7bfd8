"""Settings change, model servers come, go, hang and die, while callers ask without a pause: no answer is wrong, and failures are told apart."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from gateways import PREDICT, Server, ask, channel, config, gateway, model_server, post, request
from mlserving.gateway import frames as f
from raw_clients import GrpcClient
from under_load import Stream
from waiting import eventually


@contextmanager
def pair(folder: Any) -> Iterator[tuple[Server, Server]]:
    with model_server(folder / "one", "--version", "1") as one, model_server(folder / "two", "--version", "2") as two:
        yield one, two


def applied(front: Server, settings: str) -> None:
    """Write new settings and wait until they are in force."""
    before = front.tracks()["config"]["hash"]
    front.config.write_text(settings)
    eventually("the new settings are in force", lambda: front.tracks()["config"]["hash"] != before, 20)


def test_weights_move_and_tracks_come_and_go_without_a_failed_request(tmp_path: Any) -> None:
    with pair(tmp_path) as (one, two), gateway(tmp_path / "g", config(stable=(one, 100))) as front, Stream(front) as stream:
        stream.more()
        assert stream.versions() == {1}
        for weight in (1, 10, 50, 99):
            applied(front, config(stable=(one, 100 - weight), canary=(two, weight)))
            eventually("the canary is up", lambda: front.tracks()["models"]["m"]["tracks"]["canary"]["endpoints"][0]["up"], 20)
            stream.more(20)
        assert stream.versions() == {1, 2}
        for server, version in ((two, 2), (one, 1)):  # promoted, and rolled back
            applied(front, config(stable=(server, 100)))
            eventually(
                f"version {version} is up",
                lambda version=version: front.metric("millrace_gateway_endpoint_up", track="stable", version=str(version)) == 1,
                20,
            )
            stream.more(12)  # what was under way meanwhile
            stream.answers.clear()
            stream.more()
            assert stream.versions() == {version}
        assert time.time() - 60 < front.metric("millrace_gateway_weights_changed_timestamp_seconds", model="m") <= time.time()
    assert stream.failures == []


def test_settings_that_cannot_be_meant_leave_the_old_ones_in_force(tmp_path: Any) -> None:
    with pair(tmp_path) as (one, _), gateway(tmp_path / "g", config(stable=(one, 100))) as front, channel(front.grpc) as opened:
        before = front.tracks()["config"]["hash"]
        for text in ("models: [", "models: {}", config(stable=(one, 50)), "\x00"):
            errors = front.metric("millrace_gateway_config_errors_total")
            front.config.write_text(text)
            eventually(
                "an error in the settings is counted",
                lambda errors=errors: front.metric("millrace_gateway_config_errors_total") > errors,
                20,
            )
            assert front.tracks()["config"]["hash"] == before
            assert "gateway.yaml" in front.tracks()["config"]["error"]
            assert ask(opened, text).x == text
            assert front.metric("millrace_gateway_config_valid") == 0  # and stays so, though nothing is read anew
        time.sleep(1.5)
        assert front.metric("millrace_gateway_config_valid") == 0
        front.config.unlink()
        eventually("it says that the file cannot be read", lambda: "cannot be read" in front.tracks()["config"]["error"], 20)
        applied_text = config(stable=(one, 100), more="    deadline: 3\n")
        applied(front, applied_text)
        assert front.tracks()["config"]["error"] is None
        assert front.metric("millrace_gateway_config_valid") == 1


def test_a_version_swap_on_the_model_server_fails_nobody(tmp_path: Any) -> None:
    with (
        model_server(tmp_path / "m", "--version", "1") as server,
        gateway(tmp_path / "g", config(stable=(server, 100))) as front,
        Stream(front) as stream,
    ):
        for version in (2, 3, 4):
            stream.more(30)
            post(f"http://{server.rest}/serve/{version}")
        stream.more(30)
    assert stream.failures == []
    assert {1, 2, 3, 4} <= stream.versions()


def test_a_canary_that_is_killed_costs_nobody_an_answer(tmp_path: Any) -> None:
    with (
        pair(tmp_path) as (one, two),
        gateway(tmp_path / "g", config(stable=(one, 50), canary=(two, 50))) as front,
        Stream(front) as stream,
    ):
        stream.more()
        two.process.kill()
        stream.answers.clear()
        stream.more(150)
        assert front.metric("millrace_gateway_fallbacks_total", track="canary") > 0
        assert front.metric("millrace_gateway_endpoint_up", track="canary") == 0
        grpc_port, rest_port = two.grpc.split(":")[1], two.rest.split(":")[1]
        with model_server(tmp_path / "again", "--version", "2", "--grpc-port", grpc_port, "--rest-port", rest_port):
            eventually("the canary is up", lambda: front.metric("millrace_gateway_endpoint_up", track="canary") == 1, 20)
            stream.answers.clear()
            stream.more()
            assert stream.versions() == {1, 2}
    assert stream.failures == []


def test_a_canary_that_goes_by_sigterm_costs_nobody_an_answer(tmp_path: Any) -> None:
    with (
        pair(tmp_path) as (one, two),
        gateway(tmp_path / "g", config(stable=(one, 50), canary=(two, 50))) as front,
        Stream(front) as stream,
    ):
        stream.more()
        two.process.send_signal(signal.SIGTERM)
        stream.more(100)
        two.process.wait(20)
        stream.more(100)
    assert stream.failures == []


def test_a_stable_server_that_restarts_fails_only_while_nobody_is_there(tmp_path: Any) -> None:
    with model_server(tmp_path / "m", "--version", "1") as server:
        grpc_port, rest_port = server.grpc.split(":")[1], server.rest.split(":")[1]
        with gateway(tmp_path / "g", config(stable=(server, 100))) as front, Stream(front) as stream:
            stream.more()
            server.process.kill()
            eventually("a call fails", lambda: stream.failures, 20)
            with model_server(tmp_path / "n", "--version", "2", "--grpc-port", grpc_port, "--rest-port", rest_port):
                eventually("version 2 is up", lambda: front.metric("millrace_gateway_endpoint_up", track="stable", version="2") == 1, 20)
                time.sleep(0.1)  # what was refused a moment before is told
                failed = len(stream.failures)
                stream.more()
                assert len(stream.failures) == failed
    assert {failure.split(":")[0] for failure in stream.failures} <= {"gRPC UNAVAILABLE", "REST 502", "REST 503"}


def test_a_server_that_hangs_is_noticed_and_left_alone_until_it_goes_on(tmp_path: Any) -> None:
    with pair(tmp_path) as (one, two):
        settings = config(stable=(one, 50), canary=(two, 50), more="    deadline: 1.0\n")
        with gateway(tmp_path / "g", settings) as front, Stream(front, timeout=10) as stream:
            stream.more()
            two.process.send_signal(signal.SIGSTOP)
            eventually("the canary is down", lambda: front.metric("millrace_gateway_endpoint_up", track="canary") == 0, 20)
            eventually("nothing is under way there", lambda: front.metric("millrace_gateway_in_flight", track="canary") == 0, 20)
            failed = len(stream.failures)
            stream.more(100)
            assert len(stream.failures) == failed  # everybody is answered by stable
            two.process.send_signal(signal.SIGCONT)
            eventually("the canary is up again", lambda: front.metric("millrace_gateway_endpoint_up", track="canary") == 1, 20)
            stream.answers.clear()
            stream.more()
            assert 2 in stream.versions()
    assert {failure.split(":")[0] for failure in stream.failures} <= {"gRPC DEADLINE_EXCEEDED", "REST 504"}


def test_a_timeout_is_never_asked_again(tmp_path: Any) -> None:
    with (
        pair(tmp_path) as (one, two),
        gateway(tmp_path / "g", config(stable=(one, 50), canary=(two, 50))) as front,
        channel(front.grpc) as opened,
    ):
        for n in range(10):
            assert ask(opened, f"{n}", sleep=-1, timeout=0.2).code == "DEADLINE_EXCEEDED"
        assert one.seen()["predict"] + two.seen()["predict"] <= 10
        assert front.metric("millrace_gateway_retries_total") == 0


def test_sigterm_lets_everybody_finish_and_sends_them_away(tmp_path: Any) -> None:
    with pair(tmp_path) as (one, _), gateway(tmp_path / "g", config(stable=(one, 100)), "--drain", "1.5", "--grace", "10") as front:
        with channel(front.grpc) as opened:
            slow = opened.unary_unary(PREDICT).future(request("slow", sleep=3), timeout=20)
            eventually("the slow call has arrived", lambda: one.seen().get("predict", 0) >= 1, 20)
            with Stream(front) as stream:
                stream.more(20)
                front.process.send_signal(signal.SIGTERM)
                eventually("it is ready no more", lambda: _ready(front) == 503, 20)
                stream.more(20)  # while it drains, it goes on answering
                assert front.process.poll() is None
                stream._ending.set()
            assert slow.result()
        assert front.process.wait(20) == 0
    assert stream.failures == []


def _ready(front: Server) -> int:
    connection = HTTPConnection(front.admin, timeout=5)
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
    connection.close()
    return status


def test_behind_two_gateways_a_restart_of_one_fails_nobody_who_asks_again_where_told(tmp_path: Any) -> None:
    """A gRPC client that is told to go (GOAWAY) sends what was not looked at elsewhere by itself."""
    with (
        pair(tmp_path) as (one, _),
        gateway(tmp_path / "a", config(stable=(one, 100))) as first,
        gateway(tmp_path / "b", config(stable=(one, 100))) as second,
    ):
        addresses = f"{first.grpc},{second.grpc}"
        with channel(f"ipv4:{addresses}", ("grpc.lb_policy_name", "round_robin")) as opened:
            ask(opened, "warm")
            stopped = threading.Timer(0.3, lambda: first.process.send_signal(signal.SIGTERM))
            stopped.start()
            answers = [ask(opened, f"{n}") for n in range(400)]
            assert first.process.wait(20) == 0
            answers += [ask(opened, f"more{n}") for n in range(50)]
    assert {answer.code for answer in answers} == {"OK"}


def test_a_call_that_was_on_its_way_when_its_client_was_told_to_go_is_answered(tmp_path: Any) -> None:
    with pair(tmp_path) as (one, _), gateway(tmp_path / "front", config(stable=(one, 100))) as front, GrpcClient(front.grpc) as client:
        client.call(1, request("first"))
        client.told(b"grpc-status")
        front.process.send_signal(signal.SIGTERM)
        told = client.told(b"farewell")
        assert _goaways(told) == [2**31 - 1]
        client.call(3, request("on its way"))
        assert b"on its way" in client.told(b"grpc-status")
        client.send(f.frame(f.PING, f.ACK, 0, b"farewell"))
        assert _goaways(client.everything()) == [3]
        assert front.process.wait(20) == 0


def test_a_client_that_does_not_answer_is_told_its_last_call_all_the_same(tmp_path: Any) -> None:
    with pair(tmp_path) as (one, _), gateway(tmp_path / "front", config(stable=(one, 100))) as front, GrpcClient(front.grpc) as client:
        client.call(1, request("first"))
        client.told(b"grpc-status")
        front.process.send_signal(signal.SIGTERM)
        assert _goaways(client.everything()) == [2**31 - 1, 1]
        assert front.process.wait(20) == 0


def _goaways(told: bytes) -> list[int]:
    """The last streams that the GOAWAY frames in these bytes name."""
    found, at = [], 0
    while at + f.HEAD_SIZE <= len(told):
        high, low, kind, _, _ = f.read_head(told, at)
        if kind == f.GOAWAY:
            found.append(f.number(told, at + f.HEAD_SIZE))
        at += f.HEAD_SIZE + (high << 8 | low)
    return found


@pytest.mark.parametrize("option", ["--grpc-port", "--rest-port", "--admin-port"])
def test_a_port_that_is_taken_is_told(tmp_path: Any, option: str) -> None:
    with pair(tmp_path) as (one, _):
        (tmp_path / "gateway.yaml").write_text(config(stable=(one, 100)))
        ports = {"--grpc-port": "0", "--rest-port": "0", "--admin-port": "0"} | {option: one.rest.split(":")[1]}
        command = [
            sys.executable,
            "-m",
            "mlserving",
            "gateway",
            "--config",
            str(tmp_path / "gateway.yaml"),
            *(part for pair in ports.items() for part in pair),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, option in done.stderr) == (2, True)
