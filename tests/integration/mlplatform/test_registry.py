"""The registry as the charts start it, for real: PostgreSQL's users by the chart's script, MLflow's server by the chart's arguments and the secrets' texts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text

import binaries
from mlplatform.environment import read_environment
from mlplatform.plan.credentials import databases
from postgres import PASSWORD, postgres_server, url_of
from raw_answers import ask, status
from registry_servers import Databases, mlflow_server, password_of, rendered, secret
from typed_platform import ROOT

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.control_plane,
    pytest.mark.slow,
    pytest.mark.skipif(not binaries.ready(["helm"]), reason=f"no helm: type `{binaries.COMMAND}`"),
]
ENVIRONMENT = read_environment(ROOT / "platform" / "environments" / "laptop.yaml")


def make_users(folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    """The script of the chart's second container, in this machine's folders."""
    script = rendered(ENVIRONMENT, "postgresql", "ConfigMap", "postgresql-users")["data"]["users.sh"]
    for there, here in (("/admin/", f"{folder}/admin/"), ("/passwords/", f"{folder}/passwords/"), ("/tmp/done", f"{folder}/done")):
        script = script.replace(there, here)
    script = script.replace("PGUSER=postgres", "PGUSER=owner PGDATABASE=postgres").replace("sleep infinity &", "exit 0")
    settings = os.environ | {"PGPORT": str(port), "DATABASES": " ".join(databases(ENVIRONMENT))}
    return subprocess.run(["sh", "-c", script], env=settings, capture_output=True, text=True, check=False, timeout=60)


def run_script(name: str, folder: Path, port: int, **settings: str) -> subprocess.CompletedProcess[str]:
    """One of the chart's scripts about backups, in this machine's folders."""
    script = rendered(ENVIRONMENT, "postgresql", "ConfigMap", "postgresql-backup")["data"][f"{name}.sh"]
    script = (
        script.replace("/admin/", f"{folder}/admin/").replace("/backups", f"{folder}/backups").replace("PGUSER=postgres", "PGUSER=owner")
    )
    told = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": str(port), "DATABASES": " ".join(databases(ENVIRONMENT)), **settings}
    return subprocess.run(["sh", "-c", script], env=told, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chart's pods see of files."""
    folder = tmp_path_factory.mktemp("postgresql")
    for name in ("admin", "passwords"):
        (folder / name).mkdir()
    return folder


@pytest.fixture
def backups(place: Path) -> Iterator[Path]:
    """The folder of backups, of which each test makes its own."""
    folder = place / "backups"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def database(place: Path) -> Iterator[int]:
    """The port of a PostgreSQL in which everybody has a database."""
    folder = place
    (folder / "admin" / "password").write_text(PASSWORD)
    for name in databases(ENVIRONMENT):
        (folder / "passwords" / name).write_text("an old one, with 'quotes'")
    with postgres_server() as port:
        first = make_users(folder, port)
        assert first.returncode == 0, first.stderr
        for name, word in secret(ENVIRONMENT, "postgresql-users").items():
            (folder / "passwords" / name).write_text(word)
        again = make_users(folder, port)  # a changed password is taken up, and what is there stays
        assert again.returncode == 0, again.stderr
        assert (folder / "done").exists()
        yield port


@pytest.fixture(scope="module")
def registry(database: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """MLflow's server: its address, and the folder of its artifacts."""
    place = f"127.0.0.1:{database}"
    ini = secret(ENVIRONMENT, "mlflow-auth", postgresql=place)["basic_auth.ini"]
    (permissions,) = [line.partition(" = ")[2] for line in ini.splitlines() if line.startswith("database_uri")]
    kept = Databases(models=secret(ENVIRONMENT, "mlflow-database", postgresql=place)["url"], permissions=permissions)
    with mlflow_server(ENVIRONMENT, tmp_path_factory.mktemp("mlflow"), kept) as served:
        yield served.address, served.artifacts


def test_nobody_reads_the_registry_without_saying_who_they_are(registry: tuple[str, Path]) -> None:
    search = f"{registry[0]}/api/2.0/mlflow/registered-models/search"
    assert status(search) == 401
    assert status(search, user="admin:guess") == 401
    assert status(search, user=f"admin:{password_of('mlflow-admin')}") == 200


def test_models_lie_in_postgresql_and_artifacts_behind_the_server(registry: tuple[str, Path]) -> None:
    address, artifacts = registry
    admin = f"admin:{password_of('mlflow-admin')}"
    made = ask(f"{address}/api/2.0/mlflow/registered-models/create", b'{"name": "cards"}', user=admin, method="POST")
    assert json.loads(made)["registered_model"]["name"] == "cards"
    ask(f"{address}/api/2.0/mlflow-artifacts/artifacts/1/note.txt", b"kept", user=admin, method="PUT")
    assert (artifacts / "1" / "note.txt").read_text() == "kept"
    assert status(f"{address}/api/2.0/mlflow-artifacts/artifacts/1/note.txt") == 401


def names(address: str, user: str) -> list[str]:
    found = json.loads(ask(f"{address}/api/2.0/mlflow/registered-models/search", user=user))
    return sorted(model["name"] for model in found.get("registered_models", []))


def test_what_was_backed_up_comes_back_and_what_was_there_is_kept(
    registry: tuple[str, Path], database: int, place: Path, backups: Path
) -> None:
    address, admin = registry[0], f"admin:{password_of('mlflow-admin')}"

    def make(name: str) -> None:
        ask(f"{address}/api/2.0/mlflow/registered-models/create", json.dumps({"name": name}).encode(), user=admin, method="POST")

    make("backed-up")
    (backups / ".2020-01-01T00-00-00Z").mkdir()  # of one that was killed
    for old in ("2020-01-02T00-00-00Z", "2020-01-03T00-00-00Z"):
        (backups / old).mkdir()
    done = run_script("backup", place, database, KEEP="2")
    assert done.returncode == 0, done.stderr
    assert "2020-01-03T00-00-00Z" in (kept := sorted(path.name for path in backups.iterdir()))
    assert len(kept) == 2

    make("too-late")
    assert {"backed-up", "too-late"} <= set(names(address, admin))
    wrong = run_script("restore", place, database, BACKUP="2019-01-01T00-00-00Z")
    assert (wrong.returncode, "There is no backup '2019-01-01T00-00-00Z'. There are: 2020-01-03" in wrong.stderr) == (2, True)
    assert "too-late" in names(address, admin)

    restored = run_script("restore", place, database)  # under a registry that goes on asking
    assert restored.returncode == 0, restored.stderr
    assert f"mlflow is as in {kept[-1]}; what it was before is mlflow_before_" in restored.stdout
    assert "backed-up" in (now := names(address, admin))
    assert "too-late" not in now
    make("afterwards")  # its user owns what is there


def test_a_dump_that_is_broken_changes_nothing(registry: tuple[str, Path], database: int, place: Path, backups: Path) -> None:
    address, admin = registry[0], f"admin:{password_of('mlflow-admin')}"
    before = names(address, admin)
    torn = backups / "2099-01-01T00-00-00Z"
    torn.mkdir()
    for name in databases(ENVIRONMENT):
        (torn / f"{name}.dump").write_bytes(b"PGDMP and no more")
    done = run_script("restore", place, database)
    assert (done.returncode != 0, "Nothing was changed." in done.stderr) == (True, True)
    assert names(address, admin) == before
    with create_engine(url_of(database), poolclass=NullPool).connect() as connection:
        there = set(connection.execute(text("select datname from pg_database")).scalars())
    assert not {name for name in there if "_restored_" in name}
