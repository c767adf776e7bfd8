"""The database that remembers people's decisions: SQLite in the workspace, PostgreSQL on a cluster, by one address.

Every writer takes a named lock for its transaction (`locked`), so that what it read is still true when it commits, on either
database and from any number of processes. Each package creates the tables it owns on first use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, DateTime, Dialect, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.types import TypeDecorator

from mlserving.errors import ConfigError, Unavailable

VARIABLE = "MILLRACE_DATABASE"
_BUSY_SECONDS = 30


class Moment(TypeDecorator[datetime]):
    """An aware time. SQLite forgets zones, so all are stored in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: D102  SQLAlchemy's own
        return value if value is None else value.astimezone(UTC) if dialect.name != "sqlite" else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102  SQLAlchemy's own
        return value if value is None else value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def address(workspace: Path) -> str:
    """The database's SQLAlchemy URL: MILLRACE_DATABASE, else SQLite in the workspace."""
    return os.environ.get(VARIABLE) or f"sqlite:///{workspace.absolute() / 'serving' / 'serving.db'}"


def open_database(url: str) -> Engine:
    """The database at an SQLAlchemy URL; nothing is asked of it yet.

    Raises:
        ConfigError: the URL names no database that Millrace works with.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(url, parsed.database or "")
        if parsed.get_backend_name() != "postgresql":
            raise ConfigError(
                f"{VARIABLE} names {parsed.get_backend_name()}; use sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME."
            )
        return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"{VARIABLE} is no address of a database: {error}. Use postgresql+psycopg://USER:PASSWORD@HOST/NAME.") from error


@contextmanager
def locked(database: Engine, *names: str) -> Iterator[Connection]:
    """A transaction that no other `locked` transaction of one of the same names overlaps. It commits unless something is raised.

    On SQLite it keeps every other writer out (BEGIN IMMEDIATE); on PostgreSQL it takes a lock of the transaction's own.

    Raises:
        Unavailable: the database does not answer, or others hold it for half a minute.
    """
    with translated(database), database.begin() as connection:
        if database.dialect.name == "postgresql":
            for name in sorted(names):  # in one order, so that two who want the same never wait for each other
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
        yield connection


@contextmanager
def translated(database: Engine) -> Iterator[None]:
    """Turn what the database's driver raises into `Unavailable`; a statement that is wrong stays a bug."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable(
            f"All connections to the database are in use, for half a minute. Try again; is it overloaded ({VARIABLE})?"
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated or type(error).__name__ in ("OperationalError", "InterfaceError"):
            where = database.url.render_as_string(hide_password=True)
            raise Unavailable(f"The database {where} does not answer: {error.orig}. Check it ({VARIABLE}), then try again.") from error
        raise


def _sqlite(url: str, file: str) -> Engine:
    if file and file != ":memory:":
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own; `_begin` does
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # a decision that was answered survives a power cut
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
