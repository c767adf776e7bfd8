"""The address that Alertmanager posts to, as a server in a thread with a database of its own."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from mlpipelines.triggers.decide import Policy
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.tokens import Tokens
from mlpipelines.triggers.webhook import LARGEST_BODY, Parts, build_app
from mlserving.database import open_database
from mlserving.errors import Unavailable

TOKEN = "0123456789abcdef-token"
MODELS = {f"model-{n}": Policy(cooldown=0.0) for n in range(50)}


@dataclass
class Server:
    """What a test needs of it."""

    ledger: Ledger
    port: int = 0
    broken: bool = False
    woken: list[float] = field(default_factory=list)

    def facts(self, model: str) -> Facts:
        if self.broken:
            raise Unavailable("the labels cannot be counted")
        return Facts(policy=MODELS.get(model))

    def post(self, body: bytes, token: str = TOKEN, path: str = "/alerts") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, body, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)

    def metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "token").write_text(TOKEN)
    database = open_database(f"sqlite:///{tmp_path}/serving.db")
    made = Server(Ledger(database))
    parts = Parts(
        ledger=made.ledger, facts=made.facts, tokens=Tokens(tmp_path / "token"), woken=lambda: made.woken.append(time.monotonic())
    )
    running = uvicorn.Server(uvicorn.Config(build_app(parts), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    made.port = running.servers[0].sockets[0].getsockname()[1]
    yield made
    running.should_exit = True
    thread.join(timeout=30)
    database.dispose()


def an_alert(model: str = "model-1", fingerprint: str = "f", **changes: Any) -> dict[str, Any]:
    labels = {"alertname": "ModelDrifts", "model": model, "signal": "drift"}
    return {"status": "firing", "labels": labels, "startsAt": "2026-11-28T05:00:00Z", "fingerprint": fingerprint, **changes}


def a_message(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "groupKey": "g", "alerts": list(alerts)}).encode()


def reasons(answer: dict[str, Any]) -> list[str]:
    return [each["reason"] for each in answer["decisions"]]


def test_every_decision_is_a_200_with_its_reason(server: Server) -> None:
    status, answer = server.post(a_message(an_alert(), an_alert(), an_alert("nobody"), an_alert(status="resolved"), an_alert(labels={})))
    assert (status, reasons(answer)) == (200, ["started", "duplicate", "unknown-model", "resolved"])
    assert answer["unread"] == [{"fingerprint": "f", "why": "the alert has no label 'model'"}]
    assert server.woken
    assert [run.model for run in server.ledger.wanted()] == ["model-1"]


def test_an_outage_is_a_503_and_the_same_message_starts_its_run_once_it_is_over(server: Server) -> None:
    server.broken = True
    assert server.post(a_message(an_alert()))[0] == 503
    assert not server.ledger.wanted()
    server.broken = False
    assert reasons(server.post(a_message(an_alert()))[1]) == ["started"]


def test_without_a_token_nothing_is_decided(server: Server) -> None:
    assert server.post(a_message(an_alert()), token="0123456789abcdef-wrong")[0] == 401
    assert not server.ledger.wanted()
    assert 'millrace_trigger_refused_requests_total{why="token"} 1.0' in server.metrics()


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"x" * (LARGEST_BODY + 1), 413)], ids=["no message", "too large"])
def test_what_would_never_help_to_send_again_is_a_4xx(server: Server, body: bytes, status: int) -> None:
    assert server.post(body)[0] == status
    assert server.post(a_message(an_alert()))[0] == 200


def test_a_burst_of_a_thousand_alerts_for_fifty_models_starts_fifty_runs(server: Server) -> None:
    burst = [an_alert(f"model-{n % 50}", f"f{n}") for n in range(1000)]
    messages = [a_message(*burst[start : start + 100]) for start in range(0, 1000, 100)] * 2  # and the other Alertmanager says the same
    answers: list[tuple[int, dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda body=body: answers.append(server.post(body))) for body in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
    assert [status for status, _ in answers] == [200] * 20
    told = [reason for _, answer in answers for reason in reasons(answer)]
    assert (len(told), told.count("started")) == (2000, 50)
    assert sorted(run.model for run in server.ledger.wanted()) == sorted(MODELS)


def test_metrics_do_not_grow_with_names_that_strangers_make_up(server: Server) -> None:
    server.post(a_message(*(an_alert(f"made-up-{n}") for n in range(30))))
    assert 'millrace_trigger_decisions_total{model="",reason="unknown-model",signal="drift"} 30.0' in server.metrics()
