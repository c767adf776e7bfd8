"""What has run: one line for each grant that has ended, and how far what people were told was true.

Expected starts (`estimate`) are read off these run times, and `gpuq plan` and `gpuq what-if` replay them. A line is a JSON array that
begins with its version, so that a file of them is small, can be appended to, and can be read by the next version. Whoever cannot read
a line skips and counts it: a history with a hole is worth more than none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A grant that has ended. Moments are seconds since the epoch."""

    queue: str
    lane: str
    namespace: str
    name: str
    family: str
    """What kind of job it is: jobs of a family run alike. Empty where nobody knows."""
    gpus: int
    since: float
    """When it came."""
    at: float
    """When it was granted."""
    ended: float
    limit: float | None = None
    """Seconds that it said it runs at most."""
    told_p50: float | None = None
    """The start that it was told to expect when it came: as likely earlier as later. None if it did not have to wait, too."""
    told_p90: float | None = None
    """The start that it was told it would have by then, nine times in ten."""

    @property
    def ran(self) -> float:
        """Seconds from its grant to its end."""
        return self.ended - self.at

    @property
    def wait(self) -> float:
        """Seconds from being there to its grant."""
        return self.at - self.since


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What could be read."""

    pasts: tuple[Past, ...]
    broken: int
    """Lines that were skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How far expected starts were true."""

    told: int
    """How many had been told."""
    within_p50: float
    """The share that started by its P50: 0.5 if estimates are right."""
    within_p90: float
    """The share that started by its P90: 0.9 if estimates are right."""
    median_error: float
    """Seconds between P50 and the start, in either direction."""


def line_of(past: Past) -> str:
    """One line of a history, without its end; times to the second, each as its distance from one before it.

    Two clocks told the times: where they contradict each other, nothing is granted before it came, or over before it was granted.
    """
    since = round(past.since)
    at = max(since, round(past.at))
    ended = max(at, round(past.ended))
    told = [None if moment is None else round(moment) - since for moment in (past.told_p50, past.told_p90)]
    limit = None if past.limit is None else round(past.limit)
    words = [past.queue, past.lane, past.namespace, past.name, past.family]
    return json.dumps([_VERSION, *words, past.gpus, since, at - since, ended - at, limit, *told], separators=(",", ":"))


def past_of(line: str) -> Past:
    """What a line says.

    Raises:
        ValueError: it is no line of a history that this version reads; the text says why.
    """
    found = json.loads(line)
    if not isinstance(found, list) or not found or found[0] != _VERSION:
        raise ValueError(f"it does not begin with [{_VERSION},")
    if len(found) != 13:  # noqa: PLR2004  # what `line_of` writes
        raise ValueError(f"it has {len(found)} entries; it needs 13")
    words, numbers, perhaps = found[1:6], found[6:10], found[10:]
    if not all(isinstance(word, str) for word in words):
        raise ValueError("entries 2 to 6 are not all texts")
    if not all(_is_number(number) and number >= 0 for number in numbers) or not isinstance(numbers[0], int):
        raise ValueError("entries 7 to 10 are not all numbers from zero")
    if not all(number is None or _is_number(number) for number in perhaps):
        raise ValueError("entries 11 to 13 are neither numbers nor null")
    queue, lane, namespace, name, family = words
    gpus, since, wait, ran = numbers
    limit, p50, p90 = perhaps
    return Past(
        queue=queue,
        lane=lane,
        namespace=namespace,
        name=name,
        family=family,
        gpus=gpus,
        since=float(since),
        at=float(since + wait),
        ended=float(since + wait + ran),
        limit=None if limit is None else float(limit),
        told_p50=None if p50 is None else float(since + p50),
        told_p90=None if p90 is None else float(since + p90),
    )


def read_history(lines: Iterable[str]) -> History:
    """Every line that can be read; empty lines do not count."""
    pasts, broken = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            pasts.append(past_of(line))
        except (ValueError, OverflowError, RecursionError):
            broken += 1
    return History(pasts=tuple(pasts), broken=broken)


def coverage(pasts: Iterable[Past], begin: float = -math.inf, end: float = math.inf) -> Coverage | None:
    """How true what was told turned out, for those granted from `begin` until before `end`; None if nobody was told anything."""
    rows = [
        (past.at - past.told_p50, past.at <= past.told_p90)
        for past in pasts
        if past.told_p50 is not None and past.told_p90 is not None and begin <= past.at < end
    ]
    if not rows:
        return None
    return Coverage(
        told=len(rows),
        within_p50=sum(late <= 0 for late, _ in rows) / len(rows),
        within_p90=sum(within for _, within in rows) / len(rows),
        median_error=median(abs(late) for late, _ in rows),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
