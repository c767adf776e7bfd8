"""The log on SQLite and on a real PostgreSQL, and what becomes of it under somebody's hands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlserving.audit.chain import verify
from mlserving.audit.database import AuditLog
from mlserving.database import open_database
from mlserving.errors import Unavailable
from postgres import postgres_server, url_of
from typed_commands import millrace

WRITE = """
import sys
from mlserving.audit.database import AuditLog
log = AuditLog(sys.argv[1])
for number in range(int(sys.argv[2])):
    log.append(f"writer {sys.argv[3]}", "test.write", "demo", number=number)
"""


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    with postgres_server() as port:
        yield port


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'serving' / 'serving.db'}"
        return
    address = url_of(request.getfixturevalue("server"))
    database_of_tests = open_database(address)
    with database_of_tests.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS audit_log"))
    database_of_tests.dispose()
    from mlserving.audit import database

    database._ready.cache_clear()
    yield address


def tamper(url: str, statement: str) -> None:
    """As somebody would who owns the database: the guards go first."""
    database = open_database(url)
    with database.begin() as connection:
        if database.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER audit_log_no_update")
            connection.exec_driver_sql("DROP TRIGGER audit_log_no_delete")
        else:
            connection.exec_driver_sql("DROP TRIGGER audit_log_no_change ON audit_log")
        connection.exec_driver_sql(statement)
    database.dispose()


def test_what_was_written_is_read_in_order_and_whole(url: str) -> None:
    log = AuditLog(url)
    for number in range(5):
        log.append("ann", "rollout.start", f"model-{number % 2}", "new week", to_version=number, note="Grüße")
    assert [entry.sequence for entry in log.entries()] == [1, 2, 3, 4, 5]
    assert [entry.sequence for entry in log.entries("model-0")] == [1, 3, 5]
    assert [entry.sequence for entry in log.entries(newest=2)] == [4, 5]
    assert next(iter(log.entries())).fact.details == {"to_version": 0, "note": "Grüße"}
    assert verify(log.entries()).broken == ""


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET who = 'bob'", "DELETE FROM audit_log", "TRUNCATE audit_log"])
def test_the_database_refuses_to_change_what_was_written(url: str, statement: str) -> None:
    if statement.startswith("TRUNCATE") and url.startswith("sqlite"):
        pytest.skip("SQLite has no TRUNCATE")
    log = AuditLog(url)
    log.append("ann", "rollout.start", "demo")
    with pytest.raises(sa.exc.DBAPIError, match="only appended to"), open_database(url).begin() as connection:
        connection.exec_driver_sql(statement)
    assert len(list(log.entries())) == 1


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit_log SET who = 'bob' WHERE sequence = 3", "entry 3 was changed"),
        ("UPDATE audit_log SET details = 'gone' WHERE sequence = 2", "entry 2 was changed"),
        ("DELETE FROM audit_log WHERE sequence = 2", "entry 2 is missing"),
        ("DELETE FROM audit_log WHERE sequence = 1", "entry 1 is missing"),
        ("UPDATE audit_log SET sequence = 9 WHERE sequence = 5", "entry 5 is missing"),
    ],
)
def test_what_was_changed_behind_its_back_is_named(url: str, statement: str, found: str) -> None:
    log = AuditLog(url)
    for _ in range(5):
        log.append("ann", "rollout.start", "demo")
    tamper(url, statement)
    assert found in verify(log.entries()).broken


def test_a_tail_that_was_cut_off_shows_by_the_anchors_beside_the_database(url: str, tmp_path: Path) -> None:
    log = AuditLog(url, tmp_path / "audit.anchors")
    for _ in range(4):
        log.append("ann", "rollout.start", "demo")
    tamper(url, "DELETE FROM audit_log WHERE sequence > 2")
    assert verify(log.entries()).broken == ""
    assert "its end was cut off" in verify(log.entries(), log.anchors()).broken


def test_writers_at_the_same_time_make_one_chain(url: str) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, url, "25", str(number)]) for number in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    found = verify(AuditLog(url).entries())
    assert (found.entries, found.broken) == (75, "")


def test_a_database_that_is_away_is_said_to_be() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        AuditLog("postgresql+psycopg://nobody@127.0.0.1:9/none").append("ann", "rollout.start", "demo")


def test_the_command_lists_verifies_and_exports(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'serving' / 'serving.db'}"
    assert "Nothing has been logged" in millrace("audit", "list", workspace=tmp_path).stdout
    log = AuditLog(url, tmp_path / "serving" / "audit.anchors")
    kept = [log.append("ann", "rollout.start", "demo", "new week").anchor for _ in range(3)]
    assert "new week" in millrace("audit", "list", "demo", workspace=tmp_path).stdout
    assert str(kept[-1]) in millrace("audit", "verify", "--anchor", str(kept[0]), workspace=tmp_path).stdout
    lines = millrace("audit", "export", workspace=tmp_path).stdout.splitlines()
    assert [json.loads(line)["hash"] for line in lines] == [anchor.hash for anchor in kept]

    tamper(url, "UPDATE audit_log SET why = 'another week' WHERE sequence = 2")
    assert "entry 2 was changed" in millrace("audit", "verify", workspace=tmp_path, code=1).stderr
