"""The log in a database: SQLite on one machine, PostgreSQL on a cluster.

Appends are one at a time, whoever writes (`mlserving.database.locked`). The table refuses UPDATE, DELETE and TRUNCATE by trigger. Whoever may drop
triggers can get around them; that is what the chain and its anchors are for.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlserving.audit.chain import Anchor, Entry, Fact, follow
from mlserving.database import locked, open_database, translated

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
_REFUSE_FUNCTION = """CREATE OR REPLACE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is only appended to'; END $$"""
_REFUSE_TRIGGER = """CREATE OR REPLACE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()"""
_REFUSE_IN_SQLITE = """CREATE TRIGGER IF NOT EXISTS audit_log_no_{verb} BEFORE {verb} ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END"""
_GUARDS = {
    "sqlite": [_REFUSE_IN_SQLITE.format(verb=verb) for verb in ("update", "delete")],
    "postgresql": [_REFUSE_FUNCTION, _REFUSE_TRIGGER],
}
_LOCK = "audit_log"
_AT_A_TIME = 1000


class AuditLog:
    """The log behind an SQLAlchemy URL. `anchors` is a file in which each entry's hash is remembered beside the database."""

    def __init__(self, url: str, anchors: Path | None = None) -> None:
        self._url = url
        self._anchors = anchors

    def append(self, who: str, action: str, subject: str, why: str = "", **details: Any) -> Entry:
        """Write an entry; it is on the disk when this returns.

        Raises:
            Unavailable: the database does not answer. Nothing was written, and what was to be logged should not be done.
        """
        plain = json.loads(json.dumps(details, default=str))
        with locked(_ready(self._url), _LOCK) as connection:
            row = connection.execute(sa.select(_LOG).order_by(_LOG.c.sequence.desc()).limit(1)).one_or_none()
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            fact = Fact(time=now, who=who, action=action, subject=subject, why=why, details=plain)
            entry = follow(_entry(row) if row else None, fact)
            connection.execute(_LOG.insert().values(**_row(entry)))
        self._remember(entry)
        return entry

    def entries(self, subject: str | None = None, newest: int | None = None) -> Iterator[Entry]:
        """The entries in their order: all, or those of a subject, or the `newest` so many of them."""
        if not self._exists():
            return
        chosen = (sa.select(_LOG).where(_LOG.c.subject == subject) if subject else sa.select(_LOG)).order_by(_LOG.c.sequence.desc())
        ordered = sa.select(chosen.limit(newest).subquery()).order_by(sa.literal_column("sequence"))
        database = _ready(self._url)
        with translated(database), database.connect() as connection:
            for row in connection.execution_options(yield_per=_AT_A_TIME).execute(ordered):
                yield _entry(row)

    def anchors(self) -> list[Anchor]:
        """What is remembered beside the database."""
        if self._anchors is None or not self._anchors.is_file():
            return []
        return [Anchor.parse(line) for line in self._anchors.read_text(encoding="utf-8").splitlines() if line.strip()]

    def _exists(self) -> bool:
        """Whether looking would not create an empty database."""
        return not self._url.startswith("sqlite:///") or Path(self._url.removeprefix("sqlite:///")).is_file()

    def _remember(self, entry: Entry) -> None:
        """Add a line: appended, so two writers never lose each other's."""
        if self._anchors is None:
            return
        self._anchors.parent.mkdir(parents=True, exist_ok=True)
        with self._anchors.open("a", encoding="utf-8") as file:
            file.write(f"{entry.anchor}\n")
            file.flush()
            os.fsync(file.fileno())


@functools.cache
def _ready(url: str) -> sa.Engine:
    """The database, with the table and its guards there."""
    database = open_database(url)
    with locked(database, _LOCK) as connection:
        _METADATA.create_all(connection)
        for statement in _GUARDS[database.dialect.name]:
            connection.exec_driver_sql(statement)
    return database


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
