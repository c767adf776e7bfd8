"""Any SQL database that SQLAlchemy knows, through a cursor on the server's side.

Names are quoted by SQLAlchemy, values are bound parameters, passwords come from the environment, and only the columns that
were asked for are selected, around a table or around the project's own query.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa

from mlpipelines.errors import ConfigError, DataRejected, Unavailable
from mlpipelines.ingestion.sources.contract import Chunk, Window, numbered, require_columns
from mlpipelines.project import Source

ROWS_AT_ONCE = 20_000
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSource:
    """One table or query of one database."""

    url: sa.URL
    table: str | None
    query: str | None

    @classmethod
    def open(cls, source: Source, project_dir: Path) -> SqlSource:
        """Read the URL; nothing is connected yet.

        Raises:
            ConfigError: it is no URL, names a variable that is not set, or a SQLite file that is not there.
        """
        if source.options:
            raise ConfigError(
                "source.options in project.yaml: a source of kind 'sql' takes no options (they belong into the URL). Remove them and run again."
            )
        url = database_url(source, project_dir)
        return cls(url=url, table=source.table, query=source.query)

    def describe(self) -> dict[str, Any]:
        """Kind, URL without password and parameters, table or query."""
        place = self.url.set(query={}).render_as_string(hide_password=True)
        return {"kind": "sql", "url": place, "table": self.table, "query": self.query}

    @property
    def origin(self) -> str:
        """What an error calls it."""
        where = self.url.database or self.url.host or self.url.drivername
        return f"{where}: {'table ' + self.table if self.table else 'source.query'}"

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:
        """See `RowSource`."""
        wanted = list(dict.fromkeys(columns.values()))
        with self._connected(columns) as connection:
            rows: sa.Select[*tuple[Any, ...]] = sa.select(*(sa.column(name) for name in wanted)).select_from(self._rows(wanted))
            if time is not None:
                rows = self._inside(rows, connection, columns[time], window)
            yield from numbered(self.origin, _batches(connection, rows, wanted))

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """See `RowSource`: the database says which time is the newest. Text is compared as text, which is right for ISO 8601."""
        name = columns[time]
        with self._connected({time: name}) as connection:
            column: sa.ColumnElement[Any] = sa.column(name)
            newest: sa.Select[*tuple[Any, ...]] = sa.select(sa.func.max(column).label(name)).select_from(self._rows([name]))
            if window.until is not None and isinstance(self._example(connection, name), (str, bytes)):  # its bound is not exact
                newest = sa.select(column).distinct().select_from(self._rows([name]))
            yield from numbered(self.origin, _batches(connection, self._inside(newest, connection, name, window), [name]))

    @contextmanager
    def _connected(self, columns: Mapping[str, str]) -> Iterator[sa.Connection]:
        """A connection to a source that has been seen to have `columns`; what fails inside is translated."""
        with connected(self.url, self.origin) as connection:
            if self.url.get_backend_name() == "sqlite":  # text that is not UTF-8 arrives as bytes and is judged with all other text
                connection.connection.driver_connection.text_factory = bytes  # type: ignore[union-attr] # SQLite's own attribute
            self._require(connection, columns)
            yield connection

    def _require(self, connection: sa.Connection, columns: Mapping[str, str]) -> None:
        try:
            names = self._names(connection, sa.text("*"))
        except sa.exc.DBAPIError as error:
            connection.rollback()
            if self._may_read(connection, columns):
                return
            field = "source.table" if self.table else "source.query"
            raise ConfigError(
                f"{field} in project.yaml: {self.url.database} refuses it: {_first_line(error)}. Correct it and run again."
            ) from error
        require_columns(columns, names, self.origin)

    def _names(self, connection: sa.Connection, *selected: sa.ColumnElement[Any] | sa.TextClause) -> list[str]:
        return list(connection.execute(sa.select(*selected).select_from(self._rows([])).where(sa.false())).keys())

    def _may_read(self, connection: sa.Connection, columns: Mapping[str, str]) -> bool:
        """Whether the named columns can be read where all of them together cannot: a database may grant columns one by one."""
        if self.url.get_backend_name() == "sqlite":  # it takes an unknown quoted name for text
            return False
        try:
            return bool(self._names(connection, *(sa.column(name) for name in columns.values())))
        except sa.exc.DBAPIError:
            connection.rollback()
            return False

    def _rows(self, wanted: Sequence[str]) -> sa.FromClause:
        if self.query is not None:
            text = sa.text(self.query.strip().rstrip(";").replace(":", r"\:"))  # a colon is the query's own, not a parameter
            return text.columns(*(sa.column(name) for name in wanted)).subquery("source_rows")
        schema, _, name = (self.table or "").rpartition(".")
        return sa.table(name, schema=schema or None)

    def _example(self, connection: sa.Connection, name: str) -> Any:
        column: sa.ColumnElement[Any] = sa.column(name)
        return connection.execute(sa.select(column).select_from(self._rows([name])).where(column.is_not(None)).limit(1)).scalar()

    def _inside(
        self, rows: sa.Select[*tuple[Any, ...]], connection: sa.Connection, name: str, window: Window
    ) -> sa.Select[*tuple[Any, ...]]:
        """`rows` of the window. One value of the column tells how to write its bounds."""
        if window.is_open:
            return rows
        column: sa.ColumnElement[Any] = sa.column(name)
        since, until = window.bounds(self._example(connection, name))
        rows = rows if since is None else rows.where(column >= sa.bindparam("since", since))
        return rows if until is None else rows.where(column < sa.bindparam("until", until))


def database_url(source: Source, project_dir: Path) -> sa.URL:
    """`source.url` with its variables; nothing is connected.

    Raises:
        ConfigError: it is no URL, names a variable that is not set, or a SQLite file that is not there.
    """
    return _sqlite_file(_parsed(_with_variables(source.url or "")), project_dir)


@contextmanager
def connected(url: sa.URL, origin: str) -> Iterator[sa.Connection]:
    """A connection; what the database says no to is translated. `origin` is what an error calls the rows.

    Raises:
        ConfigError: there is no driver for the URL.
        DataRejected: the database cannot give a value.
        Unavailable: it does not answer, or breaks off.
    """
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except (ImportError, sa.exc.ArgumentError) as error:
        raise ConfigError(f"source.url in project.yaml: {error}. Install the driver or correct the URL, then run again.") from error
    try:
        connection = engine.connect()
    except sa.exc.DBAPIError as error:
        raise Unavailable(
            f"{url.render_as_string(hide_password=True)} does not answer: {_first_line(error)}. Check server, name and password, "
            "then try again: `millrace run`."
        ) from error
    with connection:
        try:
            yield connection
        except sa.exc.DataError as error:
            raise DataRejected(f"{origin}: the database cannot give a value: {_first_line(error)}. Correct the source.") from error
        except sa.exc.DBAPIError as error:
            raise Unavailable(f"{origin}: reading broke off: {_first_line(error)}. Try again: `millrace run`.") from error


def _batches(connection: sa.Connection, rows: sa.Select[*tuple[Any, ...]], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    result = connection.execution_options(stream_results=True, yield_per=ROWS_AT_ONCE).execute(rows)
    for part in result.partitions():
        yield pa.RecordBatch.from_arrays([arrow_array(values) for values in zip(*part, strict=True)], names=list(names))


def arrow_array(values: Sequence[Any]) -> pa.Array:
    """Driver values as Arrow infers them, or as text where they are of no one type (SQLite columns may hold anything)."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_text(value) for value in values], pa.binary())


def _text(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return (json.dumps(value, default=str) if isinstance(value, (list, dict)) else str(value)).encode("utf-8", "surrogateescape")


def _with_variables(url: str) -> str:
    """`${NAME}` from the environment; before the `@` (a user's name or password) with the URL's special characters escaped."""

    def value(found: re.Match[str]) -> str:
        text = os.environ.get(found[1])
        if text is None:
            raise ConfigError(
                f"source.url in project.yaml needs the environment variable {found[1]}. Set it and run again: export {found[1]}=…"
            )
        return quote(text, safe="") if "@" in url[found.end() :] else text

    return _VARIABLE.sub(value, url)


def _parsed(text: str) -> sa.URL:
    try:
        return sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        # the cause may quote the URL, and the URL may hold a password
        raise ConfigError(
            "source.url in project.yaml is not an SQLAlchemy URL (dialect+driver://user:${PASSWORD}@host/database). Correct it and run again."
        ) from (error if _VARIABLE.search(text) is None and "@" not in text else None)


def _sqlite_file(url: sa.URL, project_dir: Path) -> sa.URL:
    """SQLite opens a missing file as an empty database and starts relative paths where the process happens to be: neither is wanted."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return url
    file = (project_dir / url.database).absolute()
    if not file.is_file():
        raise ConfigError(f"source.url in project.yaml: there is no SQLite file at {file}. Correct it and run again.")
    return url.set(database=str(file))


def _first_line(error: sa.exc.DBAPIError) -> str:
    """What the database said, in a line."""
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
