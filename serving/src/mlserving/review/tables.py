"""The tables of the review queue, the same on SQLite (one machine) and PostgreSQL (a cluster), made on first use.

    review_items      what people look at, and why it was chosen
    review_seats      a place for each opinion that a case needs; who holds it until when, and the review that filled it
    review_reviews    what people did, in order. Append-only: triggers refuse every change, and undoing is a row of its own
    review_outbox     labels on their way to the prediction log; written together with their review, so no review is lost
    review_fills      the batches of the log that were looked through, each beginning where another ended
    review_classes    classes that were seen, for the type-ahead
    review_logins     tries to log in, so that guessing is slow whichever replica is asked

Where the database is: `mlserving.database`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from mlserving.database import Moment, locked, open_database, translated

_KEY = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only in a column of type INTEGER
METADATA = MetaData()

ITEMS = Table(
    "review_items",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("prediction_id", String(64), nullable=False),
    Column("row", Integer, nullable=False),
    Column("time", Moment, nullable=False),  # of the prediction
    Column("features", JSON, nullable=False),
    Column("label", String, nullable=False),  # the predicted class
    Column("confidence", Float),
    Column("why", String(20), nullable=False),
    Column("probability", Float, nullable=False),
    Column("position", Integer, nullable=False),  # in its batch
    Column("created", Moment, nullable=False),
    Column("due", Moment, nullable=False),
    UniqueConstraint("model", "prediction_id", "row"),
)
SEATS = Table(
    "review_seats",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("item", ForeignKey("review_items.id"), nullable=False),
    Column("model", String(200), nullable=False),
    Column("due", Moment, nullable=False),
    Column("position", Integer, nullable=False),
    Column("settles", Boolean, nullable=False, default=False),  # for a lead: people disagreed, or somebody was unsure
    Column("reviewer", String(200)),
    Column("taken", Moment),
    Column("until", Moment),
    Column("review", _KEY),  # what filled it
    UniqueConstraint("item", "reviewer"),
)
Index(
    "review_seats_open",
    SEATS.c.model,
    SEATS.c.due,
    SEATS.c.position,
    sqlite_where=SEATS.c.review.is_(None),
    postgresql_where=SEATS.c.review.is_(None),
)
REVIEWS = Table(
    "review_reviews",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("item", ForeignKey("review_items.id"), nullable=False, index=True),
    Column("seat", _KEY, nullable=False),
    Column("reviewer", String(200), nullable=False),
    Column("verdict", String(20), nullable=False),  # confirm, correct, unsure, skip, undo
    Column("label", String),
    Column("seconds", Float, nullable=False),
    Column("time", Moment, nullable=False),
    Column("undoes", _KEY),
)
Index("review_reviews_of_a_person", REVIEWS.c.reviewer, REVIEWS.c.time)
OUTBOX = Table(
    "review_outbox",
    METADATA,
    Column("review", ForeignKey("review_reviews.id"), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("prediction_id", String(64), nullable=False),
    Column("row", Integer, nullable=False),
    Column("label", String, nullable=False),
    Column("reviewer", String(200), nullable=False),
    Column("labelled", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("parcel", String(64)),  # what carries it: named before it leaves, so that sending it again changes nothing
    Column("sent", Moment),
    Column("delivered", Moment),
)
Index(
    "review_outbox_waiting", OUTBOX.c.not_before, sqlite_where=OUTBOX.c.delivered.is_(None), postgresql_where=OUTBOX.c.delivered.is_(None)
)
FILLS = Table(
    "review_fills",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("since", Moment, nullable=False),
    Column("until", Moment, nullable=False),
    Column("read", Integer, nullable=False),
    Column("chosen", Integer, nullable=False),
    Column("reviews", Integer, nullable=False),
    Column("time", Moment, nullable=False),
    UniqueConstraint("model", "since"),
)
CLASSES = Table("review_classes", METADATA, Column("model", String(200), primary_key=True), Column("label", String, primary_key=True))
LOGINS = Table(
    "review_logins",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("address", String(100), nullable=False),
    Column("time", Moment, nullable=False, index=True),
    Column("accepted", Boolean, nullable=False),
)

_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER IF NOT EXISTS review_reviews_no_{verb} BEFORE {verb} ON review_reviews"
        f" BEGIN SELECT RAISE(ABORT, 'review_reviews is append-only'); END"
        for verb in ("update", "delete")
    ],
    "postgresql": [
        (
            "CREATE OR REPLACE FUNCTION review_reviews_stay() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'review_reviews is append-only'; END $$"
        ),
        (
            "CREATE OR REPLACE TRIGGER review_reviews_stay BEFORE UPDATE OR DELETE ON review_reviews"
            " FOR EACH ROW EXECUTE FUNCTION review_reviews_stay()"
        ),
        (
            "CREATE OR REPLACE TRIGGER review_reviews_stay_whole BEFORE TRUNCATE ON review_reviews"
            " FOR EACH STATEMENT EXECUTE FUNCTION review_reviews_stay()"
        ),
    ],
}


class Database:
    """The tables, made if they are not there.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL.

    Raises:
        ConfigError: it is no such URL.
        Unavailable: the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)
        with locked(self._engine, "review tables") as connection:
            METADATA.create_all(connection)
            for statement in _GUARDS[connection.dialect.name]:
                connection.exec_driver_sql(statement)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of it happens or nothing. On SQLite no other one overlaps it.

        Raises:
            Unavailable: the database does not answer.
        """
        with translated(self._engine), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()
