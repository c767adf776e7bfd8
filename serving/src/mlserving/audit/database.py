"""The log in a database: SQLite on one machine, PostgreSQL on a cluster.

Appends are one at a time, whoever writes: SQLite's BEGIN IMMEDIATE, PostgreSQL's table lock. The table refuses UPDATE, DELETE and TRUNCATE by
trigger. Whoever may drop triggers can get around them; that is what the chain and its anchors are for.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from mlserving.audit.chain import Anchor, Entry, Fact, follow
from mlserving.errors import Unavailable

_METADATA = sa.MetaData()
_LOG = sa.Table(
    "audit_log",
    _METADATA,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
)
_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER IF NOT EXISTS audit_log_no_{verb} BEFORE {verb} ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END"
        for verb in ("update", "delete")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is only appended to'; END $$",
        "CREATE OR REPLACE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
    ],
}
_ONE_SCHEMA_AT_A_TIME = 4_711_001
"""Key of the advisory lock under which PostgreSQL's table and triggers are made."""


class AuditLog:
    """The log behind an SQLAlchemy URL. `anchor` is a file in which the last entry is remembered beside the database."""

    def __init__(self, url: str, anchor: Path | None = None) -> None:
        self._url = url
        self._anchor = anchor

    def append(self, who: str, action: str, subject: str, why: str = "", **details: Any) -> Entry:
        """Write an entry; it is on the disk when this returns.

        Raises:
            Unavailable: the database does not answer. Nothing was written, and what was to be logged should not be done.
        """
        with self._connected() as engine, engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("LOCK TABLE audit_log IN EXCLUSIVE MODE"))
            row = connection.execute(sa.select(_LOG).order_by(_LOG.c.sequence.desc()).limit(1)).one_or_none()
            plain = json.loads(json.dumps(details, default=str))
            fact = Fact(
                time=datetime.now(UTC).isoformat(timespec="microseconds"), who=who, action=action, subject=subject, why=why, details=plain
            )
            entry = follow(_entry(row) if row else None, fact)
            connection.execute(_LOG.insert().values(**_row(entry)))
        self._remember(entry)
        return entry

    def entries(self, subject: str | None = None, newest: int | None = None) -> Iterator[Entry]:
        """The entries in their order: all, or those of a subject; the `newest` so many of them."""
        if not self.exists():
            return
        chosen = sa.select(_LOG).where(_LOG.c.subject == subject) if subject else sa.select(_LOG)
        if newest is not None:
            inner = chosen.order_by(_LOG.c.sequence.desc()).limit(newest).subquery()
            chosen = sa.select(inner)
        with self._connected() as engine, engine.connect() as connection:
            order = sa.literal_column("sequence")
            for row in connection.execution_options(yield_per=1000).execute(chosen.order_by(order)):
                yield _entry(row)

    def exists(self) -> bool:
        """Whether looking would not create an empty database."""
        return not self._url.startswith("sqlite:///") or Path(self._url.removeprefix("sqlite:///")).is_file()

    def anchors(self) -> list[Anchor]:
        """What is remembered beside the database."""
        if self._anchor is None or not self._anchor.is_file():
            return []
        return [Anchor.parse(line) for line in self._anchor.read_text(encoding="utf-8").splitlines() if line.strip()]

    def _remember(self, entry: Entry) -> None:
        """Add the entry's anchor to the file: one line, appended, so two writers never lose each other's."""
        if self._anchor is None:
            return
        self._anchor.parent.mkdir(parents=True, exist_ok=True)
        with self._anchor.open("a", encoding="utf-8") as file:
            file.write(f"{entry.anchor}\n")
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sa.Engine]:
        try:
            yield _engine(self._url)
        except SQLAlchemyError as error:
            raise Unavailable(f"The audit log did not answer: {error}. Nothing was done. Type the same command again.") from error


@functools.cache
def _engine(url: str) -> sa.Engine:
    """A connected engine, with the table and its guards there."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        _one_writer_at_a_time(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_SCHEMA_AT_A_TIME})
        _METADATA.create_all(connection)
        for statement in _GUARDS[engine.dialect.name]:
            connection.exec_driver_sql(statement)
    return engine


def _one_writer_at_a_time(engine: sa.Engine) -> None:
    """Begin every transaction as a writer's and wait for the one before: Python's driver would begin it as a reader's, and fail later."""

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _row(entry: Entry) -> dict[str, Any]:
    fact = entry.fact
    return {
        "sequence": entry.sequence,
        "time": fact.time,
        "who": fact.who,
        "action": fact.action,
        "subject": fact.subject,
        "why": fact.why,
        "details": json.dumps(fact.details, sort_keys=True, ensure_ascii=False),
        "previous": entry.previous,
        "hash": entry.hash,
    }


def _entry(row: Any) -> Entry:
    try:
        details = json.loads(row.details)
    except ValueError:  # somebody wrote into it: the hash will tell
        details = {"unreadable": row.details}
    fact = Fact(time=row.time, who=row.who, action=row.action, subject=row.subject, why=row.why, details=details)
    return Entry(sequence=row.sequence, fact=fact, previous=row.previous, hash=row.hash)
