"""Erasing what the review queue knows of people whose data are in features: of some predictions, or of all that are old.

The queue copies from the log what reviewers look at. Whoever erases rows of the log (`millrace predictions`) erases them here too; and what is
older than the log itself has no reason to be here. What reviewers said stays, for it names classes and reviewers only; a case without its
features can no longer be reviewed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, or_, select, update

from mlserving.review.tables import ITEMS, OUTBOX, SEATS, Database


def erase(database: Database, model: str, *, ids: Collection[str] = (), before: datetime | None = None) -> int:
    """Erase the features of cases. Returns of how many.

    Args:
        database: the queue's tables.
        model: the model's name.
        ids: of these predictions. Their labels that have not left yet go too.
        before: of all cases that were chosen before.
    """
    with database.transaction() as connection:
        which = or_(ITEMS.c.prediction_id.in_(sorted(ids)), *([ITEMS.c.created < before] if before else []))
        cases = select(ITEMS.c.id).where(ITEMS.c.model == model, which)
        connection.execute(delete(SEATS).where(SEATS.c.item.in_(cases), SEATS.c.review.is_(None)))
        of_people = (OUTBOX.c.model == model, OUTBOX.c.prediction_id.in_(sorted(ids)), OUTBOX.c.delivered.is_(None))
        connection.execute(delete(OUTBOX).where(*of_people))
        return connection.execute(update(ITEMS).where(ITEMS.c.model == model, which).values(features={})).rowcount
