"""Every way in which a small world can go: a few pods, several controllers that all believe to lead, and nothing they can rely on.

The controllers run `reconcile`, the generator that the real controller runs. Between any two of its effects anything may happen: another
controller does a step, a pod is made, ends or is deleted, a controller dies. Each round starts from a view in which every pod may be
as old as anybody likes, down to not being there yet; so may be the ledger that it reads. A write may be done and its answer lost. `explore` visits every state that
can be reached and calls `check` on it.

There are millions of states, and each is looked up among those that were seen: so in a state, ledgers and controllers are numbers, which are compared at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

from gpuqueue.queue import Grant, Queue
from gpuqueue.reconcile import ConfirmOver, Effect, Ledger, OpenGate, Phase, ReadLedger, SeenPod, TryGate, WriteLedger, reconcile

ABSENT, GATED, OPEN, ENDED, GONE = range(5)
_NEXT = {ABSENT: (GATED,), GATED: (GONE,), OPEN: (ENDED, GONE), ENDED: (GONE,), GONE: ()}
CURRENT, OLD = "current", "old"
"""Versions of a ledger: all that matters is whether somebody has written it since."""
_PHASE: dict[int, Phase] = {GATED: "gated", OPEN: "open", ENDED: "ended"}

Thing = TypeVar("Thing")
History = tuple[int, ...]
"""What a pod has been so far; the last entry is what it is."""
Progress = tuple[History, tuple[Any, ...]]
"""A controller in a round: its view (a state of each pod), and the answers it has had; a ledger as its version and its number."""
EMPTY = 0
"""The number of the ledger that names nobody."""
IDLE = -1
"""The number of a controller that is in no round."""


class World(NamedTuple):
    """One state: what the API server holds, and how far each controller is."""

    pods: tuple[History, ...]
    ledger: int = EMPTY
    past: frozenset[int] = frozenset()
    """Ledgers that have been: a controller may read any of them."""
    controllers: tuple[int, ...] = (IDLE, IDLE)
    """The number of each one's progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What the controllers can rely on. Tests break it on purpose."""

    live_reads: bool = True
    """Whether a pod is over only if the server says so; else a pod that a controller has not heard of is taken for gone."""
    compare_and_swap: bool = True
    """Whether a ledger that somebody has written meanwhile is refused; else the last writer wins."""


class Numbered(Generic[Thing]):
    """Things by the number that each got when it first came."""

    def __init__(self, *things: Thing) -> None:
        self._things = list(things)
        self._numbers = {thing: number for number, thing in enumerate(things)}

    def __getitem__(self, number: int) -> Thing:
        return self._things[number]

    def number(self, thing: Thing) -> int:
        found = self._numbers.setdefault(thing, len(self._things))
        if found == len(self._things):
            self._things.append(thing)
        return found


class SmallWorlds:
    """All worlds of one queue with these pods."""

    def __init__(self, queue: Queue, pods: tuple[SeenPod, ...], protocol: Protocol | None = None) -> None:
        self.queue, self.pods, self.protocol = queue, pods, protocol or Protocol()
        self.numbers = {pod.uid: number for number, pod in enumerate(pods)}
        self._ledgers, self._progress = Numbered[tuple[Grant, ...]](()), Numbered[Progress]()
        self._effect, self._told, self._outdated = cache(self._find_effect), cache(self._find_told), cache(self._find_outdated)

    def grants(self, world: World) -> tuple[Grant, ...]:
        """Of its ledger."""
        return self._ledgers[world.ledger]

    def explore(self, start: World, check: Callable[[World], None]) -> int:
        """Visit every reachable world, the nearest first, so that what goes wrong is soon found and shown in few steps; returns how many there are."""
        seen, front = {start}, deque([start])
        while front:
            world = front.popleft()
            check(world)
            for following in self.following(world):
                if following not in seen:
                    seen.add(following)
                    front.append(following)
        return len(seen)

    def following(self, world: World) -> Iterator[World]:
        """Every world that one step leads to."""
        for number, history in enumerate(world.pods):
            for state in _NEXT[history[-1]]:
                yield self._with_pod(world, number, state)
        for place, progress in enumerate(world.controllers):
            if progress == IDLE:
                for view in self._views(world):
                    # it reads the ledger at once: its view may be older all the same
                    yield from self._steps(world, place, self._progress.number((view, ())))
            else:
                yield _with_controller(world, place, IDLE)  # it dies
                yield from self._steps(world, place, progress)

    def settled(self, world: World) -> World:
        """What becomes of a world in which one controller sees everything as it is, and pods that run come to an end."""
        world = World(pods=world.pods, ledger=world.ledger, controllers=(IDLE,))
        while True:
            before = world
            world = _with_controller(world, 0, self._progress.number((tuple(history[-1] for history in world.pods), ())))
            while (progress := world.controllers[0]) != IDLE:
                world = next(self._steps(world, 0, progress))
            running = [number for number, history in enumerate(world.pods) if history[-1] == OPEN]
            for number in running:
                world = self._with_pod(world, number, ENDED)
            if (world.pods, world.ledger) == (before.pods, before.ledger):
                return world

    def _views(self, world: World) -> list[History]:
        views: list[History] = [()]
        for history in world.pods:
            views = [(*view, state) for view in views for state in sorted(set(history))]
        return views

    def _find_effect(self, progress: int) -> Effect | None:
        view, answers = self._progress[progress]
        pods = [replace(self.pods[number], phase=_PHASE[state]) for number, state in enumerate(view) if state in _PHASE]
        conversation = reconcile([self.queue], pods, 0.0)
        try:
            effect = next(conversation)
            for answer in answers:
                heard = Ledger(version=answer[0], grants=self._ledgers[answer[1]]) if isinstance(answer, tuple) else answer
                effect = conversation.send(heard)
        except StopIteration:
            return None
        return effect

    def _find_told(self, progress: int, answer: Any) -> int:
        """The progress after one more answer."""
        view, answers = self._progress[progress]
        return self._progress.number((view, (*answers, answer)))

    def _find_outdated(self, progress: int) -> int:
        """The same progress after somebody has written the ledger."""
        if progress == IDLE:
            return IDLE
        view, answers = self._progress[progress]
        return self._progress.number((view, tuple((OLD, answer[1]) if isinstance(answer, tuple) else answer for answer in answers)))

    def _steps(self, world: World, place: int, progress: int) -> Iterator[World]:
        """What the controller's next effect can lead to; first that it goes well."""
        effect = self._effect(progress)
        if effect is None:
            yield _with_controller(world, place, IDLE)
            return
        for answer, after in self._performed(world, effect):
            known = progress if after.ledger == world.ledger else self._outdated(progress)
            yield _with_controller(after, place, self._told(known, answer))

    def _performed(self, world: World, effect: Effect) -> Iterator[tuple[Any, World]]:
        match effect:
            case ReadLedger():
                yield (CURRENT, world.ledger), world
                for ledger in world.past - {world.ledger}:
                    yield (OLD, ledger), world
            case ConfirmOver(uid=uid):
                over = world.pods[self.numbers[uid]][-1] in (ENDED, GONE)
                yield over or not self.protocol.live_reads, world
            case WriteLedger(version=version, grants=grants, only_frees=only_frees):
                if version == CURRENT or not self.protocol.compare_and_swap:
                    controllers = tuple(self._outdated(each) for each in world.controllers)
                    ledger = self._ledgers.number(grants)
                    after = World(pods=world.pods, ledger=ledger, past=world.past | {world.ledger}, controllers=controllers)
                    yield True, after
                    yield False, after  # the answer is lost
                yield False, world
                if only_frees:
                    yield None, world  # it waits
            case TryGate():
                yield "", world
            case OpenGate(uid=uid):
                number = self.numbers[uid]
                yield None, self._with_pod(world, number, OPEN) if world.pods[number][-1] == GATED else world
                yield None, world  # the request is lost

    def _with_pod(self, world: World, number: int, state: int) -> World:
        pods = (*world.pods[:number], (*world.pods[number], state), *world.pods[number + 1 :])
        return World(pods=pods, ledger=world.ledger, past=world.past, controllers=world.controllers)


def _with_controller(world: World, place: int, progress: int) -> World:
    others = (*world.controllers[:place], *world.controllers[place + 1 :])
    controllers = tuple(sorted((*others, progress)))  # which of them is which does not matter
    return World(pods=world.pods, ledger=world.ledger, past=world.past, controllers=controllers)
