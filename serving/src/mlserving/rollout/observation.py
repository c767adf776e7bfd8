"""What the two tracks did since a step began, as the judgement takes it: counts, whoever counted them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many requests took how long: `counts[i]` of them at most `edges[i]` seconds and longer than the edge before."""

    edges: tuple[float, ...] = (math.inf,)
    counts: tuple[float, ...] = (0.0,)

    @classmethod
    def from_cumulative(cls, buckets: Mapping[float, float]) -> Self:
        """From Prometheus' buckets: upper edge to the number at or below it."""
        edges = sorted(buckets)
        upto = [max(0.0, buckets[edge]) for edge in edges]
        counts = [max(0.0, now - before) for before, now in zip([0.0, *upto], upto, strict=False)]
        return cls(edges=tuple(edges), counts=tuple(counts)) if edges else cls()

    @property
    def total(self) -> float:
        """How many there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Seconds below which `share` of the requests lie: linear within a bucket, the last finite edge beyond it. Zero where nothing was seen."""
        wanted, below, lower = share * self.total, 0.0, 0.0
        for edge, count in zip(self.edges, self.counts, strict=True):
            if count and below + count >= wanted:
                return lower if math.isinf(edge) else lower + (edge - lower) * max(0.0, wanted - below) / count
            below += count
            lower = lower if math.isinf(edge) else edge
        return lower if below else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One track since the step began. Only what its version answered is counted."""

    version: int
    requests: int = 0
    errors: int = 0
    """Requests that did not succeed; what the caller itself gave up is no request here."""
    latency: Histogram = field(default_factory=Histogram)
    classes: Mapping[str, int] = field(default_factory=dict)
    """Instances by predicted class, of the requests that are logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Both tracks over the same time."""

    canary: Seen
    stable: Seen
