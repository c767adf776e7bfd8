"""Labels on their way from the review queue to the labels of the prediction log.

A review and its entry here are one transaction, so a review that was answered is never lost. What is due is packed into a parcel, whose name,
content and time are written down before it leaves. Whoever finds a parcel that was not seen to arrive sends the very same
again: at least once, and the labels' store knows it by its name. Parcels leave one after the other, so of two labels of one case the later one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select, update

from mlserving.review.tables import OUTBOX, Database

_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedLabel:
    """What a person said a prediction should have been."""

    prediction_id: str
    row: int
    label: str
    reviewer: str
    labelled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Labels of one model that leave together."""

    name: str
    """The same name is the same parcel, whenever and by whomever it is sent."""
    model: str
    sent: datetime
    labels: Sequence[ReviewedLabel]


class Outbox:
    """What has not arrived yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, model: str | None = None) -> int:
        """How many labels have not arrived."""
        with self._database.transaction() as connection:
            count = select(func.count()).where(OUTBOX.c.delivered.is_(None), *([OUTBOX.c.model == model] if model else []))
            return int(connection.execute(count).scalar_one())

    def deliver(self, send: Callable[[Parcel], None], now: datetime) -> int:
        """Send all that is due. Returns how many labels arrived.

        Args:
            send: takes a parcel to where labels lie; the same parcel twice is no harm. What it raises stops the delivery, and nothing is lost.
            now: labels that may leave from a later moment on stay.
        """
        arrived = 0
        while (parcel := self._pack(now)) is not None:
            send(parcel)
            with self._database.transaction() as connection:
                done = update(OUTBOX).where(OUTBOX.c.parcel == parcel.name, OUTBOX.c.delivered.is_(None)).values(delivered=now)
                arrived += connection.execute(done).rowcount
        return arrived

    def _pack(self, now: datetime) -> Parcel | None:
        """The parcel that leaves next: one that did not arrive, else a new one."""
        with self._database.transaction() as connection:
            due = or_(OUTBOX.c.not_before <= now, OUTBOX.c.parcel.is_not(None))
            waiting = select(OUTBOX).where(OUTBOX.c.delivered.is_(None), due).order_by(OUTBOX.c.review).limit(_MOST)
            rows = connection.execute(waiting.with_for_update()).all()  # a second sender waits here, and then finds the first one's parcel
            packed = [row for row in rows if row.parcel is not None]
            if not rows:
                return None
            if packed:
                rows = [row for row in packed if row.parcel == packed[0].parcel]
                name, sent = packed[0].parcel, packed[0].sent
            else:
                rows = [row for row in rows if row.model == rows[0].model]
                name, sent = f"review-{rows[0].review}-{rows[-1].review}", now
                connection.execute(update(OUTBOX).where(OUTBOX.c.review.in_([row.review for row in rows])).values(parcel=name, sent=sent))
        labels = [
            ReviewedLabel(prediction_id=row.prediction_id, row=row.row, label=row.label, reviewer=row.reviewer, labelled_at=row.labelled)
            for row in rows
        ]
        return Parcel(name=name, model=rows[0].model, sent=sent, labels=labels)
