"""What people are told to expect, and how true it turned out.

Starts are estimated aside, in a thread and not more often than every few seconds: a grant never waits for an estimate. What somebody was
told first is remembered until they start, and goes into the history with them; from there it corrects the next estimates.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from gpuqueue.cluster.board import Board
from gpuqueue.estimate import Estimate, expected_starts
from gpuqueue.history import Coverage, Past, coverage
from gpuqueue.queue import Grant, Queue
from gpuqueue.run_times import RunTimes

_DRAWS = 100
MOST = 20_000
"""So many pasts are kept in mind; `RunTimes` looks at the latest few hundred of each kind."""
_RECENT_SECONDS = 14 * 24 * 3600.0


class Forecast:
    """Run times, and the starts that follow from them."""

    def __init__(self) -> None:
        self.pasts: list[Past] = []
        self.starts: dict[str, tuple[float, float]] = {}
        """Key -> P50 and P90 of its start."""
        self._told: dict[str, Estimate] = {}
        self._run_times = RunTimes(())
        self._news = False

    def learn(self, pasts: Iterable[Past]) -> None:
        """Take in what has ended; what is too long ago is forgotten."""
        before = len(self.pasts)
        self.pasts.extend(pasts)
        self._news = self._news or len(self.pasts) > before
        del self.pasts[:-MOST]

    def learn_anew(self, pasts: Iterable[Past]) -> None:
        """Take these for all that has ended."""
        self.pasts.clear()
        self._news = True
        self.learn(pasts)

    async def look_ahead(self, board: Board) -> float:
        """Estimate anew; returns how many seconds it took."""
        started = time.monotonic()
        queues = [queue for queue in board.queues.values() if queue.waiting]
        starts: dict[str, tuple[float, float]] = {}
        if self._news:
            self._news = False
            self._run_times = await asyncio.to_thread(RunTimes, list(self.pasts))
        for queue in queues:
            for key, estimate in (await asyncio.to_thread(estimates, queue, self._run_times, board.now)).items():
                starts[key] = (estimate.p50, estimate.p90)
                if estimate.p90 > board.now:  # who starts at once is told nothing
                    self._told.setdefault(key, estimate)
        self.starts = starts
        waiting = {request.key for queue in board.queues.values() for request in queue.waiting}
        held = {grant.key for queue in board.queues.values() for grant in queue.ledger}
        self._told = {key: told for key, told in self._told.items() if key in waiting or key in held}
        return time.monotonic() - started

    def past_of(self, queue: str, grant: Grant, ended: float) -> Past:
        """The line of history of a grant that has ended."""
        told = self._told.pop(grant.key, None)
        return Past(
            queue=queue,
            lane=grant.lane,
            namespace=grant.namespace,
            name=grant.name,
            family=grant.family,
            gpus=grant.gpus,
            since=grant.since if grant.since is not None else grant.at,
            at=grant.at,
            ended=max(ended, grant.at),
            limit=grant.limit,
            told_p50=told.p50 if told else None,
            told_p90=told.p90 if told else None,
        )

    def truth(self, now: float) -> dict[str, Coverage]:
        """How true what was told turned out lately, by queue."""
        by_queue: dict[str, list[Past]] = {}
        for past in self.pasts:
            by_queue.setdefault(past.queue, []).append(past)
        found = {queue: coverage(pasts, begin=now - _RECENT_SECONDS) for queue, pasts in by_queue.items()}
        return {queue: each for queue, each in found.items() if each is not None}


def estimates(queue: Queue, run_times: RunTimes, now: float) -> dict[str, Estimate]:
    """The expected starts of those who wait in a queue."""
    families = {request.key: request.family for request in queue.waiting} | {grant.key: grant.family for grant in queue.ledger}
    return expected_starts(queue, run_times, now, families=families, draws=_DRAWS)
