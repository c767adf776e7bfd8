"""Which queues are due for a round: nothing heard is lost, and nobody holds anybody else up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from gpuqueue.controller.dispatch import Dispatch, Group
from http_server import until

A, B = frozenset("a"), frozenset("b")
LONG = 1000.0


class Rounds:
    """Counts rounds; each waits until it is let go."""

    def __init__(self, *, tick: float = LONG, groups: tuple[Group, ...] = (A, B)) -> None:
        self.begun: list[Group] = []
        self.failed: list[Group] = []
        self.running: list[Group] = []
        self.most = 0
        self.held: dict[Group, asyncio.Event] = {}
        self.broken: set[Group] = set()
        self.again = 0
        self.leading = True
        self.groups = groups
        self.dispatch = Dispatch(
            self._round, lambda: self.groups, coalesce=0.0, tick=tick, trouble=lambda group, _: self.failed.append(group)
        )

    async def _round(self, group: Group, _heard: float) -> bool:
        self.begun.append(group)
        self.running.append(group)
        self.most = max(self.most, self.running.count(group))
        try:
            if (event := self.held.get(group)) is not None:
                await event.wait()
            if group in self.broken:
                raise RuntimeError("this queue is broken")
            self.again -= 1
            return self.again >= 0
        finally:
            self.running.remove(group)

    async def begin(self, count: int, group: Group) -> None:
        """Return once so many rounds of a group have begun."""
        await until(lambda: self.begun.count(group) >= count)


@asynccontextmanager
async def going(rounds: Rounds) -> AsyncIterator[Rounds]:
    task = asyncio.create_task(rounds.dispatch.run(lambda: rounds.leading))
    try:
        yield rounds
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        for event in rounds.held.values():
            event.set()
        rounds.broken.clear()
        rounds.again = 0


def run(rounds: Rounds, what: Callable[[Rounds], Awaitable[None]]) -> None:
    async def main() -> None:
        async with going(rounds):
            await what(rounds)

    asyncio.run(main())


def test_whoever_begins_to_lead_looks_at_everything_once_and_then_at_what_is_heard_of() -> None:
    async def story(rounds: Rounds) -> None:
        rounds.dispatch.hear("a")
        await rounds.begin(1, A)
        await rounds.begin(1, B)
        await rounds.dispatch.settled()
        rounds.dispatch.hear("b")
        await rounds.begin(2, B)
        assert rounds.begun.count(A) == 1

    run(Rounds(), story)


def test_one_round_of_a_group_at_a_time_and_what_is_heard_meanwhile_makes_another_due() -> None:
    async def story(rounds: Rounds) -> None:
        rounds.held[A] = asyncio.Event()
        rounds.dispatch.hear(None)
        await rounds.begin(1, A)
        for _ in range(5):
            rounds.dispatch.hear("a")
            await asyncio.sleep(0)
        await rounds.begin(1, B)
        assert rounds.begun.count(A) == 1
        rounds.held[A].set()
        await rounds.begin(2, A)
        await rounds.dispatch.settled()
        assert rounds.begun.count(A) == 2, "five pieces of news are one round"
        assert rounds.most == 1

    run(Rounds(), story)


def test_a_slow_group_holds_no_other_up() -> None:
    async def story(rounds: Rounds) -> None:
        rounds.held[A] = asyncio.Event()
        rounds.dispatch.hear(None)
        await rounds.begin(1, A)
        for number in range(2, 5):
            rounds.dispatch.hear("b")
            await rounds.begin(number, B)
        assert rounds.begun.count(A) == 1

    run(Rounds(), story)


def test_a_broken_group_holds_no_other_up_and_is_tried_again() -> None:
    async def story(rounds: Rounds) -> None:
        rounds.broken.add(A)
        rounds.dispatch.hear(None)
        await until(lambda: rounds.failed.count(A) >= 1)
        rounds.dispatch.hear("b")
        await rounds.begin(2, B)
        rounds.broken.clear()
        failed = rounds.failed.count(A)
        await rounds.begin(failed + 1, A)
        assert set(rounds.failed) == {A}

    run(Rounds(), story)


def test_a_round_that_asks_for_another_gets_it_at_once() -> None:
    async def story(rounds: Rounds) -> None:
        rounds.again = 3
        rounds.dispatch.hear("a")
        await rounds.begin(4, A)

    run(Rounds(groups=(A,)), story)


def test_a_group_is_due_after_a_while_though_nothing_is_heard() -> None:
    async def story(rounds: Rounds) -> None:
        await rounds.begin(3, A)

    run(Rounds(tick=0.01), story)


def test_nothing_is_done_while_another_leads_and_old_news_is_not_counted_from_then() -> None:
    """How long a gate took is measured from the news: news that another leader has dealt with must not count."""
    heard: list[float] = []

    async def story(rounds: Rounds) -> None:
        async def round_(_group: Group, since: float) -> bool:
            heard.append(since)
            return False

        rounds.dispatch._round = round_
        rounds.leading = False
        rounds.dispatch.hear(None)
        await until(lambda: not rounds.dispatch._due)
        assert heard == []
        rounds.leading = True
        took_over = asyncio.get_running_loop().time()
        rounds.dispatch.hear("a")
        await until(lambda: len(heard) == 2)
        assert min(heard) >= took_over

    run(Rounds(), story)


def test_news_that_comes_with_the_end_does_not_keep_it_from_ending() -> None:
    """A pod that is deleted just before SIGTERM: the end must not be lost, or a replica hangs until it is killed."""

    async def main() -> None:
        rounds = Rounds()
        task = asyncio.create_task(rounds.dispatch.run(lambda: False))
        await asyncio.sleep(0.01)
        rounds.dispatch.hear("a")
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()

    asyncio.run(main())


def test_queues_that_come_to_belong_together_have_one_round_together() -> None:
    async def story(rounds: Rounds) -> None:
        rounds.dispatch.hear(None)
        await rounds.begin(1, B)
        await rounds.dispatch.settled()
        rounds.groups = (A | B,)
        rounds.dispatch.hear("b")
        await rounds.begin(1, A | B)

    run(Rounds(), story)
