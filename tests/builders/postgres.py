"""A PostgreSQL server of a test's own, from Debian's binaries: fresh, on loopback, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

PASSWORD = "p@ss:w/rd 1"


def url_of(port: int) -> str:
    """The server's SQLAlchemy URL, with the password in it."""
    return f"postgresql+psycopg://owner:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"


@contextmanager
def postgres_server() -> Iterator[int]:
    """The port of a fresh server, with `PASSWORD` as the password of the user `owner`. Skips where PostgreSQL is not installed."""
    folder = _binaries()
    if folder is None:
        pytest.skip("no PostgreSQL binaries (Debian's package postgresql): neither pg_ctl on PATH nor /usr/lib/postgresql/*/bin")
    as_user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}  # it refuses root
    place = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))
    (place / "password").write_text(PASSWORD)
    if as_user:
        for path in (place, place / "password"):
            shutil.chown(path, as_user["user"], as_user["group"])
    port = _free_port()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": place, **as_user}
    data, settings = place / "data", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place} -c fsync=off"
    access = ["-U", "owner", "-A", "scram-sha-256", f"--pwfile={place / 'password'}"]
    try:
        subprocess.run([folder / "initdb", "-D", data, *access, "-E", "UTF8", "--no-sync"], check=True, **quiet)
        subprocess.run([folder / "pg_ctl", "-D", data, "-l", place / "log", "-w", "-o", settings, "start"], check=True, **quiet)
        yield port
    finally:
        subprocess.run([folder / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False, **quiet)
        shutil.rmtree(place, ignore_errors=True)


def _binaries() -> Path | None:
    found = [Path(path).parent for name in ("pg_ctl",) if (path := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
