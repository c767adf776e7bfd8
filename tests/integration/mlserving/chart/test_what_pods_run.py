"""The commands that the chart writes for monitor and review, run here as they stand, with our folders in the place of the pod's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from identity_proxy import AUDIENCE, Signer, key_server, key_set
from mlserving import store
from mlserving.review.people import People
from prediction_rows import a_prediction, write_log
from waiting import eventually

Objects = Callable[..., dict[tuple[str, str], Any]]
CHOSEN = (
    "--set", "gateway.predictions.kind=claim,gateway.predictions.claim.name=log,monitor.enabled=true,monitor.golden=false",
    "--set", "review.enabled=true,review.database.claim.name=queue,review.access.users.name=people,review.fill.keepDays=1",
)  # fmt: skip
PROXY = ("--set", "review.access.kind=proxy,review.access.secret.name=proxy,review.access.addresses={127.0.0.0/8}")
IAP = ("--set", f"review.access.kind=iap,review.access.audience={AUDIENCE}")
pytestmark = [pytest.mark.timeout(240)]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """What a pod's volumes hold: a published version, a log of today, a queue to be made, secrets."""
    folders = {name: tmp_path / name for name in ("store", "predictions", "workspace", "secrets")}
    (folders["store"] / "cards" / "7" / "assets.extra").mkdir(parents=True)
    (folders["store"] / "cards" / "7" / "saved_model.pb").touch()
    (folders["store"] / "cards" / "7" / store.REVIEW_SETTINGS).write_text('{"capacity": 5, "double": 0.0, "random": 0.0}')
    then = datetime.now(UTC) - timedelta(minutes=10)
    rows = [
        a_prediction(number, **{"model": "cards", "version": 7, "time": then, "confidence": number / 100, "feature/amount": float(number)})
        for number in range(50)
    ]
    write_log(folders["predictions"], rows, {"feature/amount": pa.float32()})
    for name in ("users", "proxy"):
        (folders["secrets"] / name).mkdir(parents=True)
    People(folders["secrets"] / "users" / "users.json").add("ann", "reviewer")
    (folders["secrets"] / "proxy" / "secret").write_text("what only the proxy knows")
    return folders


def command(container: Mapping[str, Any], folders: Mapping[str, Path]) -> list[str]:
    """A container's arguments with our folders, and free ports on this machine only."""
    text = "\n".join(container["args"])
    for name, folder in folders.items():
        text = re.sub(rf"=/{name}(?=[/\n]|$)", f"={folder}", text)
    text = re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", text).replace("--host=0.0.0.0", "--host=127.0.0.1")
    return [sys.executable, "-m", "mlserving", *re.sub(r"--port=\d+", "--port=0", text).split("\n")]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}


@contextmanager
def running(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(arguments, stderr=file, stdout=subprocess.DEVNULL, env=environment()) as process:
        try:
            yield process
        finally:
            process.terminate()


def got(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def probes(container: Mapping[str, Any]) -> dict[str, set[str]]:
    """The paths that the kubelet asks for, by port."""
    asked = [container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    return {port: {get["path"] for get in asked if get["port"] == port} for port in {get["port"] for get in asked}}


def container_of(objects: Objects, name: str, *values: str) -> Any:
    (found,) = objects(*CHOSEN, *values)["Deployment", f"cards-{name}"]["spec"]["template"]["spec"]["containers"]
    return found


def test_the_monitor_looks_at_the_log_and_answers_its_probes(objects: Objects, folders: dict[str, Path], tmp_path: Path) -> None:
    container, log = container_of(objects, "monitor"), tmp_path / "monitor.log"
    with running(command(container, folders), log):
        found = eventually("it listens", lambda: re.search(r"metrics on (http://\S+)/metrics", log.read_text()), 90)
        assert probes(container) == {"metrics": {"/metrics"}}
        rows = eventually("it has looked", lambda: re.findall(r"millrace_monitor_rows{.*} (\S+)", got(f"{found[1]}/metrics")), 60)
        assert rows == ["50.0"]


def test_the_queue_is_filled_and_people_come_to_the_page(objects: Objects, folders: dict[str, Path], tmp_path: Path) -> None:
    job = objects(*CHOSEN)["CronJob", "cards-review-fill"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for container in job["containers"]:
        done = subprocess.run(command(container, folders), capture_output=True, text=True, check=False, env=environment(), timeout=120)
        assert done.returncode == 0, done.stderr
        if container["name"] == "fill":
            assert "5 are to be reviewed (5 uncertain" in done.stdout, "as the version says that is served"
    container, ready = container_of(objects, "review"), tmp_path / "ready.json"
    with running([*command(container, folders), f"--ready-file={ready}"], tmp_path / "review.log"):
        eventually("the page is served", ready.exists, 90)
        said = json.loads(ready.read_text())
        for path in probes(container)["page"]:
            got(f"{said['url']}{path}")
        assert 'millrace_review_open_cases{model="cards"} 5.0' in got(said["metrics"])
        assert "token" in got(said["url"]), "people sign in"


def test_a_proxy_that_the_chart_names_is_believed(objects: Objects, folders: dict[str, Path], tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with running([*command(container_of(objects, "review", *PROXY), folders), f"--ready-file={ready}"], tmp_path / "review.log"):
        eventually("the page is served", ready.exists, 90)
        url = json.loads(ready.read_text())["url"]
        said = {"X-Forwarded-Email": "ann@example.com", "X-Millrace-Proxy-Secret": "what only the proxy knows"}
        assert "ann@example.com" in got(url, **said)
        assert "ann@example.com" not in got(url, **{**said, "X-Millrace-Proxy-Secret": "a guess"})


def test_an_identity_aware_proxy_that_the_chart_names_is_verified(objects: Objects, folders: dict[str, Path], tmp_path: Path) -> None:
    ready, signer = tmp_path / "ready.json", Signer("one")
    with key_server(key_set(signer)) as keys:
        arguments = [*command(container_of(objects, "review", *IAP), folders), f"--ready-file={ready}", f"--iap-keys={keys.url}"]
        with running(arguments, tmp_path / "review.log"):
            eventually("the page is served", ready.exists, 90)
            url = json.loads(ready.read_text())["url"]
            assert "ann@example.com" in got(url, **{"X-Goog-Iap-Jwt-Assertion": signer.assertion()})
            assert "ann@example.com" not in got(url, **{"X-Goog-Iap-Jwt-Assertion": Signer("one").assertion()})
