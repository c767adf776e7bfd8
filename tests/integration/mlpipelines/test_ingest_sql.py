"""`ingest` from databases: SQLite, and a PostgreSQL server that the test starts from Debian's binaries."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpipelines.artifacts import KEY, Data
from mlpipelines.errors import ConfigError, DataRejected, Unavailable
from mlpipelines.ingestion.manifest import DataManifest
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project, to_json
from mlpipelines.steps.ingest import ingest
from mlpipelines.workspace import ProjectState
from postgres import PASSWORD, postgres_server

DAY = 86_400
START = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())


def project(source: dict[str, Any], **changes: Any) -> Project:
    values = {
        "name": "payments",
        "team": "finance",
        "task": "classification",
        "source": {"kind": "sql", "table": "payments", **source},
        "key": "id",
        "time": "booked",
        "features": {"merchant": "string", "amount": "float"},
        "label": {"column": "category"},
    }
    return parse_project({name: value for name, value in {**values, **changes}.items() if value is not None}, origin="test")


def run(of: Project, root: Path, name: str = "", **window: datetime) -> DataManifest:
    return ingest(
        project=of, project_dir=root, state=ProjectState(root / "workspace"), data=root / f"data{name}", test=root / f"test{name}", **window
    )


def written(root: Path, name: str = "") -> dict[str, dict[str, Any]]:
    """All rows of train, validation and test by key."""
    files = [
        *Data(root / f"data{name}").files("train"),
        *Data(root / f"data{name}").files("validation"),
        root / f"test{name}" / "test.parquet",
    ]
    rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    found = {row[KEY]: row for row in rows}
    assert len(found) == len(rows)
    return found


# SQLite


def insert(file: Path, numbers: range, *, category: str | None = None, kind: str = "INTEGER", per_day: int = 10) -> None:
    """One row for each number; times are seconds or ISO text, by the column's type."""

    def time(number: int) -> Any:
        second = START + number * DAY // per_day
        return second if kind == "INTEGER" else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")

    with sqlite3.connect(file) as connection:
        connection.execute(
            f'CREATE TABLE IF NOT EXISTS payments (id TEXT, booked {kind}, merchant TEXT, amount REAL, category TEXT, card TEXT, "Odd ""Name" TEXT)'
        )
        connection.executemany(
            "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(f"p{n}", time(n), f"SHOP {n}", n / 4, category or ("food", "books", "travel")[n % 3], "4929", f"odd {n}") for n in numbers],
        )
    connection.close()


def sqlite(**source: Any) -> dict[str, Any]:
    return {"url": "sqlite:///rows.db", **source}


def test_a_sqlite_table_is_read_by_named_columns(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    manifest = run(project(sqlite(), features={"merchant": "string", "odd": "string"}, rename={"odd": 'Odd "Name'}), tmp_path)
    rows = written(tmp_path)
    assert len(rows) == manifest.read == 500
    assert rows["p7"] == {KEY: "p7", "id": "p7", "booked": START + 7 * DAY // 10, "merchant": "SHOP 7", "odd": "odd 7", "category": "books"}


@pytest.mark.parametrize("kind", ["INTEGER", "TEXT"])
def test_the_window_is_asked_of_the_database(tmp_path: Path, kind: str) -> None:
    insert(tmp_path / "rows.db", range(1000), kind=kind)
    manifest = run(project(sqlite()), tmp_path, since=datetime(2020, 2, 1, tzinfo=UTC), until=datetime(2020, 3, 1, tzinfo=UTC))
    assert sum(manifest.rows.values()) == 290
    assert manifest.read == 290 if kind == "INTEGER" else manifest.read < 330
    last = run(project(sqlite(window_days=7)), tmp_path, "2", until=datetime(2020, 3, 1, tzinfo=UTC))
    assert last.window["newest"] == "2020-02-29T21:36:00Z"
    assert sum(last.rows.values()) - last.rows["test"] < 70


def test_a_query_is_taken_as_it_is_colons_and_percent_signs_included(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(300))
    query = "SELECT *, ':x 12:30 100%' AS mark FROM payments WHERE merchant LIKE 'SHOP 1%' ;"
    of = project(sqlite(table=None, query=query), features={"merchant": "string", "mark": "string"})
    assert run(of, tmp_path).read == 111
    assert {row["mark"] for row in written(tmp_path).values()} == {":x 12:30 100%"}


def test_text_that_is_not_utf8_is_mended(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(300))
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("UPDATE payments SET merchant = CAST(X'636166E9' AS TEXT) WHERE id = 'p5'")
    connection.close()
    assert run(project(sqlite()), tmp_path).repaired == {"merchant": {"broken_utf8": 1}}
    assert written(tmp_path)["p5"]["merchant"] == "caf\N{REPLACEMENT CHARACTER}"


def test_a_value_of_another_type_is_shown_with_its_row(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(300))
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("UPDATE payments SET amount = 'twelve' WHERE id = 'p5'")
    connection.close()
    with pytest.raises(DataRejected, match=r"rows\.db: table payments: column 'amount' should be float.*'twelve' in row 6"):
        run(project(sqlite()), tmp_path)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"url": "sqlite:///absent.db"}, ConfigError, r"there is no SQLite file at .*absent\.db"),
        ({"table": "paymnets"}, ConfigError, r"source\.table in project\.yaml: .*no such table: paymnets"),
        ({"table": None, "query": "SELEC 1"}, ConfigError, r"source\.query in project\.yaml: .*syntax error"),
        ({"url": "sqlite:///${NOT_SET}.db"}, ConfigError, r"environment variable NOT_SET\. Set it"),
        ({"url": "no url"}, ConfigError, r"is not an SQLAlchemy URL"),
        ({"url": "mysql+mysqldb://u:secret@h/d"}, ConfigError, r"Install the driver"),
        ({"options": {"fast": True}}, ConfigError, r"source\.options"),
    ],
)
def test_a_wrong_source_is_a_mistake_in_the_project(tmp_path: Path, source: dict[str, Any], error: type[Exception], message: str) -> None:
    insert(tmp_path / "rows.db", range(10))
    with pytest.raises(error, match=message) as refused:
        run(project(sqlite(**source)), tmp_path)
    assert "secret" not in str(refused.value)


def test_a_missing_column_is_named_with_its_neighbours(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(10))
    with pytest.raises(DataRejected, match=r"table payments lacks a column.*'odd' \(looked for as 'Odd Nmae'\), closest: 'Odd \"Name'"):
        run(project(sqlite(), features={"odd": "string"}, rename={"odd": "Odd Nmae"}), tmp_path)


# Incremental reading


INCREMENTAL = sqlite(incremental=True)


def state_of(root: Path) -> Any:
    return json.loads((root / "workspace/rows/watermark.json").read_text())


def test_a_second_run_reads_the_new_rows_only_and_keeps_the_old(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    first = run(project(INCREMENTAL), tmp_path, "1")
    insert(tmp_path / "rows.db", range(500, 550))
    second = run(project(INCREMENTAL), tmp_path, "2")
    assert (first.read, second.read) == (500, 51)  # the watermark's own second is read again
    assert second.incremental == {
        "watermark_before": first.incremental["watermark"], "watermark": "2020-02-24T21:36:00Z", "kept": 500, "new": 50, "replaced": 0,
    }  # fmt: skip
    assert len(written(tmp_path, "2")) == sum(second.rows.values()) == 550
    again = run(project(INCREMENTAL), tmp_path, "3")
    assert (again.read, again.content_hash) == (1, second.content_hash)


def test_a_row_that_comes_late_is_found_within_lateness_and_a_corrected_one_counts(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(0, 500, 2))
    late = project(sqlite(incremental=True, lateness_hours=24))
    run(late, tmp_path, "1")
    insert(tmp_path / "rows.db", range(495, 500, 2))
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("UPDATE payments SET merchant = 'corrected' WHERE id = 'p496'")
    connection.close()
    second = run(late, tmp_path, "2")
    assert (second.incremental["new"], second.incremental["replaced"]) == (3, 1)
    rows = written(tmp_path, "2")
    assert len(rows) == 253
    sealed = set(pq.read_table(tmp_path / "test2/test.parquet")[KEY].to_pylist())
    assert "p496" in sealed or rows["p496"]["merchant"] == "corrected"


def test_without_a_key_rows_of_the_watermarks_second_are_told_apart(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    keyless = project(INCREMENTAL, key=None)
    run(keyless, tmp_path, "1")
    with sqlite3.connect(tmp_path / "rows.db") as connection:  # an exact repeat of the newest row, in its second
        connection.execute("INSERT INTO payments SELECT * FROM payments WHERE id = 'p499'")
    connection.close()
    second = run(keyless, tmp_path, "2")
    assert (second.read, second.incremental["new"]) == (2, 1)
    assert len(written(tmp_path, "2")) == 501


def test_a_row_from_the_future_does_not_stop_reading(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    insert(tmp_path / "rows.db", range(1_000_000, 1_000_001))
    run(project(INCREMENTAL), tmp_path, "1")
    now = int(datetime.now(UTC).timestamp())
    assert now - 60 < state_of(tmp_path)["watermark"] <= now


def test_another_set_of_columns_reads_everything_again(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    run(project(INCREMENTAL), tmp_path, "1")
    manifest = run(project(INCREMENTAL, features={"merchant": "string", "amount": "float", "card": "string"}), tmp_path, "2")
    assert manifest.read == 500
    assert any("columns changed since the last run" in warning for warning in manifest.warnings)


def test_rows_that_are_refused_do_not_move_the_watermark(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    run(project(INCREMENTAL), tmp_path, "1")
    before = state_of(tmp_path)
    insert(tmp_path / "rows.db", range(600, 602))
    insert(tmp_path / "rows.db", range(600, 602))
    with pytest.raises(DataRejected, match="occur more than once"):
        run(project(INCREMENTAL), tmp_path, "2")
    assert state_of(tmp_path) == before


KILLED = """
import os, signal, sys
from pathlib import Path
import mlpipelines.ingestion.kept_rows, mlpipelines.ingestion.sealed
from mlpipelines.project_file import from_json
from mlpipelines.steps.ingest import ingest
from mlpipelines.workspace import ProjectState
root, module, function = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
setattr(sys.modules[module], function, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
ingest(project=from_json(sys.argv[4]), project_dir=root, state=ProjectState(root / "workspace"), data=root / "data2", test=root / "test2")
"""


@pytest.mark.parametrize("at", ["ingestion.kept_rows write_rows", "ingestion.kept_rows write_json"])
def test_a_kill_while_the_state_moves_leaves_the_old_state(tmp_path: Path, at: str) -> None:
    insert(tmp_path / "rows.db", range(500))
    run(project(INCREMENTAL), tmp_path, "1")
    before = state_of(tmp_path)
    insert(tmp_path / "rows.db", range(500, 550))
    module, function = at.split()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), f"mlpipelines.{module}", function, to_json(project(INCREMENTAL))], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert state_of(tmp_path) == before
    after = run(project(INCREMENTAL), tmp_path, "2")
    assert (after.read, after.incremental["new"]) == (51, 50)
    assert len(written(tmp_path, "2")) == 550


def test_a_kill_while_sealing_seals_nothing(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(500))
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), "mlpipelines.ingestion.sealed", "write_json", to_json(project(INCREMENTAL))]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "workspace/sealed").exists()
    assert run(project(INCREMENTAL), tmp_path, "2").sealed["first_run"]


# PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a fresh server, as a project file writes it."""
    with postgres_server() as port:
        yield f"postgresql+psycopg://owner:${{PG_PASSWORD}}@127.0.0.1:{port}/postgres"


@pytest.fixture
def postgres(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, Any], psycopg.Connection[Any]]]:
    """A source of 1,000 rows with every kind of type, and a connection to change it."""
    monkeypatch.setenv("PG_PASSWORD", PASSWORD)
    port = server.rpartition(":")[2].partition("/")[0]
    with psycopg.connect(host="127.0.0.1", port=port, user="owner", password=PASSWORD, dbname="postgres", autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS bank CASCADE")
        connection.execute("CREATE SCHEMA bank")
        connection.execute(
            'CREATE TABLE bank."Card Rows" (id uuid, booked timestamptz, day date, "Merchant Name" text, "order" integer, amount numeric(12, 2), '
            "refund boolean, tags text[], image bytea, category varchar(20), card text)"
        )
        connection.execute(
            """INSERT INTO bank."Card Rows" SELECT
                ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, '2020-01-01T00:00:00Z'::timestamptz + n * interval '2.4 hours',
                (('2020-01-01T00:00:00Z'::timestamptz + n * interval '2.4 hours') at time zone 'UTC')::date,
                'SHOP ' || n, CASE WHEN n % 10 > 0 THEN n END, n / 4.0, n % 7 = 0, ARRAY['t' || n % 3, NULL], decode('ff00', 'hex'),
                (ARRAY['food', 'books', 'travel'])[n % 3 + 1], '4929'
            FROM generate_series(0, 999) AS n"""
        )
        yield {"url": server, "table": "bank.Card Rows"}, connection


COLUMNS: dict[str, Any] = {
    "features": {
        "merchant": "string", "order": "integer", "amount": "float", "refund": "integer", "tags": "[string]", "image": "bytes", "day": "timestamp",
    },
    "rename": {"merchant": "Merchant Name"},
}  # fmt: skip


@pytest.mark.postgres
def test_every_type_of_postgres_becomes_canonical(postgres: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    source, _ = postgres
    manifest = run(project(source, **COLUMNS), tmp_path)
    assert manifest.read == 1000
    row = written(tmp_path)["00000000-0000-0000-0000-000000000021"]
    assert {name: row[name] for name in ("merchant", "order", "amount", "refund", "tags", "image", "booked", "day", "category")} == {
        "merchant": "SHOP 21", "order": 21, "amount": 5.25, "refund": 1, "tags": ["t0"], "image": b"\xff\x00",
        "booked": START + 21 * DAY // 10, "day": START + 2 * DAY, "category": "food",
    }  # fmt: skip
    assert manifest.source["url"].startswith("postgresql+psycopg://owner:***@")
    assert PASSWORD not in (tmp_path / "data/manifest.json").read_text()


@pytest.mark.postgres
@pytest.mark.parametrize("time", ["booked", "day"])
def test_postgres_filters_by_the_window_itself(postgres: tuple[dict[str, Any], Any], tmp_path: Path, time: str) -> None:
    source, _ = postgres
    of = project(source, time=time, features={"amount": "float"})
    manifest = run(of, tmp_path, since=datetime(2020, 2, 1, tzinfo=UTC), until=datetime(2020, 3, 1, tzinfo=UTC))
    assert manifest.read == sum(manifest.rows.values()) == 290


@pytest.mark.postgres
def test_a_query_is_filtered_around_and_counted_back_from_its_newest_row(postgres: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    source, _ = postgres
    query = """SELECT id, booked::timestamp AS booked, amount, category FROM bank."Card Rows" WHERE "Merchant Name" LIKE '%1'"""
    of = project({"url": source["url"], "table": None, "query": query, "window_days": 50}, features={"amount": "float"})
    manifest = run(of, tmp_path)
    assert manifest.window["newest"] == "2020-04-09T02:24:00Z"
    assert manifest.read == 50


@pytest.mark.postgres
def test_columns_that_are_not_named_need_not_even_be_readable(postgres: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    source, connection = postgres
    connection.execute("DROP ROLE IF EXISTS reader")
    connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    connection.execute("GRANT USAGE ON SCHEMA bank TO reader")
    connection.execute('GRANT SELECT (id, booked, "Merchant Name", amount, category) ON bank."Card Rows" TO reader')
    reader = {**source, "url": source["url"].replace("owner", "reader")}
    assert run(project(reader, rename={"merchant": "Merchant Name"}), tmp_path).read == 1000
    with pytest.raises(ConfigError, match=r"source\.table in project\.yaml: postgres refuses it: permission denied"):
        run(project(reader, features={"card": "string"}), tmp_path)


@pytest.mark.postgres
def test_postgres_is_read_on_from_the_watermark(postgres: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    source, connection = postgres
    of = project({**source, "incremental": True}, features={"amount": "float"})
    run(of, tmp_path, "1")
    connection.execute(
        """INSERT INTO bank."Card Rows" (id, booked, amount, category)
        SELECT gen_random_uuid(), '2020-06-01T00:00:00Z'::timestamptz + n * interval '1 hour', n, 'food' FROM generate_series(1, 30) AS n"""
    )
    second = run(of, tmp_path, "2")
    assert (second.read, second.incremental["new"], len(written(tmp_path, "2"))) == (31, 30, 1030)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda s: {**s, "table": "bank.absent"},
            ConfigError,
            r"source\.table in project\.yaml: postgres refuses it: relation \"bank.absent\" does not exist",
        ),
        (lambda s: {**s, "url": s["url"].replace("owner", "nobody")}, Unavailable, r"does not answer: .*password authentication failed"),
        (
            lambda s: {**s, "url": "postgresql+psycopg://owner:${PG_PASSWORD}@127.0.0.1:1/postgres"},
            Unavailable,
            r"does not answer.*Try|try again",
        ),
    ],
)
def test_a_server_that_refuses_says_so_without_the_password(
    postgres: tuple[dict[str, Any], Any], tmp_path: Path, change: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        run(project(change(postgres[0])), tmp_path)
    assert PASSWORD not in str(refused.value)
    assert not (tmp_path / "workspace").exists()


@pytest.mark.postgres
def test_a_column_that_postgres_lacks_is_named(postgres: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    with pytest.raises(
        DataRejected, match=r"table bank\.Card Rows lacks a column.*'merchant' \(looked for as 'Merchant Nam'\), closest: 'Merchant Name'"
    ):
        run(project(postgres[0], rename={"merchant": "Merchant Nam"}), tmp_path)


def test_tables_of_several_driver_batches_are_put_together(tmp_path: Path) -> None:
    insert(tmp_path / "rows.db", range(45_000), per_day=1000)
    manifest = run(project(sqlite()), tmp_path)
    assert sum(manifest.rows.values()) == 45_000
    table = pa.concat_tables([pq.read_table(file, partitioning=None) for file in Data(tmp_path / "data").files("train")])
    assert table.num_rows == manifest.rows["train"]
