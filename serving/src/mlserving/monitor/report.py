"""The findings as a page: one file, no script, nothing loaded from elsewhere, light and dark. Charts are drawn in the template's SVG."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from mlserving.monitor import judging
from mlserving.monitor.drift import ColumnDrift
from mlserving.monitor.findings import WHOLE, Findings, Group

CHART_WIDTH, CHART_HEIGHT = 280, 72


def page(findings: Findings) -> str:
    """A whole HTML document."""
    wholes = [group for group in findings.groups if group.slice == WHOLE]
    slices = [group for group in findings.groups if group.slice != WHOLE]
    return _template().render(
        findings=findings, wholes=wholes, slices=slices, judging=judging, width=CHART_WIDTH, height=CHART_HEIGHT, by_urgency=_by_urgency
    )


def _by_urgency(group: Group) -> list[ColumnDrift]:
    """What alarms first, then what is closest to its limit."""
    return sorted(group.columns, key=lambda each: (not (each.drifted or each.missing_moved), -closeness(each), each.column))


def closeness(column: ColumnDrift) -> float:
    """The distance as a share of its limit: 1 is where it alarms."""
    return column.distance / column.limit if column.distance is not None and column.limit else 0.0


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("mlserving.monitor", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "figure": _figure, "hours": _hours, "closeness": closeness, "short": _short}
    return environment.get_template("report.html.j2")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004  four digits are read at a glance


def _hours(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 3600:.1f} h"


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
