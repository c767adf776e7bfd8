"""A database for each test: SQLite in a file, and a schema of a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from postgres import postgres_server, url_of


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server."""
    with postgres_server() as port:
        yield url_of(port)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/serving.db"
    server, name = request.getfixturevalue("postgres_url"), f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{server}?options=-csearch_path%3D{name}"
