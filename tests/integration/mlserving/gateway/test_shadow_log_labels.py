"""What is kept of requests: shadow copies that delay nobody, a fair sample of what was said, and labels."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateways import PREDICT, Server, ask, call, channel, config, gateway, model_server, request
from mlserving import wire
from mlserving.predictions import reading
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.spool import SpoolReader
from waiting import eventually


def spooled(folder: Path) -> list[Exchange]:
    """Every exchange that lies in a spool."""
    reader = SpoolReader(folder)
    return [exchange for segment in reader.finished() for exchange in reader.read(segment)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("servers")
    with (
        model_server(folder / "stable", "--version", "1") as stable,
        model_server(folder / "canary", "--version", "2") as canary,
        model_server(folder / "shadow", "--version", "3") as shadow,
    ):
        yield stable, canary, shadow


def test_every_request_is_copied_to_a_shadow_that_is_told_nothing_else(tmp_path: Path, servers: Any) -> None:
    stable, _, shadow = servers
    with gateway(tmp_path, config(stable=(stable, 100), shadow=(shadow, 100))) as front, channel(front.grpc) as opened:
        before = shadow.seen().get("predict", 0), shadow.seen().get("rest", 0)
        assert {ask(opened, f"s{n}").version for n in range(20)} == {1}
        connection = HTTPConnection(front.rest, timeout=10)
        for n in range(10):
            assert call(connection, "POST", "/v1/models/m:predict", {"instances": [n]})[2]["version"] == 1
        connection.close()
        eventually("the shadow has answered", lambda: front.metric("millrace_gateway_shadow_total", outcome="answered") == 30, 20)
        assert (shadow.seen()["predict"] - before[0], shadow.seen()["rest"] - before[1]) == (20, 10)
        assert front.metric("millrace_gateway_requests_total", track="shadow", version="3") == 30


def test_a_shadow_that_hangs_delays_nobody_and_its_copies_are_bounded(tmp_path: Path, servers: Any) -> None:
    stable, _, _ = servers
    with contextlib.ExitStack() as stack:
        shadow = stack.enter_context(model_server(tmp_path / "own", "--version", "3"))
        front = stack.enter_context(gateway(tmp_path / "g", config(stable=(stable, 100), shadow=(shadow, 100), more="    deadline: 5\n")))
        opened = stack.enter_context(channel(front.grpc))
        alone = sorted(_seconds(opened, f"a{n}") for n in range(60))[30]
        shadow.process.send_signal(signal.SIGSTOP)
        beside = sorted(_seconds(opened, f"b{n}") for n in range(150))[75]
        assert beside < max(3 * alone, 0.05)  # a copy that delayed would take the deadline's five seconds
        outcomes = [front.metric("millrace_gateway_shadow_total", outcome=outcome) for outcome in ("dropped", "unavailable")]
        assert sum(outcomes) >= 150 - 64
        assert front.metric("millrace_gateway_in_flight", track="shadow") <= 64
        shadow.process.send_signal(signal.SIGCONT)
        eventually("nothing is under way at the shadow", lambda: front.metric("millrace_gateway_in_flight", track="shadow") == 0, 20)


def _seconds(opened: Any, x: str) -> float:
    started = time.perf_counter()
    assert ask(opened, x).code == "OK"
    return time.perf_counter() - started


def test_a_share_of_all_tracks_is_spooled_with_the_bytes_that_were_sent(tmp_path: Path, servers: Any) -> None:
    stable, canary, shadow = servers
    settings = config(stable=(stable, 50), canary=(canary, 50), shadow=(shadow, 100), more="    log: {share: 0.5}\n")
    answers = {}
    with gateway(tmp_path / "g", settings, "--spool", str(tmp_path / "spool")) as front, channel(front.grpc) as opened:
        for n in range(60):
            answer = ask(opened, f"x{n}", metadata=(("x-prediction-id", f"id-{n}"),))
            answers[f"id-{n}"] = (answer, request(f"x{n}"))
        assert ask(opened, "bad", status=3, metadata=(("x-prediction-id", "failed"),)).code == "INVALID_ARGUMENT"
        eventually("the shadow has answered", lambda: front.metric("millrace_gateway_shadow_total", outcome="answered") == 60, 20)
        assert front.stop() == 0
    found = spooled(tmp_path / "spool")
    mine = [each for each in found if each.track != "shadow"]
    assert {each.track for each in found} == {"stable", "canary", "shadow"}
    assert 15 < len(mine) < 45
    assert {each.prediction_id for each in found if each.track == "shadow"} == {each.prediction_id for each in mine}
    for each in mine:
        answer, sent = answers[each.prediction_id]
        assert (each.request, each.version, each.protocol, each.method, each.model) == (sent, answer.version, "grpc", "Predict", "m")
        assert wire.PredictResponse.FromString(each.response).outputs["x"].string_val[0].decode() == answer.x
        assert each.track == answer.headers["x-track"]
        assert 0 < each.latency_us < 20_000_000
        assert abs(each.time_us / 1e6 - time.time()) < 120


def test_a_compressed_request_is_spooled_plain(tmp_path: Path, servers: Any) -> None:
    stable, _, _ = servers
    settings = config(stable=(stable, 100), more="    log: {share: 1}\n")
    with gateway(tmp_path / "g", settings, "--spool", str(tmp_path / "spool")) as front, channel(front.grpc) as opened:
        opened.unary_unary(PREDICT)(request("z" * 3000), timeout=10, compression=grpc.Compression.Gzip)
        assert front.stop() == 0
    assert [each.request for each in spooled(tmp_path / "spool")] == [request("z" * 3000)]


def test_labels_are_on_the_disk_when_the_caller_is_told_so(tmp_path: Path, servers: Any) -> None:
    folders = ["--spool", str(tmp_path / "spool"), "--predictions", str(tmp_path / "predictions")]
    with gateway(tmp_path / "g", config(stable=(servers[0], 100)), *folders) as front:
        connection = HTTPConnection(front.rest, timeout=10)
        labels = {"model": "m", "labels": [{"prediction_id": "two", "label": "fraud"}, {"prediction_id": "", "label": "x"}]}
        status, _, answer = call(connection, "POST", "/v1/labels", labels)
        assert (status, answer["stored"], answer["refused"][0]["index"]) == (200, 1, 1)
        assert call(connection, "POST", "/v1/labels", ["no"])[0] == 400
        assert call(connection, "GET", "/v1/labels")[0] == 404
        connection.close()
        front.process.kill()
    rows = [row for batch in reading.labels(tmp_path / "predictions", "m") for row in batch.to_pylist()]
    assert [(row["prediction_id"], row["label"], row["source"]) for row in rows] == [("two", "fraud", "api")]


def test_a_recorder_that_dies_is_started_again(tmp_path: Path, servers: Any) -> None:
    folders = ["--spool", str(tmp_path / "spool"), "--predictions", str(tmp_path / "predictions")]
    with gateway(tmp_path / "g", config(stable=(servers[0], 100)), *folders) as front:
        eventually("a recorder runs", lambda: recorders(front), 20)
        first = recorders(front)[0]
        os.kill(first, signal.SIGKILL)
        eventually("the restart is counted", lambda: front.metric("millrace_gateway_recorder_restarts_total") == 1, 20)
        eventually("another recorder runs", lambda: recorders(front) and recorders(front) != [first], 20)
        assert front.stop() == 0
        assert not Path(f"/proc/{first}").exists()


def recorders(front: Server) -> list[int]:
    """The processes that the gateway has started as recorders."""
    children = Path(f"/proc/{front.process.pid}/task/{front.process.pid}/children").read_text().split()
    return [int(child) for child in children if b"record" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")]


def test_without_a_predictions_folder_labels_are_refused_and_not_lost_silently(tmp_path: Path, servers: Any) -> None:
    with gateway(tmp_path, config(stable=(servers[0], 100))) as front:
        connection = HTTPConnection(front.rest, timeout=10)
        status, _, answer = call(connection, "POST", "/v1/labels", {"model": "m", "labels": []})
        connection.close()
    assert (status, "--predictions" in json.dumps(answer)) == (503, True)
