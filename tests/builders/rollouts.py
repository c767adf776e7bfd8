"""Rollouts and what is seen of them, for tests: a test names only what matters to it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlserving.errors import Conflict, Unavailable
from mlserving.gateway.settings import Track
from mlserving.rollout.document import Desired, Wanted
from mlserving.rollout.observation import Histogram, Observation, Seen
from mlserving.rollout.plan import Phase, Plan, Rollout

EDGES = tuple(0.001 * 1.4**power for power in range(24))
NOW = 1_000_000.0


def plan(**changes: Any) -> Plan:
    """A quick plan; `limits` as a mapping."""
    return Plan.model_validate({"min_requests": 200, "min_seconds": 10.0, "max_seconds": 1000.0, **changes})


def rollout(of: Plan | None = None, **changes: Any) -> Rollout:
    """Version 2 as the canary of version 1, its first step counted since NOW."""
    values = {"phase": Phase.CANARY, "step_started": NOW, "baseline": {}, **changes}
    return Rollout(id="r", model="demo", from_version=1, to_version=2, plan=of or plan(), started=NOW, started_by="ann", **values)


def seen(requests: int, errors: int = 0, *, version: int = 2, seconds: float = 0.02, classes: dict[str, int] | None = None) -> Seen:
    """A track whose requests all took `seconds`."""
    counts = [0.0] * len(EDGES)
    counts[bisect_left(EDGES, seconds)] = requests
    return Seen(
        version=version, requests=requests, errors=errors, latency=Histogram(edges=EDGES, counts=tuple(counts)), classes=classes or {}
    )


def observed(canary: Seen, stable: Seen | None = None) -> Observation:
    """`canary` against a hundred times as many faultless requests, unless told otherwise."""
    return Observation(canary=canary, stable=stable or seen(canary.requests * 100, version=1))


@dataclass
class World:
    """Requests that arrive at random and are dealt to two tracks, each of which fails, dawdles and answers after its own fashion."""

    seed: int
    canary_errors: float = 0.0
    stable_errors: float = 0.0
    canary_median: float = 0.02
    stable_median: float = 0.02
    canary_shares: tuple[float, ...] = (0.5, 0.3, 0.2)
    stable_shares: tuple[float, ...] = (0.5, 0.3, 0.2)
    rate: int = 200
    """Requests a second."""
    _counts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.begin()

    def begin(self) -> None:
        """A step begins: count from zero."""
        self._counts = {track: [0, 0, np.zeros(len(EDGES)), np.zeros(3, int)] for track in ("canary", "stable")}

    def pass_time(self, seconds: float, weight: float) -> None:
        """Let requests come, `weight` percent of them to the canary."""
        total = self.random.poisson(self.rate * seconds)
        canary = self.random.binomial(total, weight / 100)
        self._answer("canary", canary, self.canary_errors, self.canary_median, self.canary_shares)
        self._answer("stable", total - canary, self.stable_errors, self.stable_median, self.stable_shares)

    def _answer(self, track: str, count: int, errors: float, median: float, shares: tuple[float, ...]) -> None:
        counts = self._counts[track]
        taken = np.searchsorted(EDGES, self.random.lognormal(np.log(median), 0.5, count)).clip(max=len(EDGES) - 1)
        self._counts[track] = [
            counts[0] + count,
            counts[1] + self.random.binomial(count, errors),
            counts[2] + np.bincount(taken, minlength=len(EDGES)),
            counts[3] + self.random.multinomial(count, shares),
        ]

    def observation(self) -> Observation:
        """Both tracks since `begin`."""
        return Observation(canary=self._seen("canary", 2), stable=self._seen("stable", 1))

    def _seen(self, track: str, version: int) -> Seen:
        requests, errors, latency, classes = self._counts[track]
        return Seen(
            version=version,
            requests=int(requests),
            errors=int(errors),
            latency=Histogram(edges=EDGES, counts=tuple(map(float, latency))),
            classes=dict(zip("abc", map(int, classes), strict=True)),
        )


class MemoryDriver:
    """A driver whose documents lie in memory. Versions in `broken` never load; `writes` are all that was ever wanted."""

    def __init__(self, *documents: Desired) -> None:
        self.documents = {each.model: each for each in documents}
        self.writes: list[Desired] = []
        self.broken: set[int] = set()
        self.before_write: Callable[[], None] = lambda: None

    def read(self, model: str) -> Desired:
        return self.documents[model]

    def write(self, desired: Desired) -> Desired:
        self.before_write()
        if self.documents[desired.model].revision != desired.revision:
            raise Conflict("changed since it was read")
        written = Desired.model_validate_json(desired.model_copy(update={"revision": desired.revision + 1}).model_dump_json())
        self.documents[desired.model] = written
        self.writes.append(written)
        return written

    def await_in_force(self, desired: Desired, _: float) -> None:
        broken = self.broken & {wanted.version for wanted in desired.tracks.values()}
        if broken:
            raise Unavailable(f"version {broken.pop()} does not start")

    def digest(self, _: str, version: int) -> str:
        return f"digest of {version}"

    def newest(self, _: str) -> int | None:
        return 2


class WorldSource:
    """Counts what a World does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reached = True

    def reaches(self, _rollout: Rollout, _: float) -> bool:
        return self.reached

    def mark(self, rollout: Rollout) -> dict[str, Any]:
        self.world.begin()
        return {"step": rollout.step}

    def observe(self, rollout: Rollout, _: float) -> Observation:
        assert rollout.baseline == {"step": rollout.step}, "only what was counted since this step began is judged"
        return self.world.observation()


def served(version: int = 1) -> Desired:
    """The model `demo`, of which one version answers everything."""
    return Desired(model="demo", revision=1, tracks={Track.STABLE: Wanted(version=version, weight=100)})
