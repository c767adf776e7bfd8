"""What the review queue holds and what came out of it, for `millrace review status` and for the page of the leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Float, Select, case, cast, func, select

from mlserving.review import agreement
from mlserving.review.agreement import Figure, Said, Share
from mlserving.review.cases import Verdict
from mlserving.review.tables import FILLS, ITEMS, OUTBOX, REVIEWS, SEATS, Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one person did; what they took back does not count."""

    reviewer: str
    confirmed: int
    corrected: int
    unsure: int
    seconds: float
    """For a case, on average."""
    last: datetime

    @property
    def reviews(self) -> int:
        """All of them."""
        return self.confirmed + self.corrected + self.unsure


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one model's reviews."""

    model: str
    cases: int
    open_cases: int
    """Cases that need an opinion more."""
    open_reviews: int
    held: int
    for_a_lead: int
    overdue: int
    oldest: datetime | None
    """When the oldest open case was chosen."""
    undelivered: int
    oldest_undelivered: datetime | None
    """Since when a label might have left that has not arrived."""
    filled: datetime | None
    """When the log was last looked through for cases."""
    verdicts: Mapping[Verdict, int]
    """What people did, ever: also what they took back, for nothing is taken out of that book."""
    people: Sequence[Work]
    alpha: Figure
    kappas: Mapping[tuple[str, str], Figure]
    confirmed: Mapping[str, Share]
    accuracy: Share | None
    """Of the model, on the whole log; None before the first review."""


def figures(database: Database, model: str, now: datetime) -> Figures:
    """All figures of a model's reviews in one picture."""
    with database.transaction() as connection:
        chosen = connection.execute(
            select(ITEMS.c.why, ITEMS.c.label, func.count()).where(ITEMS.c.model == model).group_by(ITEMS.c.why, ITEMS.c.label)
        ).all()
        waiting = connection.execute(_waiting(model, now)).one()
        said = [Said(**row._mapping) for row in connection.execute(_said(model))]  # noqa: SLF001  the documented name
        people = [Work(**row._mapping) for row in connection.execute(_work(model))]  # noqa: SLF001  the same
        undelivered, since = connection.execute(
            select(func.count(), func.min(OUTBOX.c.not_before)).where(OUTBOX.c.model == model, OUTBOX.c.delivered.is_(None))
        ).one()
        filled = connection.execute(select(func.max(FILLS.c.time)).where(FILLS.c.model == model)).scalar_one()
        verdicts = connection.execute(_verdicts(model)).all()
    groups = Counter({(why, label): count for why, label, count in chosen})
    settled = {each.item: each for each in said}  # the last opinion of a case is a lead's, where one has spoken
    return Figures(
        model=model,
        cases=groups.total(),
        open_cases=waiting.cases,
        open_reviews=waiting.reviews,
        held=waiting.held or 0,
        for_a_lead=waiting.for_a_lead or 0,
        overdue=waiting.overdue or 0,
        oldest=waiting.oldest,
        undelivered=undelivered,
        oldest_undelivered=since,
        filled=filled,
        verdicts={Verdict(row.verdict): row.times for row in verdicts},
        people=people,
        alpha=agreement.alpha(said),
        kappas=agreement.kappas(said),
        confirmed=agreement.confirmed(settled.values()),
        accuracy=agreement.accuracy(settled.values(), groups),
    )


def right_since(database: Database, model: str, since: datetime) -> Share | None:
    """How often the model was right on the whole log, by the reviews of cases that were chosen since a time; None before the first of them."""
    with database.transaction() as connection:
        chosen = connection.execute(
            select(ITEMS.c.why, ITEMS.c.label, func.count())
            .where(ITEMS.c.model == model, ITEMS.c.created >= since)
            .group_by(ITEMS.c.why, ITEMS.c.label)
        ).all()
        said = [Said(**row._mapping) for row in connection.execute(_said(model).where(ITEMS.c.created >= since))]  # noqa: SLF001  the documented name
    return agreement.accuracy(said, {(why, label): count for why, label, count in chosen})


def _waiting(model: str, now: datetime) -> Select[*tuple[Any, ...]]:
    return (
        select(
            func.count(SEATS.c.item.distinct()).label("cases"),
            func.count().label("reviews"),
            func.sum(case((SEATS.c.until >= now, 1), else_=0)).label("held"),
            func.sum(case((SEATS.c.settles, 1), else_=0)).label("for_a_lead"),
            func.sum(case((SEATS.c.due < now, 1), else_=0)).label("overdue"),
            func.min(ITEMS.c.created).label("oldest"),
        )
        .join(ITEMS, ITEMS.c.id == SEATS.c.item)
        .where(SEATS.c.model == model, SEATS.c.review.is_(None))
    )


def _said(model: str) -> Select[*tuple[Any, ...]]:
    return (
        select(
            REVIEWS.c.item,
            REVIEWS.c.reviewer,
            REVIEWS.c.label,
            ITEMS.c.label.label("predicted"),
            ITEMS.c.why,
            ITEMS.c.probability,
            SEATS.c.settles.label("settled"),
        )
        .join(SEATS, SEATS.c.review == REVIEWS.c.id)
        .join(ITEMS, ITEMS.c.id == REVIEWS.c.item)
        .where(SEATS.c.model == model, REVIEWS.c.label.is_not(None))
        .order_by(SEATS.c.settles, REVIEWS.c.id)
    )


def _verdicts(model: str) -> Select[*tuple[Any, ...]]:
    of_model = (
        select(REVIEWS.c.verdict, func.count().label("times")).join(ITEMS, ITEMS.c.id == REVIEWS.c.item).where(ITEMS.c.model == model)
    )
    return of_model.group_by(REVIEWS.c.verdict)


def _work(model: str) -> Select[*tuple[Any, ...]]:
    def count(verdict: Verdict) -> Any:
        return func.sum(case((REVIEWS.c.verdict == verdict, 1), else_=0))

    return (
        select(
            REVIEWS.c.reviewer,
            count(Verdict.CONFIRM).label("confirmed"),
            count(Verdict.CORRECT).label("corrected"),
            count(Verdict.UNSURE).label("unsure"),
            cast(func.avg(REVIEWS.c.seconds), Float).label("seconds"),
            func.max(REVIEWS.c.time).label("last"),
        )
        .join(SEATS, SEATS.c.review == REVIEWS.c.id)
        .where(SEATS.c.model == model)
        .group_by(REVIEWS.c.reviewer)
        .order_by(func.count().desc(), REVIEWS.c.reviewer)
    )
