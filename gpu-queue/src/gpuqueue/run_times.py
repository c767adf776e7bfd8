"""How long jobs run, learned from those that have ended, and how late those were who had been told when they would start.

A job's run time is drawn from what its family did. Where a family has few pasts, or none, wider circles fill in: those of its size and
declared limit in its line, those of its size, its lane, everything. Each circle speaks with weight n / (n + `TRUST`), where n is how many pasts it has, and leaves
the rest to the next one (the shrinkage of a Dirichlet process: Ferguson, "A Bayesian Analysis of Some Nonparametric Problems", 1973).

For a job that runs already only pasts that ran longer than it has count, and a circle that knows none of those falls silent. What has
outlived everything known follows the law that stands behind all circles, a Pareto tail: the longer it has run, the longer it will.

Jobs of one week are alike in ways that no circle shows, so starts read off run times alone are missed together: on real traces six in ten
started by a P90 made in this way. What is measured corrects it: `RunTimes.lateness` (split conformal prediction: Vovk, Gammerman and
Shafer, "Algorithmic Learning in a Random World", 2005). The figures are in benchmarks/README.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpuqueue.history import Past

TRUST = 5.0
"""With this many pasts a circle has half the say."""
LATEST = 200
"""How many pasts of a circle count, the latest ones: habits change."""
HOUR = 3600.0
"""Put on both sides of a lateness, so that a minute told and ten waited is no disaster for those who wait for days."""
_SHAPE = 2.0
_NINE_IN_TEN = 10 ** (1 / _SHAPE) - 1
"""The ninth decile of the Pareto tail, in units of its scale."""


Circle = tuple[object, ...]
"""What jobs share that are taken to run alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of a job before it has run."""

    queue: str
    lane: str
    gpus: int
    family: str = ""
    limit: float | None = None
    """Seconds; nine in ten of those that nothing else is known of are taken to end by it."""

    def circles(self) -> list[Circle]:
        """From the widest to the narrowest, what it shares with others."""
        like = (self.queue, self.lane, self.gpus.bit_length())
        found: list[Circle] = [(), (self.lane,), like]
        if self.limit is not None:
            found.append((*like, round(2 * math.log2(max(self.limit, 1.0)))))
        if self.family:
            found.append((self.queue, self.lane, "family", self.family))
        return found


class RunTimes:
    """What a history says about run times. Built once for each state of the history, and asked often."""

    def __init__(self, pasts: Iterable[Past]) -> None:
        latest: dict[Circle, deque[float]] = {}
        late: dict[Circle, list[float]] = {}
        for past in sorted(pasts, key=lambda past: past.ended):
            kind = Kind(queue=past.queue, lane=past.lane, gpus=past.gpus, family=past.family, limit=past.limit)
            for circle in kind.circles():
                latest.setdefault(circle, deque(maxlen=LATEST)).append(max(past.ran, 1.0))
            if past.told_p50 is not None:
                told = max(0.0, past.told_p50 - past.since)
                late.setdefault((past.queue, past.lane), []).append((past.wait + HOUR) / (told + HOUR))
        self._known = {circle: sorted(seconds) for circle, seconds in latest.items()}
        self._late = {line: _ninth_decile(ratios) for line, ratios in late.items()}

    def lateness(self, queue: str, lane: str) -> float:
        """How many times as long as they were told (P50, and an hour more on both sides) nine in ten of this line waited at most.

        At least 1; and 1 as long as fewer than nine were told anything.
        """
        return self._late.get((queue, lane), 1.0)

    def remaining(self, kind: Kind, elapsed: float, count: int) -> list[float] | None:
        """Seconds that a job will still run: `count` equally likely values, in no order.

        Args:
            kind: what is known of it.
            elapsed: seconds that it has run; 0 for one that has not begun.
            count: how many values.

        Returns:
            None if there is nothing to go by: neither a history nor a limit.
        """
        scale = self._scale(kind.limit)
        if scale is None:
            return None
        circles = [self._known[circle] for circle in kind.circles() if circle in self._known]
        weights = [(1 + elapsed / scale) ** -_SHAPE]
        for known in circles:
            weights = [weight * TRUST / (TRUST + len(known)) for weight in weights]
            weights.append((len(known) - bisect_right(known, elapsed)) / (TRUST + len(known)))
        beyond, *shares = _shares(weights, count)
        values = [(scale + elapsed) * ((1 - (i + 0.5) / beyond) ** (-1 / _SHAPE) - 1) for i in range(beyond)]
        for known, share in zip(circles, shares, strict=True):
            first = bisect_right(known, elapsed)
            values.extend(known[first + (2 * i + 1) * (len(known) - first) // (2 * share)] - elapsed for i in range(share))
        return values

    def _scale(self, limit: float | None) -> float | None:
        """Of the law behind all circles."""
        everything = self._known.get(())
        if limit is not None:
            return max(limit, 1.0) / _NINE_IN_TEN
        return everything[len(everything) * 9 // 10] / _NINE_IN_TEN if everything else None


def _shares(weights: Sequence[float], count: int) -> list[int]:
    """`count`, divided as `weights` say."""
    total, so_far = sum(weights), 0.0
    edges = [0]
    for weight in weights:
        so_far += weight
        edges.append(round(count * so_far / total))
    return [after - before for before, after in pairwise(edges)]


def _ninth_decile(ratios: Sequence[float]) -> float:
    """The conformal one: the next ratio is at most this with a chance of nine in ten, if it is like those before."""
    place = math.ceil(0.9 * (len(ratios) + 1))
    return max(1.0, sorted(ratios)[place - 1]) if place <= len(ratios) else 1.0
