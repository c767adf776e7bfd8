"""The route to the trigger in a real Alertmanager, as docs/retraining.md has it and as the chart gives it to the Prometheus operator: what it sends to the
trigger, and what only to people.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
from alertmanager_server import AlertmanagerServer
from chart_renders import ROOT, cases, render
from control_plane import free_ports
from operator_kinds import joined
from waiting import eventually

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]
ROUTE = ROOT / "helm" / "retraining" / "alertmanager" / "route.yaml"
TOKEN = "0123456789abcdef-token"
ALERTS = [
    {"alertname": "ModelFeatureDrift", "signal": "drift", "model": "cards", "column": "amount", "namespace": "serving"},
    {"alertname": "ModelQualityLow", "signal": "quality", "model": "cards", "namespace": "serving"},
    {"alertname": "ModelFeatureDrift", "signal": "drift", "model": "scam", "namespace": "ml"},
    {"alertname": "ModelFeatureDrift", "signal": "drift", "model": "theirs", "namespace": "another"},
    {"alertname": "ServingSlow", "model": "cards", "namespace": "serving"},
]


class Ears:
    """Whoever is told: by path, the messages with what they showed."""

    def __init__(self) -> None:
        self.heard: dict[str, list[tuple[str | None, Any]]] = {"trigger": [], "people": []}
        ears = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ears.heard[self.path.strip("/")].append((self.headers.get("Authorization"), said))
                self.send_response(200)
                self.end_headers()

        self.server = HTTPServer(("127.0.0.1", 0), Receiver)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def by_model(self) -> dict[str, list[str]]:
        """What the trigger was told, a message for each model."""
        said = [message for _, message in self.heard["trigger"]]
        return {each["groupLabels"]["model"]: sorted(alert["labels"]["signal"] for alert in each["alerts"]) for each in said}


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    threading.Thread(target=ears.server.serve_forever, daemon=True).start()
    yield ears
    ears.server.shutdown()
    ears.server.server_close()


def told(folder: Path, config: dict[str, Any], ears: Ears, messages: int) -> None:
    """Give the alerts to an Alertmanager of this configuration, until so many messages have come to the trigger and people know all."""
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = "1s"
    with AlertmanagerServer(folder, free_ports(1)[0], config) as server:
        body = json.dumps([{"labels": labels, "startsAt": datetime.now(UTC).isoformat()} for labels in ALERTS]).encode()
        asked = urllib.request.Request(f"http://{server.address}/api/v2/alerts", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(asked, timeout=10).close()

        def heard() -> bool:
            known = {alert["fingerprint"] for _, said in ears.heard["people"] for alert in said["alerts"]}
            return len(ears.heard["trigger"]) >= messages and len(known) == len(ALERTS)

        eventually("it is heard", heard, 60)
    assert {authorization for authorization, _ in ears.heard["trigger"]} == {f"Bearer {TOKEN}"}


def test_the_documented_route_is_the_chart_s() -> None:
    page = (ROOT / "docs" / "retraining.md").read_text()
    assert re.findall(r"```yaml\n(route:.*?)```", page, re.DOTALL) == [ROUTE.read_text()]


def test_drift_and_quality_go_to_the_trigger_by_model_and_to_people_and_the_rest_to_people(tmp_path: Path, ears: Ears) -> None:
    (tmp_path / "token").write_text(TOKEN)
    config: dict[str, Any] = yaml.safe_load(ROUTE.read_text())
    people, trigger = config["receivers"]
    people["webhook_configs"] = [{"url": f"{ears.url}/people"}]
    trigger["webhook_configs"][0] |= {"url": f"{ears.url}/trigger"}
    trigger["webhook_configs"][0]["http_config"]["authorization"]["credentials_file"] = str(tmp_path / "token")
    told(tmp_path / "alertmanager", config, ears, 3)
    assert ears.by_model() == {"cards": ["drift", "quality"], "scam": ["drift"], "theirs": ["drift"]}


@pytest.mark.control_plane
@pytest.mark.skipif(not binaries.ready(["helm"]), reason=f"no helm: type `{binaries.COMMAND}`")
def test_by_the_operator_the_trigger_hears_of_the_namespaces_that_are_named_and_people_of_all(tmp_path: Path, ears: Ears) -> None:
    things = yaml.safe_load_all(render(cases("retraining")["everything"]))
    objects = [thing for thing in things if thing and thing["kind"] == "AlertmanagerConfig"]
    for hook in [hook for each in objects for said in each["spec"]["receivers"] for hook in said["webhookConfigs"]]:
        assert hook["url"] == "https://retraining.ml.svc:443/alerts"
        hook["url"] = f"{ears.url}/trigger"
    people = {"name": "people", "webhook_configs": [{"url": f"{ears.url}/people"}]}
    base = {"route": {"receiver": "people", "routes": [{"receiver": "people"}]}, "receivers": [people]}
    told(tmp_path, joined(base, objects, {"trigger-token-of-alertmanager": TOKEN}), ears, 2)
    assert ears.by_model() == {"cards": ["drift", "quality"], "scam": ["drift"]}
