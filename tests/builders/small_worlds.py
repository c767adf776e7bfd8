"""Every way in which a small world can go: a few pods, several controllers that all believe to lead, and nothing they can rely on.

The controllers run `reconcile`, the generator that the real controller runs. Between any two of its effects anything may happen: another
controller does a step, a pod is made, ends or is deleted, a controller dies. Each round starts from a view in which every pod may be
as old as anybody likes, down to not being there yet; so may be the ledger that it reads. A write may be done and its answer lost. `explore` visits every state that
can be reached and calls `check` on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from gpuqueue.queue import Grant, Queue
from gpuqueue.reconcile import ConfirmOver, Effect, Ledger, OpenGate, Phase, ReadLedger, SeenPod, TryGate, WriteLedger, reconcile

ABSENT, GATED, OPEN, ENDED, GONE = range(5)
_NEXT = {ABSENT: (GATED,), GATED: (GONE,), OPEN: (ENDED, GONE), ENDED: (GONE,), GONE: ()}
CURRENT, OLD = "current", "old"
"""Versions of a ledger: all that matters is whether somebody has written it since."""
_PHASE: dict[int, Phase] = {GATED: "gated", OPEN: "open", ENDED: "ended"}

History = tuple[int, ...]
"""What a pod has been so far; the last entry is what it is."""
Progress = tuple[History, tuple[Any, ...]]
"""A controller in a round: its view (a state of each pod), and the answers it has had."""


@dataclass(frozen=True, slots=True)
class World:
    """One state: what the API server holds, and how far each controller is."""

    pods: tuple[History, ...]
    ledger: tuple[Grant, ...] = ()
    past: frozenset[tuple[Grant, ...]] = frozenset()
    """Ledgers that have been: a controller may read any of them."""
    controllers: tuple[Progress | None, ...] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What the controllers can rely on. Tests break it on purpose."""

    live_reads: bool = True
    """Whether a pod is over only if the server says so; else a pod that a controller has not heard of is taken for gone."""
    compare_and_swap: bool = True
    """Whether a ledger that somebody has written meanwhile is refused; else the last writer wins."""


class SmallWorlds:
    """All worlds of one queue with these pods."""

    def __init__(self, queue: Queue, pods: tuple[SeenPod, ...], protocol: Protocol | None = None) -> None:
        self.queue, self.pods, self.protocol = queue, pods, protocol or Protocol()
        self.numbers = {pod.uid: number for number, pod in enumerate(pods)}
        self.effect = cache(self._effect)

    def explore(self, start: World, check: Callable[[World], None]) -> int:
        """Visit every reachable world; returns how many there are."""
        seen, front = {start}, [start]
        while front:
            world = front.pop()
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
            if progress is None:
                for view in self._views(world):
                    yield from self._steps(world, place, (view, ()))  # it reads the ledger at once: its view may be older all the same
            else:
                yield self._with_controller(world, place, None)  # it dies
                yield from self._steps(world, place, progress)

    def settled(self, world: World) -> World:
        """What becomes of a world in which one controller sees everything as it is, and pods that run come to an end."""
        world = World(pods=world.pods, ledger=world.ledger, controllers=(None,))
        while True:
            before = world
            world = self._with_controller(world, 0, (tuple(history[-1] for history in world.pods), ()))
            while (progress := world.controllers[0]) is not None:
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

    def _effect(self, view: History, answers: tuple[Any, ...]) -> Effect | None:
        pods = [replace(self.pods[number], phase=_PHASE[state]) for number, state in enumerate(view) if state in _PHASE]
        conversation = reconcile([self.queue], pods, 0.0)
        try:
            effect = next(conversation)
            for answer in answers:
                effect = conversation.send(answer)
        except StopIteration:
            return None
        return effect

    def _steps(self, world: World, place: int, progress: Progress) -> Iterator[World]:
        """What the controller's next effect can lead to; first that it goes well."""
        view, answers = progress
        effect = self.effect(view, answers)
        if effect is None:
            yield self._with_controller(world, place, None)
            return
        for answer, after in self._performed(world, effect):
            told = (*answers, answer) if after.ledger is world.ledger else (*_outdated(answers), answer)
            yield self._with_controller(after, place, (view, told))

    def _performed(self, world: World, effect: Effect) -> Iterator[tuple[Any, World]]:
        match effect:
            case ReadLedger():
                yield Ledger(version=CURRENT, grants=world.ledger), world
                for grants in world.past - {world.ledger}:
                    yield Ledger(version=OLD, grants=grants), world
            case ConfirmOver(uid=uid):
                over = world.pods[self.numbers[uid]][-1] in (ENDED, GONE)
                yield over or not self.protocol.live_reads, world
            case WriteLedger(version=version, grants=grants, only_frees=only_frees):
                if version == CURRENT or not self.protocol.compare_and_swap:
                    others = tuple(each and (each[0], _outdated(each[1])) for each in world.controllers)
                    after = World(pods=world.pods, ledger=grants, past=world.past | {world.ledger}, controllers=others)
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

    def _with_controller(self, world: World, place: int, progress: Progress | None) -> World:
        others = (*world.controllers[:place], *world.controllers[place + 1 :])
        controllers = tuple(sorted((*others, progress), key=hash))  # which of them is which does not matter
        return World(pods=world.pods, ledger=world.ledger, past=world.past, controllers=controllers)


def _outdated(answers: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same answers after somebody has written the ledger."""
    return tuple(Ledger(version=OLD, grants=answer.grants) if isinstance(answer, Ledger) else answer for answer in answers)
