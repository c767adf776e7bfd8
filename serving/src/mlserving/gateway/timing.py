"""Deadlines of calls, ten milliseconds apart: one timer for all of them, and two dictionary steps for each."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

_TICK = 0.01


class Timed(Protocol):
    """Something with a deadline."""

    expires: float
    slot: int

    def expire(self) -> None:
        """The time is over."""


class Wheel:
    """Calls `expire` of what is added and not removed before its `expires` (monotonic seconds)."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Timed]] = {}
        self._loop = asyncio.get_running_loop()
        self._turning = False

    def add(self, timed: Timed) -> None:
        """Watch over `timed`."""
        slot = timed.slot = int(timed.expires / _TICK) + 1
        there = self._slots.get(slot)
        if there is None:
            there = self._slots[slot] = set()
            if not self._turning:
                self._turning = True
                self._loop.call_later(_TICK, self._turn)
        there.add(timed)

    def remove(self, timed: Timed) -> None:
        """It was in time."""
        there = self._slots.get(timed.slot)
        if there is not None:
            there.discard(timed)
            if not there:
                del self._slots[timed.slot]

    def _turn(self) -> None:
        now = int(time.monotonic() / _TICK)
        for slot in [slot for slot in self._slots if slot <= now]:
            for timed in list(self._slots.pop(slot)):
                timed.expire()
        self._turning = bool(self._slots)
        if self._turning:
            self._loop.call_later(_TICK, self._turn)
