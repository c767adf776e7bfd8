"""BigQuery: tables through the Storage Read API, queries as a job whose result comes through it too.

The Storage API streams Arrow, filters rows and projects columns on its side, and costs what it reads. What is sent is built by
pure functions, so that a test can read it without a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import google.api_core.exceptions as api
import google.auth.exceptions as auth
import pyarrow as pa
from google.cloud import bigquery, bigquery_storage_v1
from google.cloud.bigquery_storage_v1 import types as storage

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.ingestion.sources.contract import Chunk, Window, numbered, require_columns
from mlpipelines.project import Source

_TABLE = re.compile(r"(?P<project>[\w.:-]+?)\.(?P<dataset>[\w-]+)\.(?P<table>[\w$ -]+)")
_LIKE: dict[str, Any] = {
    "TIMESTAMP": datetime(1970, 1, 1, tzinfo=UTC),
    "DATETIME": datetime(1970, 1, 1),  # noqa: DTZ001 - BigQuery's type without a zone
    "DATE": date(1970, 1, 1),
    "INTEGER": 0,
    "INT64": 0,
    "STRING": "",
}
_PARAMETERS = {"INTEGER": "INT64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """How to reach BigQuery; a test brings its own endpoint."""

    query: Callable[[str | None], Any]
    """Billing project → `bigquery.Client`."""
    read: Callable[[], Any]
    """`BigQueryReadClient`."""


GOOGLE = Clients(query=lambda project: bigquery.Client(project=project), read=bigquery_storage_v1.BigQueryReadClient)


@dataclass(frozen=True, slots=True, kw_only=True)
class BigQuerySource:
    """One table or query."""

    table: str | None
    query: str | None
    billing_project: str | None
    clients: Clients = GOOGLE

    @classmethod
    def open(cls, source: Source) -> BigQuerySource:
        """Check the table's name; nothing is connected yet.

        Raises:
            ConfigError: it is not `project.dataset.table`.
        """
        if source.table is not None and _TABLE.fullmatch(source.table) is None:
            raise ConfigError(f"source.table in project.yaml is {source.table!r}: write project.dataset.table. Correct it and run again.")
        return cls(table=source.table, query=source.query, billing_project=source.billing_project)

    def describe(self) -> dict[str, Any]:
        """Kind, table or query, who pays."""
        return {"kind": "bigquery", "table": self.table, "query": self.query, "billing_project": self.billing_project}

    @property
    def origin(self) -> str:
        """What an error calls it."""
        return f"BigQuery table {self.table}" if self.table else "BigQuery: source.query"

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:
        """See `RowSource`."""
        wanted = list(dict.fromkeys(columns.values()))
        with self._translated():
            client = self.clients.query(self.billing_project)
            types = self._types(client)
            require_columns(columns, types, self.origin)
            timed = None if time is None or window.is_open else columns[time]
            if self.table is not None:
                restriction = "" if timed is None else row_restriction(timed, types[timed], window)
                batches = self._table_batches(client, wanted, restriction)
            else:
                batches = self._query_batches(
                    client, wanted_rows(self.query or "", wanted, timed), parameters(types.get(timed or "", ""), window)
                )
            yield from numbered(self.origin, batches)

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """See `RowSource`: asked by a query, also of a table."""
        name = columns[time]
        with self._translated():
            client = self.clients.query(self.billing_project)
            types = self._types(client)
            require_columns({time: name}, types, self.origin)
            rows = f"SELECT * FROM {_quoted(self.table)}" if self.table else (self.query or "")  # noqa: S608 - the name is checked and quoted
            inside = wanted_rows(rows, [name], None if window.is_open else name)
            exact = types[name] != "STRING" or window.until is None
            text = inside if not exact else f"SELECT MAX({_quoted(name)}) AS {_quoted(name)} FROM ({inside})"  # noqa: S608 - the same
            yield from numbered(self.origin, self._query_batches(client, text, parameters(types[name], window)))

    def _types(self, client: Any) -> dict[str, str]:
        if self.table is not None:
            schema = client.get_table(self.table).schema
        else:
            schema = client.query(self.query, job_config=bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)).schema
        return {field.name: field.field_type for field in schema}

    def _table_batches(self, client: Any, wanted: Sequence[str], restriction: str) -> Iterator[pa.RecordBatch]:
        reader = self.clients.read()
        session = reader.create_read_session(request=session_request(self.table or "", client.project, wanted, restriction))
        for stream in session.streams:  # none where no row is wanted
            schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
            for response in reader.read_rows(stream.name):  # starts again where a connection broke off
                yield pa.ipc.read_record_batch(pa.py_buffer(response.arrow_record_batch.serialized_record_batch), schema)

    def _query_batches(self, client: Any, text: str, values: Sequence[Any]) -> Iterator[pa.RecordBatch]:
        result = client.query(text, job_config=bigquery.QueryJobConfig(query_parameters=list(values))).result()
        yield from result.to_arrow_iterable(bqstorage_client=self.clients.read())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except auth.DefaultCredentialsError as error:
            raise ConfigError(f"{self.origin}: no Google credentials: {error} Log in: gcloud auth application-default login") from error
        except (api.NotFound, api.BadRequest, api.Forbidden, api.Unauthorized) as error:
            raise ConfigError(
                f"{self.origin}: BigQuery refuses: {error.message}. Correct source in project.yaml, or the rights, and run again."
            ) from error
        except (api.GoogleAPICallError, api.RetryError, auth.TransportError, auth.RefreshError, ConnectionError) as error:
            raise Unavailable(f"{self.origin}: BigQuery does not answer: {error}. Try again: `millrace run`.") from error


def session_request(table: str, billing_project: str, columns: Sequence[str], restriction: str) -> storage.CreateReadSessionRequest:
    """What asks the Storage API for `columns` of the rows that `restriction` lets through, as Arrow in one stream."""
    found = _TABLE.fullmatch(table)
    assert found is not None
    return storage.CreateReadSessionRequest(
        parent=f"projects/{billing_project}",
        read_session=storage.ReadSession(
            table=f"projects/{found['project']}/datasets/{found['dataset']}/tables/{found['table']}",
            data_format=storage.DataFormat.ARROW,
            read_options=storage.ReadSession.TableReadOptions(selected_fields=list(columns), row_restriction=restriction),
        ),
        max_stream_count=1,  # rows arrive in the table's order, so that a row's number means something
    )


def row_restriction(column: str, kind: str, window: Window) -> str:
    """`window` as the Storage API's filter, which takes no parameters: every literal is built from a number or a date."""
    since, until = window.bounds(_like(column, kind))
    parts = [] if since is None else [f"{_quoted(column)} >= {_literal(kind, since)}"]
    parts += [] if until is None else [f"{_quoted(column)} < {_literal(kind, until)}"]
    return " AND ".join(parts)


def wanted_rows(query: str, columns: Sequence[str], time: str | None) -> str:
    """`query` with only `columns`, filtered by `@since` and `@until` (null: open)."""
    text = f"SELECT {', '.join(_quoted(name) for name in columns)} FROM (\n{query.strip().rstrip(';')}\n)"  # noqa: S608 - the project's own query
    if time is None:
        return text
    at = _quoted(time)
    return f"{text} WHERE (@since IS NULL OR {at} >= @since) AND (@until IS NULL OR {at} < @until)"


def parameters(kind: str, window: Window) -> list[bigquery.ScalarQueryParameter]:
    """The values of `@since` and `@until` in the time column's own type; none for an open window."""
    if window.is_open or not kind:
        return []
    since, until = window.bounds(_like("time", kind))
    name = _PARAMETERS.get(kind, kind)
    return [bigquery.ScalarQueryParameter("since", name, since), bigquery.ScalarQueryParameter("until", name, until)]


def _like(column: str, kind: str) -> Any:
    if kind not in _LIKE:
        raise ConfigError(
            f"BigQuery: the time column {column!r} is of type {kind}, which is no time. Correct `time` in project.yaml and run again."
        )
    return _LIKE[kind]


def _literal(kind: str, value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    text = value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else str(value)
    zone = "+00:00" if kind == "TIMESTAMP" else ""
    return f'"{text}"' if kind == "STRING" else f'{kind} "{text}{zone}"'


def _quoted(name: str | None) -> str:
    if not name or "`" in name or "\\" in name:
        raise ConfigError(f"BigQuery: {name!r} cannot be a column's or table's name. Correct it in project.yaml and run again.")
    return f"`{name}`"
