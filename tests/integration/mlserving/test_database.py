"""A named lock holds on SQLite and on PostgreSQL, between processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from mlserving.database import address, locked, open_database
from mlserving.errors import ConfigError, Unavailable
from postgres import postgres_server, url_of

ADDERS, EACH = 4, 40
ADD = """
import sys
from sqlalchemy import text
from mlserving.database import locked, open_database
database = open_database(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with locked(database, "counter") as connection:
        now = connection.execute(text("SELECT value FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET value = :value"), {"value": now + 1})
"""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'new' / 'serving.db'}"
        return
    with postgres_server() as port:
        yield url_of(port)


def test_what_was_read_under_the_lock_is_still_true_when_it_is_written(url: str) -> None:
    database = open_database(url)
    with locked(database, "counter") as connection:
        connection.execute(text("CREATE TABLE counter (value INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    adders = [subprocess.Popen([sys.executable, "-c", ADD, url, str(EACH)]) for _ in range(ADDERS)]
    assert [adder.wait(timeout=120) for adder in adders] == [0] * ADDERS
    with locked(database, "counter") as connection:
        assert connection.execute(text("SELECT value FROM counter")).scalar_one() == ADDERS * EACH


def test_what_was_written_before_an_error_is_taken_back(url: str) -> None:
    database = open_database(url)
    with locked(database, "t") as connection:
        connection.execute(text("CREATE TABLE taken_back (value INTEGER)"))

    def half_way(connection: Connection) -> None:
        connection.execute(text("INSERT INTO taken_back VALUES (1)"))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), locked(database, "t") as connection:
        half_way(connection)
    with locked(database, "t") as connection:
        assert connection.execute(text("SELECT count(*) FROM taken_back")).scalar_one() == 0


def test_a_server_that_is_not_there_is_unavailable_and_its_password_is_not_told() -> None:
    database = open_database("postgresql://owner:secret@127.0.0.1:9/postgres")
    with pytest.raises(Unavailable, match="MILLRACE_DATABASE") as raised, locked(database, "t"):
        pass
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["mysql://a@b/c", "no address", "oracle+nothing://x"])
def test_another_address_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="MILLRACE_DATABASE"):
        open_database(wrong)


def test_the_environment_names_the_database_and_the_workspace_holds_it_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MILLRACE_DATABASE", raising=False)
    assert address(tmp_path) == f"sqlite:///{tmp_path}/serving/serving.db"
    monkeypatch.setenv("MILLRACE_DATABASE", "postgresql://db/millrace")
    assert address(tmp_path) == "postgresql://db/millrace"
