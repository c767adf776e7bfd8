"""What reviewers correct, the next model gets right: a gateway logs, people review what it logged, and the next training learns from them."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gateways import gateway
from mlserving import database
from mlserving.predictions import reading
from mlserving.review.cases import Person, Verdict
from mlserving.review.choose import Shares
from mlserving.review.delivery import send_to
from mlserving.review.fill import Plan, fill
from mlserving.review.outbox import Outbox
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database
from typed_commands import MILLRACE, environment, millrace, run
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SETTINGS = """
evaluation: {metric: accuracy, rule: not_worse, margin: 0.05}
deployment: {log: {share: 1.0, features: [page, referrer, seconds, visited_at]}}
"""
LOG = "    log: {share: 1.0, features: [page, referrer, seconds, visited_at], outputs: {label: label, confidence: confidence}}\n"
ANN = Person("ann")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What `millrace new` writes, with few rows."""
    millrace("new", "visits", "--team", "web", "--into", tmp_path, workspace=tmp_path / "w")
    file = tmp_path / "visits" / "project.yaml"
    text = file.read_text().replace("rows: 20000", "rows: 4000").replace("batch_size: 512", "batch_size: 128")
    file.write_text(text[: text.index("evaluation:")] + SETTINGS)
    return file.parent


def kiosks(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Visits of a kind that the source has none of: short ones from a kiosk, which all buy."""
    return [
        {"page": "home", "referrer": "kiosk", "seconds": 2.0 + n % 7, "visited_at": 1_767_000_000 + n} for n in range(first, first + count)
    ]


def others(count: int) -> list[dict[str, Any]]:
    return [{"page": "blog", "referrer": "", "seconds": 3.0, "visited_at": 1_767_100_000 + n} for n in range(count)]


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """`millrace serve`: where it answers REST. It takes new versions up by itself."""
    ready = workspace / "serve.json"
    command = [MILLRACE, "serve", "visits", "--grpc-port", "0", "--rest-port", "0", "--ready-file", str(ready)]
    with (
        (workspace / "serve.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment(workspace)) as process,
    ):
        try:
            eventually("the page is served or has ended", lambda: ready.exists() or process.poll() is not None, 180)
            yield str(json.loads(ready.read_text())["rest"])
        finally:
            process.kill()


def ask(rest: str, visits: Sequence[dict[str, Any]], path: str = "") -> list[str]:
    """What the model says, one request for each visit."""
    answers = []
    for visit in visits:
        body = json.dumps({"instances": [visit]}).encode()
        with urllib.request.urlopen(f"http://{rest}/v1/models/visits{path}:predict", body, timeout=60) as answer:
            answers.append(json.load(answer)["predictions"][0]["label"])
    return answers


def serves(rest: str, version: int) -> bool:
    """Whether it has taken the version up."""
    with urllib.request.urlopen(f"http://{rest}/v1/models/visits", timeout=60) as answer:
        states = {each["version"]: each["state"] for each in json.load(answer)["model_version_status"]}
    return states.get(str(version)) == "AVAILABLE"


def review(workspace: Path) -> Counter[str]:
    """Everything that was logged is reviewed by somebody who knows kiosks. Returns what they did."""
    tables, later = Database(database.address(workspace)), datetime.now(UTC) + timedelta(minutes=5)
    queue, predictions = ReviewQueue(tables), workspace / "predictions"
    fill(queue, predictions, "visits", Plan(capacity=1000, shares=Shares(double=0.0)), later, waiting=0)
    done: Counter[str] = Counter()
    while (case := queue.claim("visits", ANN, later)) is not None:
        wrong = case.features["referrer"] == "kiosk" and case.label != "bought"
        done[queue.review(case.seat, ANN, Verdict.CORRECT if wrong else Verdict.CONFIRM, "bought" if wrong else None, later)] += 1
    Outbox(tables).deliver(send_to(predictions), later + timedelta(minutes=1))
    tables.close()
    return done


def test_the_next_model_gets_right_what_reviewers_corrected(project: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    assert run(project, "--accept-schema", workspace=workspace)["status"] == "blessed"
    with served(workspace) as rest:
        config = f"models:\n  visits:\n    tracks:\n      stable: {{grpc: '{rest}', rest: '{rest}', weight: 100}}\n{LOG}"
        logged = ("--spool", str(tmp_path / "spool"), "--predictions", str(workspace / "predictions"))
        with gateway(tmp_path / "gateway", config, *logged) as front:
            assert set(ask(front.rest, kiosks(60))) == {"left"}, "the source has no kiosk: the model goes by the few seconds"
            ask(front.rest, others(20))
            front.stop()  # which has all of it written
        assert reading.log(workspace / "predictions", "visits").count() == 80
        assert review(workspace) == {"correct": 60, "confirm": 20}

        second = run(project, workspace=workspace)
        assert (second["status"], second["steps"]["ingest"]["status"]) == ("blessed", "done")
        assert second["facts"]["learned"] == "80 predictions among them, 80 that reviewers labelled"
        eventually("version 2 is served", lambda: serves(rest, 2), 120)
        assert set(ask(rest, kiosks(60), "/versions/2")) == {"bought"}
        assert set(ask(rest, kiosks(40, first=1000), "/versions/2")) == {"bought"}, "and others like them"
        assert set(ask(rest, others(20), "/versions/2")) == {"left"}

    sealed = pq.read_table(workspace / "projects" / "visits" / "sealed" / "test.parquet")
    assert "kiosk" not in sealed["referrer"].to_pylist()
    page = next((workspace / "projects" / "visits" / "runs" / second["run"]).rglob("verdict.html")).read_text()
    assert "80 that reviewers labelled" in page
    third = run(project, workspace=workspace)
    assert (third["status"], third["steps"]["ingest"]["status"]) == ("unchanged", "reused"), "nobody has said anything since"
