"""One lane, run ahead: when those in a line start, if every run time is as given.

`decide`, asked again at every end and every change of the quota, would say the same (tests hold these functions against it). But an
estimate runs a line ahead a hundred times within a fraction of a second, and `decide` looks at the whole line each time; what follows
touches a job once (strict order) or each kind of job once an event (EASY order).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, merge

from gpuqueue.queue import FOREVER, Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A lane, what holds its GPUs, and what waits for them, without how long anything runs."""

    lane: Lane
    now: float
    held: tuple[tuple[int, float], ...]
    """Of each grant: its GPUs, and when its limit is over."""
    waiting: tuple[tuple[int, float], ...]
    """Of each request, in order: its GPUs, and its limit in seconds."""
    kinds: tuple[tuple[int, float, tuple[int, ...]], ...] = field(init=False)
    """GPUs, limit, and the places in `waiting` that have both; the smallest first."""
    kind_of: tuple[int, ...] = field(init=False)
    """Of each request, the index of its kind."""

    def __post_init__(self) -> None:
        places: dict[tuple[int, float], list[int]] = {}
        for place, kind in enumerate(self.waiting):
            places.setdefault(kind, []).append(place)
        kinds = tuple((*kind, tuple(found)) for kind, found in sorted(places.items()))
        number = {kind[:2]: i for i, kind in enumerate(kinds)}
        object.__setattr__(self, "kinds", kinds)
        object.__setattr__(self, "kind_of", tuple(number[kind] for kind in self.waiting))

    @property
    def free(self) -> int:
        """GPUs that nobody holds; negative where the quota was cut."""
        return self.lane.now - sum(gpus for gpus, _ in self.held)

    @property
    def changes(self) -> list[tuple[float, int]]:
        """When the quota changes, and by how many GPUs."""
        steps = self.lane.quota
        return [(steps[i][0], steps[i][1] - steps[i - 1][1]) for i in range(1, len(steps)) if steps[i][0] > self.now]


def strict_starts(line: Line, remaining: Sequence[float], runs: Sequence[float]) -> list[float]:
    """When each request of `line` starts, in strict order; `FOREVER` where it never does.

    Args:
        line: what is there.
        remaining: seconds that each grant still runs.
        runs: seconds that each request runs once it starts.
    """
    now, free = line.now, line.free
    # A tuple (moment, GPUs freed): of what happens at one moment, a cut of the quota comes first.
    events = line.changes + [(now + left, gpus) for (gpus, _), left in zip(line.held, remaining, strict=True)]
    heapify(events)
    starts = []
    for (gpus, _), run in zip(line.waiting, runs, strict=True):
        while free < gpus and events:
            now, freed = heappop(events)
            free += freed
        if free < gpus:
            break
        free -= gpus
        heappush(events, (now + run, gpus))
        starts.append(now)
    return starts + [FOREVER] * (len(runs) - len(starts))


def easy_starts(line: Line, remaining: Sequence[float], runs: Sequence[float]) -> list[float]:
    """The same in EASY order: behind a head that has to wait, those start that do not move its expected start."""
    return _Easy(line, remaining, runs).starts


class _Easy:
    """One pass over a line in EASY order."""

    def __init__(self, line: Line, remaining: Sequence[float], runs: Sequence[float]) -> None:
        self.line, self.runs, self.free = line, runs, line.free
        self.starts = [FOREVER] * len(runs)
        self.next = [0] * len(line.kinds)
        """Of each kind, which of its places is the first that waits; the head of the line is no longer among them."""
        self.limits = sorted((ends, gpus) for gpus, ends in line.held)
        """Of what runs."""
        self.changes = deque(line.changes)
        self.ends = [(line.now + left, gpus, ends) for (gpus, ends), left in zip(line.held, remaining, strict=True)]
        heapify(self.ends)
        self.head = -1
        self._move_up()
        self._serve(line.now)
        while self.head < len(runs) and (now := self._next_event()) < FOREVER:
            self._happen(now)
            self._serve(now)

    def _next_event(self) -> float:
        return min(self.ends[0][0] if self.ends else FOREVER, self.changes[0][0] if self.changes else FOREVER)

    def _happen(self, now: float) -> None:
        while self.ends and self.ends[0][0] == now:
            _, gpus, limit = heappop(self.ends)
            self.free += gpus
            del self.limits[bisect_left(self.limits, (limit, gpus))]
        while self.changes and self.changes[0][0] == now:
            self.free += self.changes.popleft()[1]

    def _serve(self, now: float) -> None:
        while self.head < len(self.runs) and self.line.waiting[self.head][0] <= self.free:
            self._start(self.head, now)
            self._move_up()
        if self.head < len(self.runs) and self.free > 0:
            self._backfill(now)

    def _move_up(self) -> None:
        """The next that waits becomes the head."""
        self.head += 1
        while self.head < len(self.runs) and self.starts[self.head] < FOREVER:
            self.head += 1
        if self.head < len(self.runs):
            self.next[self.line.kind_of[self.head]] += 1

    def _backfill(self, now: float) -> None:
        start, spare = self._head_start(now)
        while (kind := self._may_pass(now, start, spare)) is not None:
            gpus, limit, places = self.line.kinds[kind]
            self._start(places[self.next[kind]], now)
            self.next[kind] += 1
            spare -= 0 if now + limit <= start < FOREVER else gpus

    def _may_pass(self, now: float, start: float, spare: int) -> int | None:
        """The kind of the first in line that does not move the head's expected start."""
        found, first, left = None, len(self.runs), start - now if start < FOREVER else -1.0
        for number, (gpus, limit, places) in enumerate(self.line.kinds):
            if gpus > self.free:
                break
            place = self.next[number]
            if (gpus <= spare or limit <= left) and place < len(places) and places[place] < first:
                found, first = number, places[place]
        return found if self.free > 0 else None

    def _start(self, place: int, now: float) -> None:
        gpus, limit = self.line.waiting[place]
        self.starts[place] = now
        self.free -= gpus
        heappush(self.ends, (now + self.runs[place], gpus, now + limit))
        insort(self.limits, (now + limit, gpus))

    def _head_start(self, now: float) -> tuple[float, int]:
        """What `decide.expected_start` says of the head: the moment, and the GPUs to spare then."""
        spare, moment = self.free - self.line.waiting[self.head][0], now
        for ends, freed in merge(self.limits, self.changes) if self.changes else self.limits:
            if ends > moment:
                if spare >= 0 or ends == FOREVER:
                    break
                moment = ends
            spare += freed
        return (moment, spare) if spare >= 0 else (FOREVER, 0)
