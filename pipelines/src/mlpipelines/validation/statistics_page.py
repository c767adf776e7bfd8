"""The page of the statistics step: every column, training and validation rows side by side.

Distributions are drawn between the 1st and 99th percentile of the training rows, so that one extreme amount does not flatten
everything else.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from html import escape
from itertools import pairwise

from mlpipelines.pages import Markup, page, table
from mlpipelines.project import Project
from mlpipelines.validation.anomalies import shortened
from mlpipelines.validation.columns import Snapshot
from mlserving.statistics.columns import Column, Numbers, Texts

_BARS = 24
_WIDTH, _HEIGHT = 240, 44
_VALUES = 5
_LINE = 16


def statistics_page(project: Project, snapshot: Snapshot) -> str:
    """A whole HTML document."""
    rows = " · ".join(f"{count:,} {split} rows" for split, count in snapshot.rows.items())
    intro = (
        f'<h1>{escape(project.name)}: statistics</h1>\n<p class="dim">{rows} · {len(snapshot.whole)} columns</p>\n'
        '<p><span class="key first">training</span> &nbsp; <span class="key second">validation</span></p>\n'
    )
    return page(f"{project.name}: statistics", intro + table([_row(name, snapshot, project) for name in snapshot.whole]))


def _row(name: str, snapshot: Snapshot, project: Project) -> dict[str, object]:
    sides = [side[name] for side in (snapshot.train, snapshot.validation) if name in side]
    kind = project.column_types.get(name, "")
    return {
        "column": Markup(f"<code>{escape(name)}</code>"),
        "type": kind + _role(name, project),
        "missing": Markup("<br>".join(_share(side.missing_share) for side in sides) or "–"),
        "values": _summary(snapshot.whole[name], kind),
        "distribution": Markup(_drawn(sides, kind)),
    }


def _role(name: str, project: Project) -> str:
    if project.label is not None and project.label.column == name:
        return ", label"
    return "" if name in project.features else ", not a feature"


def _share(share: float) -> str:
    return "none" if share == 0 else f"{share:.2%}"


def _summary(column: Column, kind: str) -> object:
    if column.numbers is not None:
        low, high = column.numbers.minimum, column.numbers.maximum
        middle = column.numbers.quantile(0.5)
        return Markup(
            "<br>".join(escape(f"{what} {_value(number, kind)}") for what, number in (("from", low), ("median", middle), ("to", high)))
        )
    if kind == "bytes" or column.texts is None:
        return None
    return f"{column.texts.distinct:,} distinct"


def _value(number: float, kind: str) -> str:
    if kind == "timestamp":
        try:
            return f"{datetime.fromtimestamp(number, UTC):%Y-%m-%d %H:%M}"
        except (ValueError, OverflowError, OSError):
            return f"{number:g}"
    return f"{number:,.6g}"


def _drawn(sides: list[Column], kind: str) -> str:
    numbers = [side.numbers for side in sides if side.numbers is not None]
    if numbers:
        return _histogram(numbers)
    texts = [side.texts for side in sides if side.texts is not None]
    return "" if kind == "bytes" or not texts else _top_values(texts)


def _histogram(sides: list[Numbers]) -> str:
    low, high = sides[0].quantile(0.01), sides[0].quantile(0.99)
    if not math.isfinite(high - low) or low == high:
        return ""
    edges = [low + (high - low) * i / _BARS for i in range(_BARS + 1)]
    shares = [[side.share_up_to(b) - (side.share_up_to(a) if i else 0) for i, (a, b) in enumerate(pairwise(edges))] for side in sides]
    tallest = max(max(heights) for heights in shares) or 1.0
    step = _WIDTH / _BARS
    bars = []
    for side, (heights, css) in enumerate(zip(shares, ("first", "second"), strict=False)):
        for i, share in enumerate(heights):
            height = _HEIGHT * max(share, 0.0) / tallest
            x = i * step + side * step / 2
            bars.append(f'<rect class="{css}" x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{step / 2 - 0.5:.1f}" height="{height:.1f}"/>')
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="histogram">{"".join(bars)}</svg>'


def _top_values(sides: list[Texts]) -> str:
    top = list(sides[0].counts)[:_VALUES]
    lines = []
    for i, value in enumerate(top):
        y = i * _LINE
        for j, (side, css) in enumerate(zip(sides, ("first", "second"), strict=False)):
            width = 90 * side.counts.get(value, 0.0) / max(side.total, 1.0)
            lines.append(f'<rect class="{css}" x="0" y="{y + 2 + j * 6}" width="{max(width, 0.5):.1f}" height="5"/>')
        share = sides[0].counts[value] / max(sides[0].total, 1.0)
        lines.append(f'<text x="96" y="{y + 12}">{share:.1%} {escape(shortened(value) or "(empty)")}</text>')
    return f'<svg width="{_WIDTH + 120}" height="{_LINE * len(top)}" role="img" aria-label="most frequent values">{"".join(lines)}</svg>'
