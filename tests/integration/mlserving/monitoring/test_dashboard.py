"""Every query of the serving dashboard, asked of a real Prometheus; and TensorFlow Serving's names, after the rules that the chart gives Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import dashboards
from prometheus_server import PrometheusServer

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).resolve().parents[4]
DASHBOARD = dashboards.read(ROOT / "helm" / "model-serving" / "dashboards" / "model-serving.json")
QUERIES = dashboards.questions(DASHBOARD)
VERSION = {"model": "cards", "track": "canary", "version": "8"}
REQUEST = {**VERSION, "protocol": "grpc"}
COUNTERS: list[tuple[str, dict[str, str]]] = [
    ("gateway_requests_total", {**REQUEST, "code": "OK"}),
    ("gateway_requests_total", {**REQUEST, "code": "INTERNAL"}),
    ("gateway_requests_total", {"model": "cards", "track": "", "version": "", "protocol": "rest", "code": "503"}),
    *(("gateway_request_seconds_bucket", {**REQUEST, "le": le}) for le in ("0.01", "0.1", "+Inf")),
    *(("gateway_added_seconds_bucket", {"protocol": "grpc", "le": le}) for le in ("0.001", "0.01", "+Inf")),
    *(("prediction_confidence_bucket", {**VERSION, "le": le}) for le in ("0.5", "0.9", "+Inf")),
    *(("prediction_class_total", {**VERSION, "class": name}) for name in ("tools", "travel")),
    ("gateway_shadow_total", {"model": "cards", "outcome": "late"}),
    ("gateway_retries_total", {"model": "cards", "track": "stable"}),
    ("gateway_fallbacks_total", {"model": "cards", "track": "canary"}),
    ("gateway_spooled_total", {"model": "cards", "track": "stable"}),
    ("gateway_spool_dropped_total", {"reason": "full"}),
    ("predictions_logged_total", VERSION),
    ("predictions_dropped_total", {"model": "cards", "reason": "unreadable"}),
    ("labels_total", {"model": "cards", "source": "api"}),
    ("gateway_recorder_restarts_total", {}),
    ("review_reviews_total", {"model": "cards", "verdict": "correct"}),
]
GROUP = {**VERSION, "slice": ""}
ROLLOUT = {"model": "cards", "rollout": "r1"}
GAUGES: list[tuple[str, dict[str, str]]] = [
    ("gateway_config_valid", {}),
    ("gateway_weights_changed_timestamp_seconds", {"model": "cards"}),
    ("rollout_phase", {**ROLLOUT, "phase": "canary"}),
    ("rollout_step", ROLLOUT),
    ("rollout_steps", ROLLOUT),
    ("rollout_verdict", {**ROLLOUT, "verdict": "ok"}),
    ("gateway_track_weight", {"model": "cards", "track": "canary"}),
    ("gateway_in_flight", {"model": "cards", "track": "canary"}),
    ("gateway_endpoint_up", {**VERSION, "endpoint": "10.0.0.5:8500"}),
    *(("monitor_drift_distance", {**GROUP, "slice": place, "column": "amount", "measure": "jensen-shannon"}) for place in ("", "shop=a")),
    *(("monitor_drift_threshold", {**GROUP, "slice": place, "column": "amount"}) for place in ("", "shop=a")),
    ("monitor_quality", {**GROUP, "metric": "accuracy"}),
    ("monitor_quality_low", {**GROUP, "metric": "accuracy"}),
    ("monitor_labelled_ratio", GROUP),
    ("monitor_reviewed_ratio", GROUP),
    ("monitor_parity_failures", {"model": "cards", "version": "8"}),
    *(
        (f"review_{name}", {"model": "cards"})
        for name in ("open_reviews", "overdue_reviews", "accuracy", "accuracy_low", "accuracy_high", "agreement_alpha")
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), dashboards.history(COUNTERS, GAUGES)) as running:
        yield running


@pytest.mark.parametrize("question", QUERIES)
def test_a_panel_shows_something_under_a_name_that_tells_its_lines_apart(server: PrometheusServer, question: str) -> None:
    dashboards.shows_something(server, question, QUERIES[question])


def test_panels_lie_side_by_side_and_none_on_another() -> None:
    dashboards.lie_side_by_side(DASHBOARD)


PAGE = b"""\
:tensorflow:serving:request_count{model_name="cards",status="OK"} 7
:tensorflow:serving:request_latency_bucket{model_name="cards",API="predict",entrypoint="REST",le="+Inf"} 7
:tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name="x"} 3
:tensorflow:cc:saved_model:load_attempt_count{model_path="/models/cards/7",status="success"} 1
"""


class Page(BaseHTTPRequestHandler):
    """What TensorFlow Serving's metrics look like."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the class above
        """Nobody reads it."""


def renaming() -> list[dict[str, Any]]:
    """The operator's rules as Prometheus spells them."""
    rendered = yaml.safe_load_all((ROOT / "tests" / "golden" / "model-serving" / "claim.yaml").read_text())
    monitor = next(thing for thing in rendered if thing and thing["kind"] == "PodMonitor" and thing["metadata"]["name"] == "cards-server")
    spelled = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [
        {spelled.get(key, key): value for key, value in rule.items()}
        for rule in monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    ]


def test_tensorflow_serving_s_names_lose_their_colons(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        target = {"job_name": "server", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{page.server_port}"]}]}
        with PrometheusServer(tmp_path, [], [{**target, "metric_relabel_configs": renaming()}]) as running:
            deadline = time.monotonic() + 60
            while not (found := {row["metric"]["__name__"] for row in dashboards.ask(running, '{__name__=~".*tensorflow.*"}')}):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        page.shutdown()
    assert found == {
        "tensorflow_serving_request_count",
        "tensorflow_serving_request_latency_bucket",
        "tensorflow_serving_batching_session_queuing_latency_count",
        "tensorflow_cc_saved_model_load_attempt_count",
    }
