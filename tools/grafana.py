"""A Grafana dashboard from a description: rows of panels, each a question and the queries that answer it.

Grafana's JSON says forty things for each panel that nobody decides; the `*_dashboard.py` beside it say what somebody did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GRID = 24
HEIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A question, and the queries that answer it, by legend."""

    title: str
    queries: dict[str, str]
    about: str = ""
    unit: str = "short"
    kind: str = "timeseries"
    stacked: bool = False
    alarm: float | None = None
    """From this value on it is red."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels side by side."""

    title: str
    panels: tuple[Panel, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A variable that people choose values of: the values that a label has in a metric."""

    name: str
    label: str
    metric: str


def dashboard(*, uid: str, title: str, rows: Sequence[Row], choices: Sequence[Choice]) -> dict[str, Any]:
    """All of it, as Grafana wants it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        panels.append({"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _place(0, top, GRID, 1)})
        width = GRID // len(row.panels)
        panels += [_panel(panel, _place(n * width, top + 1, width, HEIGHT)) for n, panel in enumerate(row.panels)]
        top += 1 + HEIGHT
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return {
        "uid": uid,
        "title": title,
        "tags": [uid],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [_DATA_SOURCE, *map(_variable, choices)]},
        "panels": panels,
    }


def write(target: Path, made: dict[str, Any]) -> None:
    """The file that a chart ships."""
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


_SOURCE = {"type": "prometheus", "uid": "${source}"}
_DATA_SOURCE = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(choice: Choice) -> dict[str, Any]:
    return {
        "name": choice.name,
        "label": choice.label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({choice.metric}, {choice.name})",
        "refresh": 2,  # whenever the time range changes
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarm is not None:
        steps.append({"color": "red", "value": panel.alarm})
    drawing: dict[str, Any] = {"fillOpacity": 20 if panel.stacked else 0, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    if panel.alarm is not None:
        drawing["thresholdsStyle"] = {"mode": "line"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}, "custom": drawing},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + n), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for n, (legend, query) in enumerate(panel.queries.items())
        ],
    }
