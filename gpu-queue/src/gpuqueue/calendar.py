"""Quotas that a calendar changes: from a lane's windows to the quota at each moment from now on.

A window opens at every minute that a five-field cron expression names in its time zone (minute, hour, day of month, month, day of
week; crontab(5)), and lasts a while. Where windows overlap, the last one in the list counts. Clocks that go back open a window
twice, clocks that go forward may leave one out: that is what a wall clock does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gpuqueue.queue import Lane

HORIZON = timedelta(days=8)
"""How far ahead a calendar is read: every weekly window lies within."""
_MINUTE = 60
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_SUNDAY = 7
_NAMES: tuple[dict[str, int], ...] = (
    {},
    {},
    {},
    {
        name: number
        for number, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], start=1)
    },
    {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])},
)


Spans = tuple[tuple[float, float], ...]
"""From when until when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A quota for some hours."""

    cron: str
    seconds: float
    """How long it lasts from each opening."""
    quota: int
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, taken apart: the values that each field allows."""

    fields: tuple[frozenset[int], ...]
    either_day: bool
    """Both day fields are restricted: one of them is enough, as crontab(5) has it."""

    def names(self, wall: datetime) -> bool:
        """Whether the minute of this wall clock is named."""
        minute, hour, day, month, weekday = self.fields
        if wall.minute not in minute or wall.hour not in hour or wall.month not in month:
            return False
        on_day, on_weekday = wall.day in day, wall.isoweekday() % _SUNDAY in weekday
        return on_day or on_weekday if self.either_day else on_day and on_weekday


def lane_of(name: str, quota: int, windows: Sequence[Window], now: float) -> Lane:
    """The lane as it is from `now` on, over `HORIZON`.

    Raises:
        ValueError: a window's cron expression or zone cannot be read; the text says what is wrong.
    """
    if not windows:
        return Lane(name=name, quota=((now, quota),))
    start = int(now // _MINUTE) * _MINUTE
    spans = [(window.quota, _spans(window.cron, window.zone, window.seconds, start)) for window in windows]
    edges = sorted({now, *(edge for _, found in spans for span in found for edge in span if edge > now)})
    steps: list[tuple[float, int]] = []
    for edge in edges:
        in_force = next((special for special, found in reversed(spans) if _open(found, edge)), quota)
        if not steps or steps[-1][1] != in_force:
            steps.append((edge, in_force))
    return Lane(name=name, quota=tuple(steps))


@lru_cache(maxsize=256)
def _spans(cron: str, zone: str, seconds: float, start: int) -> Spans:
    """When the window is open, from `start` on, in order and apart; remembered, since a decision is taken many times a minute."""
    expression = parse(cron)
    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"zone {zone!r} is not a time zone; write one of the IANA names, such as Europe/London") from error
    first = start - int(seconds // _MINUTE) * _MINUTE
    last = start + int(HORIZON.total_seconds())
    quarters = (moment for moment in range(first - first % 900, last, 900))  # every zone's offset is a multiple of a quarter of an hour
    merged: list[tuple[float, float]] = []
    for moment in _openings(expression, local, quarters):
        opened = merged.pop()[0] if merged and moment <= merged[-1][1] else float(moment)
        merged.append((opened, moment + seconds))
    return tuple(span for span in merged if span[1] > start)


def _open(spans: Spans, moment: float) -> bool:
    before = bisect_right(spans, moment, key=lambda span: span[0])
    return before > 0 and moment < spans[before - 1][1]


def _openings(expression: Cron, local: ZoneInfo, quarters: Iterable[int]) -> Iterable[int]:
    for quarter in quarters:
        wall = datetime.fromtimestamp(quarter, UTC).astimezone(local)
        if wall.hour not in expression.fields[1] or wall.month not in expression.fields[3]:
            continue
        for minute in range(15):
            if expression.names(wall + timedelta(minutes=minute)):
                yield quarter + minute * _MINUTE


@lru_cache(maxsize=256)
def parse(cron: str) -> Cron:
    """Take a five-field expression apart: `*`, `5`, `1-5`, `*/15`, `1-31/2`, `mon,wed`; Sunday is 0 or 7.

    Raises:
        ValueError: naming the field and what may stand there.
    """
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"cron {cron!r} has {len(parts)} fields; it needs five: {', '.join(_FIELDS)}")
    fields = [_field(part.lower(), place, cron) for place, part in enumerate(parts)]
    fields[4] = frozenset(value % _SUNDAY for value in fields[4])
    return Cron(fields=tuple(fields), either_day=not parts[2].startswith("*") and not parts[4].startswith("*"))


def _field(text: str, place: int, cron: str) -> frozenset[int]:
    low, high = _RANGES[place]
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            begin = low if first == "*" else _number(first, place)
            end = high if first == "*" or (step and not dash) else _number(last, place) if dash else begin
            every = int(step) if step else 1
        except ValueError:
            begin, end, every = 1, 0, 0
        if not low <= begin <= end <= high or every < 1:
            raise ValueError(
                f"cron {cron!r}: {part!r} is no {_FIELDS[place]}; write numbers from {low} to {high}, such as {low}-{high} or */2"
            )
        values.update(range(begin, end + 1, every))
    return frozenset(values)


def _number(text: str, place: int) -> int:
    names = _NAMES[place]
    return names[text] if text in names else int(text)
