"""Every query of the dashboard of a model's loop, asked of a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import dashboards
from prometheus_server import PrometheusServer

pytestmark = pytest.mark.prometheus

DASHBOARD = dashboards.read(Path(__file__).resolve().parents[3] / "helm" / "retraining" / "dashboards" / "loop.json")
QUERIES = dashboards.questions(DASHBOARD)
MODEL = {"model": "cards"}
GROUP = {**MODEL, "version": "8", "track": "stable", "slice": ""}
COUNTERS = [
    ("gateway_requests_total", {**MODEL, "version": "8", "track": "stable", "protocol": "grpc", "code": "OK"}),
    ("labels_total", {**MODEL, "source": "api"}),
    ("trigger_decisions_total", {**MODEL, "signal": "drift", "reason": "cooldown"}),
    ("trigger_started_runs_total", MODEL),
    ("trigger_ended_runs_total", {**MODEL, "outcome": "blessed"}),
]
GAUGES = [
    ("gateway_track_weight", {**MODEL, "track": "stable"}),
    ("monitor_drift_distance", {**GROUP, "column": "amount", "measure": "jensen-shannon"}),
    ("monitor_drift_threshold", {**GROUP, "column": "amount"}),
    ("monitor_quality", {**GROUP, "metric": "accuracy"}),
    ("monitor_quality_floor", GROUP),
    *((f"trigger_{name}", MODEL) for name in ("last_training_timestamp_seconds", "stale_after_seconds", "last_run_failed")),
    *((f"trigger_{name}", {}) for name in ("wanted_runs", "open_runs", "waiting_notices")),
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


def test_what_it_asks_the_trigger_for_the_trigger_tells() -> None:
    source = (Path(__file__).resolve().parents[3] / "pipelines" / "src" / "mlpipelines" / "triggers" / "metrics.py").read_text()
    asked = {name for name, _ in [*COUNTERS, *GAUGES] if name.startswith("trigger_")}
    told = {name for name in asked if f'_PREFIX + "{name.removeprefix("trigger_").removesuffix("_total")}"' in source}
    assert told == asked
    assert all(any(f"millrace_{name}" in query for query in QUERIES.values()) for name in asked)
