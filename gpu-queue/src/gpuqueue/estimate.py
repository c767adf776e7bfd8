"""When those who wait are likely to start, read off how long jobs have run before.

The line is run ahead many times (`ahead`), each time with other run times, drawn from what jobs of their kind did (`run_times`). The
median of the starts is what somebody may expect (P50). By the ninth decile, put off where people were told too little before
(`RunTimes.lateness`), they start nine times in ten (P90). Nobody is told a time that nothing stands behind.

What cannot be known is left out: who comes later (in EASY order a small job may still pass), quotas that people change, and what a queue
borrows from its pool or lends. How true the estimates turn out is measured: by `history.coverage`, and on real traces by
`benchmarks/gpu_queue_eta.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from operator import itemgetter
from typing import Any
from zlib import crc32

from gpuqueue.ahead import Line, easy_starts, strict_starts
from gpuqueue.decide import decide
from gpuqueue.queue import FOREVER, Grant, Lane, Queue, Reason, Request
from gpuqueue.run_times import HOUR, Kind, RunTimes

_MIXES = 31
_STARTS = {"strict": 100_000, "easy": 5_000}
"""How many starts are looked at in all: a longer line is run ahead less often, but never less than `_FEWEST` times."""
_FEWEST = 16
_EXACT = 50
"""In a line longer than this, limits that are nearly the same count as the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """When somebody is likely to start, seconds since the epoch."""

    p50: float
    """As likely earlier as later."""
    p90: float
    """By then, nine times in ten."""


def expected_starts(
    queue: Queue,
    run_times: RunTimes,
    now: float,
    *,
    families: Mapping[str, str] | None = None,
    draws: int = 128,
    most: int = 1000,
) -> dict[str, Estimate]:
    """The estimates by key of the request; without those that can never start or of which nothing is known.

    The same input gives the same answer on every replica, and the luck of each request is its own, so that an estimate does not jump
    because the line has moved.

    Args:
        queue: with its ledger and its waiting requests.
        run_times: what is known of how long jobs run.
        now: the moment, seconds since the epoch.
        families: of requests and grants, by key, as far as anybody knows.
        draws: how often a line is run ahead, at least 16; a long one less often.
        most: those behind this place in their lane are told nothing.
    """
    outcome = decide([replace(queue, pool=None)], now)[queue.name]
    by_key = {request.key: request for request in queue.waiting}
    found = {grant.key: Estimate(p50=now, p90=now) for grant in outcome.granted if grant.key in by_key}
    lines: dict[str | None, list[Request]] = {}
    for wait in outcome.waits:
        if 0 < wait.place <= most and wait.reason is not Reason.BUDGET:
            lines.setdefault(wait.lane, []).append(by_key[wait.key])
    for lane in queue.lanes:
        if waiting := lines.get(lane.name):
            held = [grant for grant in outcome.ledger if grant.lane == lane.name]
            ahead = _Ahead(queue, lane, held, waiting, now)
            found.update(ahead.estimates(run_times, families or {}, draws))
    return found


class _Ahead:
    """One lane with those who wait for it."""

    def __init__(self, queue: Queue, lane: Lane, held: Sequence[Grant], waiting: Sequence[Request], now: float) -> None:
        self.queue, self.held, self.waiting, self.now = queue, held, waiting, now
        coarse = queue.order == "easy" and len(waiting) > _EXACT
        self.line = Line(
            lane=lane,
            now=now,
            held=tuple((grant.gpus, grant.ends) for grant in held),
            waiting=tuple((request.gpus, _rounded(self._limit(request) or FOREVER, coarse=coarse)) for request in waiting),
        )

    def estimates(self, run_times: RunTimes, families: Mapping[str, str], draws: int) -> dict[str, Estimate]:
        """Run the line ahead, and read off when each request started."""
        count = max(_FEWEST, min(draws, _STARTS[self.queue.order] // len(self.waiting)))
        late = run_times.lateness(self.queue.name, self.line.lane.name)
        found = {}
        for request, starts in zip(self.waiting, zip(*self._starts(run_times, families, count), strict=True), strict=True):
            in_order = sorted(starts)
            p50, p90 = (in_order[math.ceil(share * count) - 1] for share in (0.5, 0.9))
            if p90 < FOREVER:
                found[request.key] = Estimate(p50=p50, p90=max(p90, self.now + late * (p50 - self.now + HOUR) - HOUR))
        return found

    def _starts(self, run_times: RunTimes, families: Mapping[str, str], count: int) -> Iterator[list[float]]:
        """Of each run ahead, the starts of all requests."""
        left = [
            _dealt(grant.key, run_times.remaining(self._kind(grant, families, grant.limit), max(0.0, self.now - grant.at), count), count)
            for grant in self.held
        ]
        runs = [
            _dealt(request.key, run_times.remaining(self._kind(request, families, self._limit(request)), 0.0, count), count)
            for request in self.waiting
        ]
        ahead = strict_starts if self.queue.order == "strict" else easy_starts
        for number, run in enumerate(zip(*runs, strict=True)):
            yield ahead(self.line, [values[number] for values in left], run)

    def _kind(self, one: Request | Grant, families: Mapping[str, str], limit: float | None) -> Kind:
        lane = self.line.lane.name
        return Kind(queue=self.queue.name, lane=lane, gpus=one.gpus, family=families.get(one.key, ""), limit=limit)

    def _limit(self, request: Request) -> float | None:
        return request.run_limit if request.run_limit is not None else self.queue.default_limit


def _dealt(key: str, values: Sequence[float] | None, count: int) -> Sequence[float]:
    """Evenly spread values, one for each run, in an order that is this key's own; `FOREVER` in every run where there are none."""
    if values is None:
        return (FOREVER,) * count
    number = crc32(key.encode())
    turned = number // _MIXES % count
    mixed: tuple[float, ...] = _mixes(count)[number % _MIXES]([*values[turned:], *values[:turned]])
    return mixed


@lru_cache(maxsize=256)
def _mixes(count: int) -> list[Callable[[Sequence[float]], Any]]:
    """Some orders of `count` things that have nothing to do with each other, alike on every replica."""
    names = [[blake2b(b"%d/%d" % (mix, i), digest_size=8).digest() for i in range(count)] for mix in range(_MIXES)]
    return [itemgetter(*sorted(range(count), key=name.__getitem__)) for name in names]


def _rounded(limit: float, *, coarse: bool) -> float:
    """A limit as it is, or up to the next half of a doubling, so that a long line has few kinds of requests."""
    return math.ceil(2.0 ** (math.ceil(2 * math.log2(limit)) / 2)) if coarse and 0 < limit < FOREVER else limit
