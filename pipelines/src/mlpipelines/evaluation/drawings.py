"""Small pictures in SVG for our pages: an interval against its bound, a curve, a matrix as a heat map. Pure text, no script.

Colours come from the page's own variables, so that they follow its light and dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mlpipelines.evaluation.verdict import Estimate

_WIDTH, _HEIGHT = 150, 18
_SIDE, _PAD = 260, 34


def interval_drawing(difference: Estimate | None, bound: float, reach: float, *, passed: bool | None) -> str:
    """A difference with its interval on a scale from -reach to reach; a line at 0 and, dashed, at the bound it must stay above."""
    if difference is None or difference.low is None or difference.high is None:
        return ""

    def x(value: float) -> float:
        return _WIDTH / 2 + max(-1.0, min(1.0, value / reach)) * (_WIDTH / 2 - 5)

    kind = {True: "good", False: "bad", None: "dim"}[passed]
    middle = _HEIGHT / 2
    return (
        f'<svg class="interval {kind}" width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(str(difference))}">'
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="1" y2="{_HEIGHT - 1}"/>'
        f'<line class="bound" x1="{x(bound):.1f}" x2="{x(bound):.1f}" y1="1" y2="{_HEIGHT - 1}"/>'
        f'<line class="reach" x1="{x(difference.low):.1f}" x2="{x(difference.high):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{x(difference.value):.1f}" cy="{middle}" r="3.5"/></svg>'
    )


def curve_drawing(title: str, across: Sequence[float], up: Sequence[float], names: tuple[str, str], *, diagonal: bool = False) -> str:
    """A curve in the unit square. `names`: of the horizontal and of the vertical axis."""

    def place(x: float, y: float) -> str:
        return f"{_PAD + x * _SIDE:.1f},{10 + (1 - y) * _SIDE:.1f}"

    grid = "".join(
        f'<line class="grid" x1="{_PAD}" x2="{_PAD + _SIDE}" y1="{10 + t * _SIDE / 4}" y2="{10 + t * _SIDE / 4}"/>'
        f'<text x="{_PAD - 6}" y="{14 + t * _SIDE / 4}" text-anchor="end">{1 - t / 4:g}</text>'
        f'<text x="{_PAD + t * _SIDE / 4}" y="{_SIDE + 24}" text-anchor="middle">{t / 4:g}</text>'
        for t in range(5)
    )
    chance = f'<polyline class="bound" points="{place(0, 0)} {place(1, 1)}"/>' if diagonal else ""
    points = " ".join(place(x, y) for x, y in zip(across, up, strict=True))
    return (
        f'<figure><svg class="curve" viewBox="0 0 {_SIDE + _PAD + 12} {_SIDE + 46}" role="img" aria-label="{escape(title)}">{grid}{chance}'
        f'<polyline class="line" points="{points}"/>'
        f'<text x="{_PAD + _SIDE / 2}" y="{_SIDE + 42}" text-anchor="middle">{escape(names[0])}</text></svg>'
        f"<figcaption>{escape(title)}: {escape(names[1])} against {escape(names[0].lower())}</figcaption></figure>"
    )


def heat_map(classes: Sequence[str], rows: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows are true classes, columns predicted ones; colour is the share of the true class, the diagonal in green."""
    numbered = [f"{place + 1}" for place in range(len(classes))]
    head = "".join(f'<th title="{escape(name)}">{number}</th>' for number, name in zip(numbered, classes, strict=True))
    body = "".join(_heat_row(place, name, rows[place], classes) for place, name in enumerate(classes))
    return (
        f'<div class="scroll"><table class="heat"><thead><tr><th></th><th>true ↓ predicted →</th>{head}<th class="number">rows</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _heat_row(place: int, name: str, counts: Sequence[int], classes: Sequence[str]) -> str:
    total = sum(counts) or 1
    cells = "".join(
        f'<td class="{"right" if other == place else "wrong"}" style="--share:{count / total:.3f}" '
        f'title="{escape(name)} → {escape(classes[other])}: {count:,}">{_percent(count / total)}</td>'
        for other, count in enumerate(counts)
    )
    return f'<tr><td class="dim">{place + 1}</td><th>{escape(name)}</th>{cells}<td class="number">{sum(counts):,}</td></tr>'


def _percent(share: float) -> str:
    return f"{share * 100:.0f}" if share >= 0.005 else ""  # noqa: PLR2004  # below, it would read 0
