"""Every query of the dashboard, asked of a real Prometheus that has scraped a controller with one queue."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram

from gpuqueue.metrics import Metrics
from prometheus_server import PrometheusServer, Series

pytestmark = pytest.mark.prometheus

DASHBOARD = json.loads((Path(__file__).resolve().parents[4] / "helm" / "gpu-queue" / "dashboards" / "gpu-queue.json").read_text())
QUERIES = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())
}
NOON = 1_793_620_800.0


def scrapes() -> list[Series]:
    """An hour of a controller that does everything once a minute: its real pages, as Prometheus would keep them."""
    metrics, values = Metrics(), dict[tuple[str, tuple[tuple[str, str], ...]], dict[float, float]]()
    metrics.eta_judged_starts.labels("fraud").set(60)
    for minute in range(60):
        for metric, declared in zip(metrics._all, metrics.contract, strict=True):
            one = metric.labels(*("fraud" if label == "queue" else label for label in declared.labels)) if declared.labels else metric
            match one:
                case Counter():
                    one.inc(3 if declared.name == "gpuqueue_held_gpu_seconds_total" else 1)
                case Histogram():
                    one.observe(minute)
                case Gauge() if declared.name != "gpuqueue_eta_judged_starts":
                    one.set(3)
        for family in metrics.registry.collect():
            for sample in family.samples:
                key = (sample.name, (*sorted(sample.labels.items()), ("instance", "a")))
                values.setdefault(key, {})[NOON - 3600 + 60 * minute] = sample.value
    return [Series(name=name, labels=dict(labels), values=told) for (name, labels), told in values.items()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), scrapes()) as running:
        yield running


def ask(server: PrometheusServer, query: str) -> list[Any]:
    chosen = query.replace("$__rate_interval", "5m").replace("$queue", "fraud|vision")
    form = urllib.parse.urlencode({"query": chosen, "time": NOON - 60}).encode()
    try:
        with urllib.request.urlopen(f"{server.url}/api/v1/query", data=form, timeout=10) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{chosen}\n{error.read().decode()}") from error


@pytest.mark.parametrize("question", QUERIES)
def test_a_panel_shows_something(server: PrometheusServer, question: str) -> None:
    found = ask(server, QUERIES[question])
    assert found
    assert all(row["value"][1] != "NaN" for row in found)


@pytest.mark.parametrize("question", QUERIES)
def test_a_legend_names_only_labels_that_the_answer_has(server: PrometheusServer, question: str) -> None:
    legend = question.partition(": ")[2]
    wanted = {part.partition("}}")[0] for part in legend.split("{{")[1:]}
    for row in ask(server, QUERIES[question]):
        assert wanted <= row["metric"].keys()
        assert len(row["metric"].keys() - wanted - {"__name__"}) == 0 or wanted == {"instance"}, "two lines would bear one name"


def test_panels_lie_side_by_side_and_none_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
