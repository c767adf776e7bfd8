"""gRPC through the gateway, asked by grpcio and answered by grpc.aio, which know nothing of each other or of us."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from gateways import PREDICT, ask, channel, request
from mlserving import wire
from waiting import eventually


@pytest.fixture
def connection(world: Any) -> Iterator[Any]:
    with channel(world.gateway.grpc) as opened:
        yield opened


def test_every_answer_says_its_id_its_version_and_its_track(connection: Any) -> None:
    answers = [ask(connection, f"x{n}") for n in range(40)]
    for answer in answers:
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-prediction-id"])
        assert answer.headers["x-model-version"] == str(answer.version)
        assert answer.headers["x-track"] == {1: "stable", 2: "canary"}[answer.version]
        assert answer.headers["x-from"] == f"version-{answer.version}"  # the model server's own metadata passes
    assert len({answer.headers["x-prediction-id"] for answer in answers}) == 40
    assert {answer.version for answer in answers} == {1, 2}


def test_the_caller_s_own_id_is_kept_and_reaches_the_model_server(connection: Any, world: Any) -> None:
    answer = ask(connection, "mine", metadata=(("x-prediction-id", "order-4711_a"), ("x-tenant", "acme"), ("blob-bin", b"\x00\xff")))
    assert answer.headers["x-prediction-id"] == "order-4711_a"
    seen = {1: world.stable, 2: world.canary}[answer.version].seen()["metadata"][-1]
    assert (seen["x-prediction-id"], seen["x-tenant"], seen["blob-bin"]) == ("order-4711_a", "acme", str(b"\x00\xff"))


@pytest.mark.parametrize("identity", ["", "a b", "a" * 65, "a/b"])
def test_an_id_that_is_none_is_refused(connection: Any, identity: str) -> None:
    answer = ask(connection, "x", metadata=(("x-prediction-id", identity),))
    assert (answer.code, "x-prediction-id" in answer.details) == ("INVALID_ARGUMENT", True)


def test_the_same_user_always_gets_the_same_track(connection: Any) -> None:
    first = {f"u{n}": ask(connection, "x", metadata=(("x-user", f"u{n}"),)).headers["x-track"] for n in range(30)}
    again = {user: ask(connection, "y", metadata=(("x-user", user),)).headers["x-track"] for user in first}
    assert first == again
    assert set(first.values()) == {"stable", "canary"}


def test_a_request_that_names_a_version_or_a_label_goes_to_stable(connection: Any) -> None:
    assert {ask(connection, f"v{n}", version=9).headers["x-track"] for n in range(12)} == {"stable"}
    assert {ask(connection, f"l{n}", label="canary").headers["x-track"] for n in range(12)} == {"stable"}


def test_the_other_methods_are_routed_by_the_model_too(connection: Any) -> None:
    for method in ("Classify", "Regress"):
        assert ask(connection, method, path=f"/tensorflow.serving.PredictionService/{method}").version in {1, 2}
    message = wire.GetModelStatusRequest()
    message.model_spec.name = "m"
    body, told = connection.unary_unary("/tensorflow.serving.ModelService/GetModelStatus").with_call(
        message.SerializeToString(), timeout=10
    )
    assert wire.GetModelStatusResponse.FromString(body).model_version_status[0].version == 1
    assert dict(told.initial_metadata())["x-track"] == "stable"


def test_what_is_not_served_is_said_to_be_so(connection: Any) -> None:
    assert ask(connection, "x", model="nobody").code == "NOT_FOUND"
    assert ask(connection, "x", path="/tensorflow.serving.PredictionService/Predikt").code == "UNIMPLEMENTED"
    assert ask(connection, "x", path="/tensorflow.serving.ModelService/HandleReloadConfigRequest").code == "UNIMPLEMENTED"


@pytest.mark.parametrize("content", [b"\x0a\xff", b"\xff\xff\xff", b"\x0a\x05hello", b"\x0b\x0c", b"\x0a\x03\x0a\x01\xff"])
def test_a_message_that_is_no_protobuf_is_refused_before_anybody_is_asked(connection: Any, content: bytes) -> None:
    answer = ask(connection, "x", content=content)
    assert answer.code in {"INVALID_ARGUMENT", "NOT_FOUND"}


def test_a_status_of_the_model_server_passes_with_its_text(connection: Any) -> None:
    answer = ask(connection, "x", status=9)
    assert (answer.code, answer.details) == ("FAILED_PRECONDITION", "as asked: 9 – ü")
    assert answer.headers["x-track"] in {"stable", "canary"}
    assert answer.headers["x-model-version"] in {"1", "2"}


def test_health_is_answered_by_the_gateway_itself(connection: Any) -> None:
    check = connection.unary_unary("/grpc.health.v1.Health/Check")
    for service in ("", "tensorflow.serving.PredictionService"):
        answer = check(wire.HealthCheckRequest(service=service).SerializeToString(), timeout=5)
        assert wire.HealthCheckResponse.FromString(answer).status == 1
    with pytest.raises(grpc.RpcError) as refused:
        check(wire.HealthCheckRequest(service="other").SerializeToString(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_large_messages_pass_both_ways_at_once(connection: Any) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: ask(connection, f"{n}" * 8_000_000, bytes=8e6, timeout=60), range(4)))
    assert all(answer.size > 16_000_000 for answer in answers)


def test_a_request_above_the_limit_is_refused_and_the_connection_lives_on(connection: Any) -> None:
    answer = ask(connection, "x" * (13 * 2**20), timeout=60)
    assert (answer.code, "limits.body_mb" in answer.details) == ("RESOURCE_EXHAUSTED", True)
    assert ask(connection, "small").x == "small"


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_routed_and_passed_on(world: Any, algorithm: grpc.Compression) -> None:
    with channel(world.gateway.grpc) as opened:
        body, told = opened.unary_unary(PREDICT).with_call(request("z" * 5000, bytes=1000), timeout=10, compression=algorithm)
        response = wire.PredictResponse.FromString(body)
        assert response.outputs["x"].string_val[0] == b"z" * 5000
        assert dict(told.initial_metadata())["x-model-version"] == str(response.model_spec.version.value)


def test_hundreds_of_calls_at_a_time_each_get_their_own_answer(world: Any) -> None:
    def caller(number: int) -> Counter[int]:
        with channel(world.gateway.grpc) as opened:
            call = opened.unary_unary(PREDICT)
            futures = {f"{number}-{n}": call.future(request(f"{number}-{n}", sleep=0.001 * (n % 50)), timeout=60) for n in range(250)}
            found: Counter[int] = Counter()
            for x, future in futures.items():
                response = wire.PredictResponse.FromString(future.result())
                assert response.outputs["x"].string_val[0].decode() == x
                found[response.model_spec.version.value] += 1
            return found

    with ThreadPoolExecutor(4) as threads:
        total = sum(threads.map(caller, range(4)), Counter[int]())
    assert sum(total.values()) == 1000
    assert 0.4 < total[1] / 1000 < 0.6


def test_a_deadline_ends_a_call_whose_model_hangs_and_the_model_is_told(connection: Any, world: Any) -> None:
    before = world.stable.seen().get("cancelled", 0) + world.canary.seen().get("cancelled", 0)
    started = time.monotonic()
    assert ask(connection, "x", sleep=-1, timeout=0.4).code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 3
    eventually(
        "the call is cancelled at the server",
        lambda: world.stable.seen().get("cancelled", 0) + world.canary.seen().get("cancelled", 0) == before + 1,
        20,
    )
    eventually("nothing is under way", lambda: world.gateway.metric("millrace_gateway_in_flight") == 0, 20)


def test_the_model_server_is_told_what_is_left_of_the_deadline(connection: Any, world: Any) -> None:
    """grpc.aio ends the handler by itself when the deadline that it was told has passed."""
    before = world.gateway.metric("millrace_gateway_requests_total", code="DEADLINE_EXCEEDED")
    assert ask(connection, "x", sleep=30, timeout=0.3).code == "DEADLINE_EXCEEDED"
    eventually(
        "the call is counted", lambda: world.gateway.metric("millrace_gateway_requests_total", code="DEADLINE_EXCEEDED") == before + 1, 20
    )


def test_a_caller_that_cancels_frees_the_model_server(connection: Any, world: Any) -> None:
    before = world.stable.seen().get("cancelled", 0) + world.canary.seen().get("cancelled", 0)
    asked = world.stable.seen().get("predict", 0) + world.canary.seen().get("predict", 0)
    future = connection.unary_unary(PREDICT).future(request("x", sleep=-1))
    eventually("a server is asked", lambda: world.stable.seen().get("predict", 0) + world.canary.seen().get("predict", 0) > asked, 20)
    future.cancel()
    eventually(
        "the call is cancelled at the server",
        lambda: world.stable.seen().get("cancelled", 0) + world.canary.seen().get("cancelled", 0) == before + 1,
        20,
    )


def test_a_caller_that_goes_away_frees_the_model_server(world: Any) -> None:
    before = world.stable.seen().get("cancelled", 0) + world.canary.seen().get("cancelled", 0)
    asked = world.stable.seen().get("predict", 0) + world.canary.seen().get("predict", 0)
    opened = channel(world.gateway.grpc)
    futures = [opened.unary_unary(PREDICT).future(request("x", sleep=-1)) for _ in range(5)]
    eventually(
        "the servers are asked", lambda: world.stable.seen().get("predict", 0) + world.canary.seen().get("predict", 0) >= asked + 5, 20
    )
    opened.close()
    eventually(
        "all calls are cancelled at the servers",
        lambda: world.stable.seen().get("cancelled", 0) + world.canary.seen().get("cancelled", 0) == before + 5,
        20,
    )
    assert all(future.done() for future in futures)


def test_a_call_without_a_deadline_of_its_own_gets_the_model_s(tmp_path: Any, world: Any) -> None:
    from gateways import config, gateway

    with gateway(tmp_path, config(stable=(world.stable, 100), more="    deadline: 0.5\n")) as front, channel(front.grpc) as opened:
        started = time.monotonic()
        answer = ask(opened, "x", sleep=-1, timeout=None)
        assert (answer.code, time.monotonic() - started < 5) == ("DEADLINE_EXCEEDED", True)
        assert ask(opened, "y", timeout=None).x == "y"


def test_two_callers_with_other_metadata_on_one_connection_are_not_mixed_up(connection: Any) -> None:
    """HPACK's table changes with each new header; what is remembered of old blocks must not outlive it."""
    errors: list[BaseException] = []

    def caller(name: str) -> None:
        try:
            for n in range(60):
                identity = f"{name}-{n}"
                answer = ask(
                    connection, identity, metadata=(("x-prediction-id", identity), (f"x-{name}-{n % 7}", identity), ("x-user", name))
                )
                assert answer.headers["x-prediction-id"] == identity
        except BaseException as error:  # noqa: BLE001  shown below
            errors.append(error)

    threads = [threading.Thread(target=caller, args=(f"c{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
