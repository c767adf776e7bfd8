"""A replay as a picture: for each team how many have started after which wait, and the GPUs in use over time, as one SVG file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from gpuqueue.durations import words_of
from gpuqueue.planning import Outlook
from gpuqueue.replayed import Waits, over_time

_WIDE, _HIGH, _LEFT, _GAP = 720, 130, 70, 50
_COLOURS = ("#8a8a8a", "#0b6bcb")
_WAITS = (60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 7 * 86400.0, 28 * 86400.0)
_BINS = 240

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A rectangle with lines in it; what is drawn runs from 0 to 1, to the right and upwards."""

    title: str
    lines: Sequence[Points]
    across: Mapping[str, float]
    """Words below, and where."""
    upwards: Mapping[str, float]


def draw(file: Path, ways: Mapping[str, Outlook], window: tuple[float, float], first: Sequence[Panel] = ()) -> None:
    """Write the picture of up to two replays of one history, below what else should be in it."""
    teams = sorted({team for outlook in ways.values() for team in outlook.waits})
    panels = [*first]
    panels += [_waits_panel(team, [outlook.waits.get(team, ()) for outlook in ways.values()]) for team in teams]
    panels.append(_use_panel(list(ways.values()), window))
    high = len(panels) * (_HIGH + _GAP) + _GAP
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {_WIDE + 2 * _LEFT} {high}"})
    svg.set("font-family", "sans-serif")
    svg.set("font-size", "12")
    _add(svg, "rect", width="100%", height="100%", fill="white")
    for number, (way, colour) in enumerate(zip(ways, _COLOURS, strict=False)):
        _text(svg, way, _LEFT + 160 * number, 18, fill=colour)
    for number, panel in enumerate(panels):
        _draw_panel(svg, panel, _GAP + number * (_HIGH + _GAP))
    file.write_text(ET.tostring(svg, encoding="unicode") + "\n", encoding="utf-8")


def quotas_panel(lane: str, found: Mapping[int, Waits], target: float) -> Panel:
    """What nineteen in twenty wait at most, by quota, and across it what they should."""
    quotas = sorted(found)
    place = _axis([target, *(waits.p95 for waits in found.values())])
    span = max(1, quotas[-1] - quotas[0])
    across = {quota: (quota - quotas[0]) / span for quota in quotas}
    smallest = next((quota for quota in quotas if found[quota].p95 <= target), quotas[-1])
    return Panel(
        title=f"{lane}: what nineteen in twenty wait at most, by quota; they should wait {words_of(target)}",
        lines=[[(0.0, place(target)), (1.0, place(target))], [(across[quota], place(found[quota].p95)) for quota in quotas]],
        across={f"{quota:,}": across[quota] for quota in (quotas[0], smallest, quotas[-1])},
        upwards={words_of(wait): place(wait) for wait in (0.0, *_WAITS) if place(wait) <= 1.0},
    )


def _axis(waits: Iterable[float]) -> Callable[[float], float]:
    """Where waits lie on an axis with room for these, minutes and days alike: by the logarithm of a minute more."""
    longest = max([60.0, *waits])
    return lambda wait: math.log1p(wait / 60) / math.log1p(longest / 60)


def _waits_panel(team: str, ways: Sequence[Sequence[float]]) -> Panel:
    place = _axis(wait for waits in ways for wait in waits)
    lines = [[(place(wait), (number + 1) / len(waits)) for number, wait in enumerate(sorted(waits))] for waits in ways]
    return Panel(
        title=f"{team}: started after a wait of at most",
        lines=[[(0.0, 0.0), *_thinned(line), (1.0, 1.0)] if line else [] for line in lines],
        across={words_of(wait): place(wait) for wait in _WAITS if place(wait) <= 1.0},
        upwards={"0 %": 0.0, "50 %": 0.5, "95 %": 0.95},
    )


def _use_panel(outlooks: Sequence[Outlook], window: tuple[float, float]) -> Panel:
    series = [used(outlook, window, _BINS) for outlook in outlooks]
    top = max([1.0, *(value for values in series for value in values)])
    begin, end = (datetime.fromtimestamp(moment, UTC) for moment in window)
    return Panel(
        title="GPUs in use",
        lines=[[((number + 0.5) / _BINS, value / top) for number, value in enumerate(values)] for values in series],
        across={f"{begin:%d %b %H:%M}": 0.0, f"{end:%d %b %H:%M}": 1.0},
        upwards={"0": 0.0, f"{top:.0f}": 1.0},
    )


def used(outlook: Outlook, window: tuple[float, float], parts: int) -> list[float]:
    """The mean of GPUs in use in each of `parts` equal parts of the window."""
    begin, end = window
    step = max(end - begin, 1.0) / parts
    return [over_time(outlook.in_use, begin + i * step, begin + (i + 1) * step) / step for i in range(parts)]


def _thinned(line: Points) -> Points:
    return [line[(i + 1) * len(line) // _BINS - 1] for i in range(_BINS)] if len(line) > _BINS else line


def _draw_panel(svg: ET.Element, panel: Panel, top: int) -> None:
    def at(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + x * _WIDE, 1), round(top + (1 - y) * _HIGH, 1)

    _text(svg, panel.title, _LEFT, top - 8)
    _add(svg, "rect", x=_LEFT, y=top, width=_WIDE, height=_HIGH, fill="none", stroke="#cccccc")
    for word, x in panel.across.items():
        _text(svg, word, at(x, 0)[0], top + _HIGH + 14, anchor="middle", fill="#555555")
    for word, y in panel.upwards.items():
        _text(svg, word, _LEFT - 6, at(0, y)[1] + 4, anchor="end", fill="#555555")
    for line, colour in zip(panel.lines, _COLOURS, strict=False):
        points = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line))
        _add(svg, "polyline", points=points, fill="none", stroke=colour, stroke_width=1.5)


def _text(svg: ET.Element, words: str, x: float, y: float, *, anchor: str = "start", fill: str = "#222222") -> None:
    _add(svg, "text", x=x, y=y, fill=fill, text_anchor=anchor).text = words


def _add(svg: ET.Element, tag: str, **attributes: object) -> ET.Element:
    return ET.SubElement(svg, tag, {name.replace("_", "-"): str(value) for name, value in attributes.items()})
