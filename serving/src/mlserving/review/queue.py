"""The review queue: cases come in, each is lent to one person at a time, and what the person says is kept for ever.

A case has a seat for each opinion that it needs. Whoever takes a seat holds it for some minutes; a seat that nobody came back to is free
again. On PostgreSQL a seat is taken with FOR UPDATE SKIP LOCKED, on SQLite inside the only transaction that writes; either way all
that decides stands in the seat's own row, so two people never get the same one. Nobody gets two seats of one case.

A review, the seat that it fills and the label that it sends off (`deliver`) are one transaction. Where people disagree, or somebody was
unsure, the case gets one more seat, for a lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from mlserving.errors import ConfigError, Conflict
from mlserving.review.cases import LONGEST_LABEL, Batch, Case, NewCase, Opinion, Person, Verdict, clean_label
from mlserving.review.tables import CLASSES, FILLS, ITEMS, OUTBOX, REVIEWS, SEATS, Database

_TRIES = 5
_UNDO = timedelta(hours=12)
_SKIPPED = timedelta(hours=12)


class ReviewQueue:
    """The queue in a database.

    Args:
        database: its tables.
        lease: how long a case stays with whoever took it.
        hold: how long a label waits before it leaves, so that a slip can be undone without a trace in the labels.
    """

    def __init__(self, database: Database, *, lease: timedelta = timedelta(minutes=15), hold: timedelta = timedelta(seconds=30)) -> None:
        self._database, self._lease, self._hold = database, lease, hold

    # -- cases come in -----------------------------------------------------------------------------------------------------

    def looked_until(self, model: str) -> datetime | None:
        """Where the next batch of the model's log begins; None before the first."""
        with self._database.transaction() as connection:
            until: datetime | None = connection.execute(select(func.max(FILLS.c.until)).where(FILLS.c.model == model)).scalar_one()
            return until

    def asked_since(self, model: str, time: datetime) -> int:
        """How many reviews were asked for since then, by all fills."""
        with self._database.transaction() as connection:
            asked = select(func.coalesce(func.sum(FILLS.c.reviews), 0)).where(FILLS.c.model == model, FILLS.c.time >= time)
            return int(connection.execute(asked).scalar_one())

    def put(self, batch: Batch, cases: Sequence[NewCase], labels: Iterable[str]) -> int:
        """Take in what was chosen from a batch, all of it or nothing. Returns how many cases are new.

        Raises:
            Conflict: somebody else looked through this batch first. Their choice is in the queue.
        """
        try:
            with self._database.transaction() as connection:
                reviews = sum(1 + case.choice.double for case in cases)
                stretch = {"model": batch.model, "since": batch.since, "until": batch.until, "read": batch.read, "time": batch.now}
                connection.execute(insert(FILLS).values(**stretch, chosen=len(cases), reviews=reviews))
                new = sum(_insert(connection, batch, position, case) for position, case in enumerate(cases))
                _remember(connection, batch.model, labels)
                return new
        except IntegrityError as error:
            raise Conflict(
                f"Somebody else looked through the log of {batch.model} from {batch.since:%Y-%m-%d %H:%M:%S} on at the same time. Their choice is in the queue: millrace review status {batch.model}"
            ) from error

    # -- people look -------------------------------------------------------------------------------------------------------

    def claim(self, model: str, person: Person, now: datetime) -> Case | None:
        """The case that the person holds already, else the next one, theirs until the lease ends; None if nothing is left for them."""
        for _ in range(_TRIES):
            try:
                with self._database.transaction() as connection:
                    return self._claim(connection, model, person, now)
            except IntegrityError:  # in another tab the same person has just taken the other seat of this case
                continue
        return None

    def _claim(self, connection: Connection, model: str, person: Person, now: datetime) -> Case | None:
        mine = and_(SEATS.c.reviewer == person.name, SEATS.c.until >= now)
        held = select(SEATS).where(SEATS.c.model == model, SEATS.c.review.is_(None), mine).order_by(SEATS.c.id).limit(1)
        seat = connection.execute(held.with_for_update()).first()
        if seat is None:
            free = select(SEATS).where(*_open_to(model, person, now)).order_by(SEATS.c.due, SEATS.c.position, SEATS.c.id).limit(1)
            seat = connection.execute(free.with_for_update(skip_locked=True)).first()
            if seat is None:
                return None
            taken = {"reviewer": person.name, "taken": now}
        else:
            taken = {}  # the time that somebody takes counts from when they first saw it
        until = now + self._lease
        connection.execute(update(SEATS).where(SEATS.c.id == seat.id).values(until=until, **taken))
        return _case(connection, seat, until)

    def review(self, seat_id: int, person: Person, verdict: Verdict, label: str | None, now: datetime) -> Verdict:
        """Keep what the person says of the case whose seat they hold. Saying it twice is saying it once. Returns what was kept.

        Raises:
            Conflict: they do not hold the seat any more. Nothing was kept.
            ConfigError: a correction without a class.
        """
        with self._database.transaction() as connection:
            item = _lock_item(connection, seat_id)
            seat = connection.execute(select(SEATS).where(SEATS.c.id == seat_id)).first()
            if item is None or seat is None or seat.reviewer != person.name:
                raise Conflict(
                    "This case is no longer yours: you held it for too long, or it was settled. Nothing was saved; here is the next one."
                )
            verdict, label = _meant(verdict, label, item.label)
            if seat.review is not None:
                return _same(connection, seat.review, verdict, label)
            self._keep(connection, item, seat, (verdict, label), now)
            return verdict

    def _keep(self, connection: Connection, item: Row[Any], seat: Row[Any], meant: tuple[Verdict, str | None], now: datetime) -> None:
        verdict, label = meant
        seconds = (now - (seat.taken or now)).total_seconds()
        said = {"item": item.id, "seat": seat.id, "reviewer": seat.reviewer, "verdict": verdict, "label": label}
        review = connection.execute(insert(REVIEWS).values(**said, seconds=seconds, time=now).returning(REVIEWS.c.id)).scalar_one()
        if verdict is Verdict.SKIP:
            connection.execute(update(SEATS).where(SEATS.c.id == seat.id).values(reviewer=None, taken=None, until=None))
            return
        connection.execute(update(SEATS).where(SEATS.c.id == seat.id).values(review=review, until=None))
        if label is not None:
            about = {"model": item.model, "prediction_id": item.prediction_id, "row": item.row, "label": label, "reviewer": seat.reviewer}
            connection.execute(insert(OUTBOX).values(review=review, **about, labelled=now, not_before=now + self._hold))
            _remember(connection, item.model, [label])
        _call_a_lead(connection, item)

    def undo(self, model: str, person: Person, now: datetime) -> bool:
        """Take back the person's last review of the last hours and give them the case again. Returns whether there was one.

        A label that has left already stands until the case is reviewed again: the later label then counts.

        Raises:
            Conflict: a lead has settled the case since.
        """
        with self._database.transaction() as connection:
            last = (
                select(REVIEWS, SEATS.c.settles)
                .join(SEATS, SEATS.c.review == REVIEWS.c.id)
                .where(SEATS.c.model == model, REVIEWS.c.reviewer == person.name, REVIEWS.c.time >= now - _UNDO)
                .order_by(REVIEWS.c.id.desc())
                .limit(1)
            )
            review = connection.execute(last).first()
            if review is None or _lock_item(connection, review.seat) is None:
                return False
            if not review.settles and _is_settled(connection, review.item):
                raise Conflict("A lead has settled your last case since, so it stays as it is.")
            undone = {"item": review.item, "seat": review.seat, "reviewer": person.name, "verdict": Verdict.UNDO, "undoes": review.id}
            connection.execute(insert(REVIEWS).values(**undone, seconds=0.0, time=now))
            _let_go(connection, model, person)
            back = {"review": None, "taken": now, "until": now + self._lease}
            connection.execute(update(SEATS).where(SEATS.c.id == review.seat).values(**back))
            connection.execute(delete(OUTBOX).where(OUTBOX.c.review == review.id, OUTBOX.c.parcel.is_(None)))
            if not review.settles:
                connection.execute(delete(SEATS).where(SEATS.c.item == review.item, SEATS.c.settles, SEATS.c.review.is_(None)))
            return True

    def release(self, model: str, person: Person) -> None:
        """Give back what the person holds: they log out."""
        with self._database.transaction() as connection:
            _let_go(connection, model, person)

    # -- what is known -----------------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Whose predictions are or were in the queue."""
        with self._database.transaction() as connection:
            return list(connection.execute(select(FILLS.c.model).distinct().order_by(FILLS.c.model)).scalars())

    def left(self, model: str, person: Person, now: datetime) -> int:
        """How many cases the person could take now, the one that they hold included."""
        with self._database.transaction() as connection:
            cases = select(func.count(SEATS.c.item.distinct())).where(*_open_to(model, person, now))
            return int(connection.execute(cases).scalar_one())

    def done_since(self, model: str, person: Person, time: datetime) -> int:
        """How many of the person's reviews since then are in force."""
        with self._database.transaction() as connection:
            done = select(func.count()).select_from(REVIEWS).join(SEATS, SEATS.c.review == REVIEWS.c.id)
            mine = done.where(SEATS.c.model == model, REVIEWS.c.reviewer == person.name, REVIEWS.c.time >= time)
            return int(connection.execute(mine).scalar_one())

    def classes(self, model: str) -> list[str]:
        """The classes that were seen, sorted."""
        with self._database.transaction() as connection:
            return sorted(connection.execute(select(CLASSES.c.label).where(CLASSES.c.model == model)).scalars(), key=str.casefold)


def _insert(connection: Connection, batch: Batch, position: int, case: NewCase) -> bool:
    """One case with its seats; False if it is in the queue already."""
    row = case.choice.candidate
    known = select(ITEMS.c.id).where(ITEMS.c.model == batch.model, ITEMS.c.prediction_id == row.prediction_id, ITEMS.c.row == row.row)
    if connection.execute(known).first():
        return False
    about = {"model": batch.model, "version": case.version, "prediction_id": row.prediction_id, "row": row.row, "time": case.time}
    shown = {"features": dict(case.features), "label": row.label, "confidence": case.confidence}
    chosen = {"why": case.choice.why, "probability": case.choice.probability, "position": position, "created": batch.now, "due": batch.due}
    item = connection.execute(insert(ITEMS).values(**about, **shown, **chosen).returning(ITEMS.c.id)).scalar_one()
    seat = {"item": item, "model": batch.model, "due": batch.due, "position": position, "settles": False}
    connection.execute(insert(SEATS), [seat] * (1 + case.choice.double))
    return True


def _remember(connection: Connection, model: str, labels: Iterable[str]) -> None:
    known = set(connection.execute(select(CLASSES.c.label).where(CLASSES.c.model == model)).scalars())
    for label in sorted(set(labels) - known):
        with suppress(IntegrityError), connection.begin_nested():  # somebody else may just be saying it too
            connection.execute(insert(CLASSES).values(model=model, label=label))


def _open_to(model: str, person: Person, now: datetime) -> list[ColumnElement[bool]]:
    """What a seat must be for the person to take it."""
    other, skip = SEATS.alias(), REVIEWS.alias()
    sits_there = exists().where(other.c.item == SEATS.c.item, other.c.id != SEATS.c.id, other.c.reviewer == person.name)
    skipped = exists().where(
        skip.c.item == SEATS.c.item, skip.c.reviewer == person.name, skip.c.verdict == Verdict.SKIP, skip.c.time >= now - _SKIPPED
    )
    return [
        SEATS.c.model == model,
        SEATS.c.review.is_(None),
        or_(SEATS.c.reviewer.is_(None), SEATS.c.reviewer == person.name, SEATS.c.until < now),
        ~sits_there,
        ~skipped,
        *([] if person.lead else [~SEATS.c.settles]),
    ]


def _case(connection: Connection, seat: Row[Any], until: datetime) -> Case:
    item = connection.execute(select(ITEMS).where(ITEMS.c.id == seat.item)).one()
    names = ("model", "version", "prediction_id", "row", "time", "features", "label", "confidence", "why")
    known = {name: item._mapping[name] for name in names}  # noqa: SLF001  the documented name
    opinions = _opinions(connection, seat.item) if seat.settles else ()
    return Case(seat=seat.id, until=until, settles=seat.settles, opinions=opinions, **known)


def _opinions(connection: Connection, item: int) -> tuple[Opinion, ...]:
    """What people said who do not settle it."""
    said = select(REVIEWS).join(SEATS, SEATS.c.review == REVIEWS.c.id).where(SEATS.c.item == item, ~SEATS.c.settles).order_by(REVIEWS.c.id)
    return tuple(Opinion(reviewer=row.reviewer, verdict=Verdict(row.verdict), label=row.label) for row in connection.execute(said))


def _lock_item(connection: Connection, seat: int) -> Row[Any] | None:
    """The case of a seat, held until the transaction ends: whoever fills its last seat sees all the others."""
    found = select(ITEMS).join(SEATS, SEATS.c.item == ITEMS.c.id).where(SEATS.c.id == seat)
    return connection.execute(found.with_for_update(of=ITEMS)).first()


def _meant(verdict: Verdict, label: str | None, predicted: str) -> tuple[Verdict, str | None]:
    if verdict is Verdict.CONFIRM:
        return verdict, predicted
    if verdict is not Verdict.CORRECT:
        return verdict, None
    label = clean_label(label or "")
    if not label or len(label) > LONGEST_LABEL:
        raise ConfigError(f"Name the right class, in at most {LONGEST_LABEL} characters.")
    return (Verdict.CONFIRM if label == predicted else verdict), label


def _same(connection: Connection, review: int, verdict: Verdict, label: str | None) -> Verdict:
    kept = connection.execute(select(REVIEWS).where(REVIEWS.c.id == review)).one()
    if (kept.verdict, kept.label) != (verdict, label):
        raise Conflict("You have reviewed this case already, otherwise. Undo takes the last one back.")
    return verdict


def _call_a_lead(connection: Connection, item: Row[Any]) -> None:
    """One more seat where all have spoken and the case is not clear."""
    seats = connection.execute(select(SEATS).where(SEATS.c.item == item.id)).all()
    if any(seat.settles or seat.review is None for seat in seats):
        return
    labels = {opinion.label for opinion in _opinions(connection, item.id)}
    if len(labels) > 1 or None in labels:
        connection.execute(insert(SEATS).values(item=item.id, model=item.model, due=item.due, position=-1, settles=True))


def _is_settled(connection: Connection, item: int) -> bool:
    return (
        connection.execute(select(SEATS.c.id).where(SEATS.c.item == item, SEATS.c.settles, SEATS.c.review.is_not(None))).first() is not None
    )


def _let_go(connection: Connection, model: str, person: Person) -> None:
    held = and_(SEATS.c.model == model, SEATS.c.reviewer == person.name, SEATS.c.review.is_(None))
    connection.execute(update(SEATS).where(held).values(reviewer=None, taken=None, until=None))
