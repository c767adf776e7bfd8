"""Which queues are due for a round, and rounds for each of them apart: one slow ledger holds nobody else up.

Queues that lend and borrow are one group and have their rounds together. A group has one round at a time; what is heard meanwhile makes it
due again. After a failure a group waits, longer each time, and begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Iterable

from gpuqueue.cluster.api import backoff

Group = frozenset[str]
Round = Callable[[Group, float], Awaitable[bool]]
"""Does a round over a group; it is told when the news came (monotonic seconds), and answers whether another is due at once."""


class Dispatch:
    """Starts rounds.

    Args:
        round_: does one.
        groups: the groups of now.
        coalesce: seconds that a round waits for more news after the first.
        tick: seconds after which a group is due in any case: windows open, budgets turn over.
        trouble: is told why a round failed.
    """

    def __init__(
        self,
        round_: Round,
        groups: Callable[[], Iterable[Group]],
        *,
        coalesce: float,
        tick: float,
        trouble: Callable[[Group, Exception], None],
    ) -> None:
        self._round, self._groups, self._coalesce, self._tick, self._trouble = round_, groups, coalesce, tick, trouble
        self._due: dict[str, float] = {}
        """Queue -> since when there is news of it."""
        self._running: dict[Group, asyncio.Task[None]] = {}
        self._last: dict[Group, float] = {}
        self._news = asyncio.Event()

    def hear(self, queue: str | None) -> None:
        """There is news of a queue, or of all."""
        now = time.monotonic()
        for name in [name for group in self._groups() for name in group] if queue is None else [queue]:
            self._due.setdefault(name, now)
        self._news.set()

    async def run(self, leading: Callable[[], bool]) -> None:
        """Do rounds for as long as this replica leads; wait otherwise. Never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, self._tick)):  # wait_for of Python 3.11 loses a cancellation that comes with news
                    await self._news.wait()
            self._news.clear()
            if leading():
                self._start()
            else:
                self._last.clear()  # whoever leads again begins with a round over everything
                self._due.clear()  # and does not count from when this was news to somebody else
                await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Return when no round is under way."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _start(self) -> None:
        now = time.monotonic()
        for group in self._groups():
            due = not self._due.keys().isdisjoint(group) or now - self._last.get(group, -1e9) > self._tick
            if due and group not in self._running:
                task = asyncio.create_task(self._rounds(group))
                self._running[group] = task
                task.add_done_callback(functools.partial(self._ended, group))

    def _ended(self, group: Group, _task: asyncio.Task[None]) -> None:
        self._running.pop(group)
        if not self._due.keys().isdisjoint(group):
            self._news.set()

    async def _rounds(self, group: Group) -> None:
        failed = 0
        while True:
            await asyncio.sleep(self._coalesce)
            heard = min((self._due.pop(name) for name in group if name in self._due), default=time.monotonic())
            self._last[group] = time.monotonic()
            try:
                if not await self._round(group, heard):
                    return
            except Exception as error:  # noqa: BLE001 (the outermost loop: what is wrong with one queue leaves the others alone)
                self._trouble(group, error)
                await backoff(failed)
                failed += 1
                if failed > _PATIENCE:
                    return


_PATIENCE = 3
"""After so many failures in a row a round ends; the next tick or news starts another, if this replica still leads."""
