"""BigQuery up to the network: what would be sent, and, against a server of our own that speaks its protocols, what comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from mlpipelines.errors import ConfigError, DataRejected, Unavailable
from mlpipelines.ingestion.sources import Window
from mlpipelines.ingestion.sources.bigquery import BigQuerySource, Clients, parameters, row_restriction, session_request, wanted_rows
from mlpipelines.project import Source

WEEK = Window.between(datetime(2020, 1, 6, tzinfo=UTC), datetime(2020, 1, 13, tzinfo=UTC))
TABLE = "our-warehouse.payments.card_rows"
ROWS = pa.table({"merchant_name": ["a", "b", "c"], "booked": pa.array([0, 1, 2], pa.timestamp("us", "UTC"))})


def test_the_storage_api_is_asked_for_named_columns_and_the_window_only() -> None:
    request = session_request(TABLE, "payer", ["merchant_name", "booked"], row_restriction("booked", "TIMESTAMP", WEEK))
    session = request.read_session
    assert request.parent == "projects/payer"
    assert session.table == "projects/our-warehouse/datasets/payments/tables/card_rows"
    assert session.data_format == types.DataFormat.ARROW
    assert list(session.read_options.selected_fields) == ["merchant_name", "booked"]
    assert (
        session.read_options.row_restriction
        == '`booked` >= TIMESTAMP "2020-01-06 00:00:00+00:00" AND `booked` < TIMESTAMP "2020-01-13 00:00:00+00:00"'
    )


@pytest.mark.parametrize(
    ("kind", "restriction"),
    [
        ("DATE", '`t` >= DATE "2020-01-06" AND `t` < DATE "2020-01-13"'),
        ("DATETIME", '`t` >= DATETIME "2020-01-06 00:00:00" AND `t` < DATETIME "2020-01-13 00:00:00"'),
        ("INTEGER", "`t` >= 1578268800 AND `t` < 1578873600"),
        ("STRING", '`t` >= "2020-01-05" AND `t` < "2020-01-15"'),
    ],
)
def test_bounds_are_written_in_the_columns_own_type(kind: str, restriction: str) -> None:
    assert row_restriction("t", kind, WEEK) == restriction


def test_a_query_is_wrapped_and_its_window_travels_as_parameters() -> None:
    text = wanted_rows("SELECT * FROM x;", ["a", "t"], "t")
    assert text == "SELECT `a`, `t` FROM (\nSELECT * FROM x\n) WHERE (@since IS NULL OR `t` >= @since) AND (@until IS NULL OR `t` < @until)"
    since, until = parameters("TIMESTAMP", WEEK)
    assert (since.type_, since.value, until.value) == ("TIMESTAMP", *WEEK.as_datetimes())
    assert parameters("TIMESTAMP", Window()) == []


@pytest.mark.parametrize("column", ["a`b", "a\\", ""])
def test_a_name_cannot_break_out_of_its_quotes(column: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a column's or table's name"):
        wanted_rows("SELECT 1", [column], None)


def test_a_table_needs_all_three_parts() -> None:
    with pytest.raises(ConfigError, match=r"write project\.dataset\.table"):
        BigQuerySource.open(Source(kind="bigquery", table="payments.card_rows"))


def test_without_credentials_the_next_command_is_to_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    opened = BigQuerySource.open(Source(kind="bigquery", table=TABLE, billing_project="payer"))
    with pytest.raises(ConfigError, match=r"no Google credentials.*gcloud auth application-default login"):
        list(opened.chunks({"merchant": "merchant_name"}, None, Window()))


class Tables(BaseHTTPRequestHandler):
    """`tables.get` of the REST API."""

    def do_GET(self) -> None:
        found = "card_rows" in self.path
        fields = [{"name": "merchant_name", "type": "STRING"}, {"name": "booked", "type": "TIMESTAMP"}, {"name": "card", "type": "STRING"}]
        name = {"projectId": "our-warehouse", "datasetId": "payments", "tableId": "card_rows"}
        body = {"tableReference": name, "schema": {"fields": fields}} if found else {"error": {"code": 404, "message": "Not found: Table"}}
        content = json.dumps(body).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Rows(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc ships no types
    """`CreateReadSession` and `ReadRows` of the Storage API."""

    def __init__(self) -> None:
        self.asked: list[types.CreateReadSessionRequest] = []

    def service(self, details: Any) -> Any:
        if details.method.endswith("/CreateReadSession"):
            return grpc.unary_unary_rpc_method_handler(
                self._session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
            )
        return grpc.unary_stream_rpc_method_handler(self._rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize)

    def _wanted(self) -> pa.Table:
        return ROWS.select(list(self.asked[-1].read_session.read_options.selected_fields))

    def _session(self, request: types.CreateReadSessionRequest, _: Any) -> types.ReadSession:
        self.asked.append(request)
        schema = types.ArrowSchema(serialized_schema=self._wanted().schema.serialize().to_pybytes())
        return types.ReadSession(name="s", arrow_schema=schema, data_format=types.DataFormat.ARROW, streams=[types.ReadStream(name="s/1")])

    def _rows(self, request: types.ReadRowsRequest, _: Any) -> Iterator[types.ReadRowsResponse]:
        for batch in self._wanted().slice(request.offset).to_batches(max_chunksize=2):
            yield types.ReadRowsResponse(
                arrow_record_batch=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes()), row_count=batch.num_rows
            )


@pytest.fixture
def storage() -> Iterator[tuple[Clients, Rows]]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Tables)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    rows, server = Rows(), grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((rows,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield clients(http.server_address[1], port), rows
    server.stop(None)
    http.shutdown()
    http.server_close()


def clients(rest: int, rpc: int) -> Clients:
    options = ClientOptions(api_endpoint=f"http://127.0.0.1:{rest}")
    return Clients(
        query=lambda project: bigquery.Client(project=project, credentials=AnonymousCredentials(), client_options=options),
        read=lambda: BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=grpc.insecure_channel(f"127.0.0.1:{rpc}"))),
    )


def test_rows_stream_in_as_arrow_batches(storage: tuple[Clients, Rows]) -> None:
    reached, server = storage
    opened = BigQuerySource(table=TABLE, query=None, billing_project="payer", clients=reached)
    chunks = list(opened.chunks({"merchant": "merchant_name", "time": "booked"}, "time", WEEK))
    assert [(c.first_row, c.rows["merchant_name"].to_pylist()) for c in chunks] == [(0, ["a", "b"]), (2, ["c"])]
    assert chunks[0].origin == f"BigQuery table {TABLE}"
    assert "TIMESTAMP" in server.asked[0].read_session.read_options.row_restriction
    assert "card" not in server.asked[0].read_session.read_options.selected_fields


def test_a_renamed_column_is_named_before_anything_is_read(storage: tuple[Clients, Rows]) -> None:
    reached, server = storage
    opened = BigQuerySource(table=TABLE, query=None, billing_project="payer", clients=reached)
    with pytest.raises(DataRejected, match=r"card_rows lacks a column.*'merchant_nam'.*closest: 'merchant_name'"):
        list(opened.chunks({"merchant": "merchant_nam"}, None, Window()))
    assert server.asked == []


def test_a_table_that_is_not_there_is_a_mistake_in_the_project(storage: tuple[Clients, Rows]) -> None:
    opened = BigQuerySource(table="our-warehouse.payments.absent", query=None, billing_project="payer", clients=storage[0])
    with pytest.raises(ConfigError, match=r"BigQuery refuses: .*Not found: Table"):
        list(opened.chunks({"merchant": "merchant_name"}, None, Window()))


def test_a_dead_network_is_unavailable(storage: tuple[Clients, Rows]) -> None:
    alive, _ = storage

    def refused() -> Any:
        channel = grpc.insecure_channel("127.0.0.1:1")
        client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
        create = client.create_read_session
        client.create_read_session = lambda **kwargs: create(timeout=1, retry=None, **kwargs)
        return client

    opened = BigQuerySource(table=TABLE, query=None, billing_project="payer", clients=Clients(query=alive.query, read=refused))
    with pytest.raises(Unavailable, match=r"does not answer.*Try again"):
        list(opened.chunks({"merchant": "merchant_name"}, None, Window()))
