"""The route of docs/retraining.md in a real Alertmanager: what it sends to the trigger, and what only to people."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from alertmanager_server import AlertmanagerServer
from control_plane import free_ports
from triggers import until

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]
DOCS = Path(__file__).resolve().parents[3] / "docs" / "retraining.md"


def documented() -> dict[str, Any]:
    (text,) = re.findall(r"```yaml\n(route:.*?)```", DOCS.read_text(), re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def test_drift_and_quality_go_to_the_trigger_by_model_and_to_people_and_the_rest_to_people(tmp_path: Path) -> None:
    heard: dict[str, list[Any]] = {"trigger": [], "people": []}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard[self.path.strip("/")].append((self.headers.get("Authorization"), said))
            self.send_response(200)
            self.end_headers()

    (tmp_path / "token").write_text("0123456789abcdef-token")
    config = documented()
    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_port}"
        people, trigger = config["receivers"]
        people["webhook_configs"] = [{"url": f"{url}/people"}]
        trigger["webhook_configs"][0] |= {"url": f"{url}/trigger"}
        trigger["webhook_configs"][0]["http_config"]["authorization"]["credentials_file"] = str(tmp_path / "token")
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "1s"}
        with AlertmanagerServer(tmp_path / "alertmanager", free_ports(1)[0], config) as server:
            alerts = [
                {"alertname": "ModelFeatureDrift", "signal": "drift", "model": "cards", "column": "amount"},
                {"alertname": "ModelQualityLow", "signal": "quality", "model": "cards"},
                {"alertname": "ModelFeatureDrift", "signal": "drift", "model": "scam"},
                {"alertname": "ServingSlow", "model": "cards"},
            ]
            body = json.dumps([{"labels": labels, "startsAt": datetime.now(UTC).isoformat()} for labels in alerts]).encode()
            asked = urllib.request.Request(f"http://{server.address}/api/v2/alerts", body, {"Content-Type": "application/json"})
            urllib.request.urlopen(asked, timeout=10).close()
            until(lambda: len(heard["trigger"]) == 2 and sum(len(said["alerts"]) for _, said in heard["people"]) >= 4, 60)
        receiver.shutdown()
    by_model = {said["groupLabels"]["model"]: sorted(alert["labels"]["signal"] for alert in said["alerts"]) for _, said in heard["trigger"]}
    assert by_model == {"cards": ["drift", "quality"], "scam": ["drift"]}
    assert {authorization for authorization, _ in heard["trigger"]} == {"Bearer 0123456789abcdef-token"}
