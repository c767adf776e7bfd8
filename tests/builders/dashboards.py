"""A chart's Grafana dashboard, and an hour of metrics in a real Prometheus that it is asked about."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_server import PrometheusServer, Series

NOON = 1_793_620_800.0
"""When the hour ends, seconds since the epoch."""
Told = Iterable[tuple[str, dict[str, str]]]
"""Metrics without `millrace_`, with their labels."""


def read(file: Path) -> dict[str, Any]:
    """The dashboard."""
    made: dict[str, Any] = json.loads(file.read_text())
    return made


def questions(dashboard: dict[str, Any]) -> dict[str, str]:
    """Each query, by the panel's title and the legend."""
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }


def history(counters: Told, gauges: Told) -> list[Series]:
    """An hour of two replicas: counters go up by one a minute, gauges are 1."""
    return [
        Series(
            name=f"millrace_{name}",
            labels={**labels, "instance": instance},
            values={NOON - 3600 + 60 * minute: float(minute if counts else 1) for minute in range(60)},
        )
        for counts, found in ((True, counters), (False, gauges))
        for name, labels in found
        for instance in ("a", "b")
    ]


def ask(server: PrometheusServer, query: str, at: float | None = None) -> list[Any]:
    """What Prometheus answers."""
    form = {"query": query} | ({} if at is None else {"time": str(at)})
    with urllib.request.urlopen(f"{server.url}/api/v1/query", data=urllib.parse.urlencode(form).encode(), timeout=10) as answer:
        result: list[Any] = json.load(answer)["data"]["result"]
        return result


def shows_something(server: PrometheusServer, question: str, query: str) -> None:
    """Hold that a query finds numbers, under labels that are just those that its legend tells apart."""
    found = ask(server, query.replace("$__rate_interval", "5m").replace("$model", "cards|scam"), NOON - 60)
    assert found
    assert all(row["value"][1] != "NaN" for row in found)
    wanted = {part.partition("}}")[0] for part in question.partition(": ")[2].split("{{")[1:]}
    assert all(row["metric"].keys() - {"__name__"} == wanted for row in found)


def lie_side_by_side(dashboard: dict[str, Any]) -> None:
    """Hold that no panel lies on another, nor beyond the edge."""
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
