"""Whom to tell next. Writes are what the queue has least of: a line of n pods that moves n times is n² of them if everybody always knows.

So a pod is told when it comes, when its reason changes, when it starts, and near the front also when its likely start becomes known and when
it moves into another of a few places (1, 2, 3, 5, 10, 20, …). Everything else is there for the asking: `gpuq why` works it out at once. What was told last is on the pod.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from gpuqueue.words import place_in, tells_start

_STEPS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a pod could be told."""

    uid: str
    namespace: str
    name: str
    admitted: bool
    message: str
    last: str | None
    """The message of its condition now; None if it has none."""
    last_admitted: bool = False
    running: bool = False

    @property
    def place(self) -> int:
        """Its place; 0 where there is none."""
        return place_in(self.message)[1]


def due(notes: Iterable[Note], top: int) -> list[Note]:
    """Those worth a write, the most urgent first.

    Args:
        notes: what each pod could be told.
        top: how far from the front moving up is worth telling.
    """
    urgent = [(urgency, note.place, note.name, note) for note in notes if (urgency := _urgency(note, top)) is not None]
    return [note for *_, note in sorted(urgent, key=lambda each: each[:3])]


def _urgency(note: Note, top: int) -> int | None:
    """Smaller is more urgent; None is not worth it."""
    if note.admitted:
        never_told = note.last is None or note.last_admitted
        return None if never_told else 3 if note.running else 0
    if note.last is None:
        return 1
    (reason, place), (before, place_before) = place_in(note.message), place_in(note.last)
    if reason != before or note.last_admitted:
        return 1
    moved = step(place) != step(place_before)
    learned = tells_start(note.message) and not tells_start(note.last)
    return 2 if (moved or learned) and place <= top else None


def step(place: int) -> int:
    """The largest of the steps that `place` has reached."""
    return bisect_right(_STEPS, place)
