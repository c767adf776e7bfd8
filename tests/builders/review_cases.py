"""Cases for the review queue, and moments at which things happen to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mlserving.review.cases import Batch, NewCase
from mlserving.review.choose import Candidate, Choice, Why
from mlserving.review.queue import ReviewQueue

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
MODEL = "transactions"
CLASSES = ("books", "groceries", "tools", "travel")


def new_case(
    name: str, label: str = "tools", *, double: bool = False, features: Mapping[str, Any] | None = None, confidence: float = 0.5
) -> NewCase:
    """One prediction that was chosen."""
    candidate = Candidate(prediction_id=name, row=0, label=label, certainty=confidence)
    choice = Choice(candidate=candidate, why=Why.RANDOM, probability=0.5, double=double)
    shown = {"merchant": f"SHOP {name}", "amount": 12.5} if features is None else features
    return NewCase(choice=choice, version=3, time=NOON - timedelta(hours=1), features=shown, confidence=confidence)


def batch(since: datetime = NOON - timedelta(hours=2), *, model: str = MODEL, now: datetime = NOON) -> Batch:
    """A stretch of the log of two hours."""
    return Batch(model=model, since=since, until=since + timedelta(hours=2), read=100, now=now, due=now + timedelta(days=2))


def filled(queue: ReviewQueue, cases: Iterable[NewCase], **stretch: Any) -> int:
    """Put cases in."""
    return queue.put(batch(**stretch), list(cases), CLASSES)
