"""Dates in the calendar as causes: which firings have come since anybody looked, and what became of those that came at a bad moment.

How far each schedule was looked through is a row in the ledger's database, moved on after the decision was written: killed in between, the same
firing is told again and is the same cause. Several firings since the last look are one cause, the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine, delete, insert, select

from mlpipelines.project import Schedule
from mlpipelines.triggers.decide import Cause, Decision, Reason, Signal
from mlpipelines.triggers.schedule import last_firing
from mlpipelines.triggers.tables import SCHEDULES
from mlserving.database import locked

LATE_SECONDS = 600.0
"""A firing that nobody has seen for so long was missed."""
_WAITS = frozenset({Reason.RUN_OPEN, Reason.ROLLOUT_OPEN, Reason.COOLDOWN})
"""Answers after which a firing that overlapped still waits for its turn."""

Settle = Callable[[Cause], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a schedule was looked through."""

    said: str
    """The schedule as it was then: one that was changed begins anew."""
    until: float
    waiting: float | None = None
    """A firing that overlapped with a run and waits for its end."""


class Timetable:
    """The schedules of all models, in one database."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        with locked(database, "trigger tables") as connection:
            SCHEDULES.create(connection, checkfirst=True)

    def tell(self, model: str, schedule: Schedule, settle: Settle, now: float) -> None:
        """Tell `settle` of what has come due, and remember how far that was.

        Raises:
            Unavailable: the database does not answer, or `settle` cannot decide. The same will be told again.
        """
        place = self.place(model)
        if place is None or place.said != _said(schedule):
            self._move(model, Place(said=_said(schedule), until=now))
            return
        fired = last_firing(schedule, place.until, now)
        waiting = fired if fired is not None else place.waiting
        if waiting is not None:
            decision = settle(cause_of(model, schedule, waiting, now if waiting == fired else None))
            if decision.reason not in _WAITS or schedule.overlapping == "skip":
                waiting = None
        if fired is not None or waiting != place.waiting:
            self._move(model, Place(said=place.said, until=now, waiting=waiting))

    def place(self, model: str) -> Place | None:
        """How far a model's schedule was looked through; None before the first time."""
        with locked(self._database, "trigger reading") as connection:
            row = connection.execute(select(SCHEDULES).where(SCHEDULES.c.model == model)).mappings().first()
        return None if row is None else Place(said=row["said"], until=row["until"], waiting=row["waiting"])

    def _move(self, model: str, place: Place) -> None:
        with locked(self._database, f"trigger schedule {model}") as connection:
            connection.execute(delete(SCHEDULES).where(SCHEDULES.c.model == model))
            connection.execute(insert(SCHEDULES).values(model=model, said=place.said, until=place.until, waiting=place.waiting))


def cause_of(model: str, schedule: Schedule, fired: float, now: float | None) -> Cause:
    """A firing as a cause. `now` is when it was first seen; None for one that was seen before and waited."""
    return Cause(
        model=model,
        signal=Signal.CALENDAR,
        fingerprint=_said(schedule),
        starts_at=fired,
        summary=f"scheduled: {_said(schedule)}",
        late=now is not None and now - fired > LATE_SECONDS,
    )


def _said(schedule: Schedule) -> str:
    return f"{schedule.cron} {schedule.time_zone}"
