"""The registry as the charts start it, for real: PostgreSQL's users by the chart's script, MLflow's server by the chart's arguments and the secrets' texts."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

import binaries
import programs
from control_plane import free_ports
from mlplatform.cluster.objects import Object
from mlplatform.cluster.rendering import Renderer, shape
from mlplatform.environment import read_environment
from mlplatform.plan.credentials import databases, secret_objects
from mlplatform.plan.order import plan
from mlplatform.plan.steps import Chart
from mlserving.errors import Unavailable
from mlserving.rollout.aliases import Registry
from postgres import PASSWORD, postgres_server, url_of
from typed_platform import ROOT

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.control_plane,
    pytest.mark.slow,
    pytest.mark.skipif(not binaries.ready(["helm"]), reason=f"no helm: type `{binaries.COMMAND}`"),
]
ENVIRONMENT = read_environment(ROOT / "platform" / "environments" / "laptop.yaml")


def rendered(step: str, kind: str, name: str = "") -> Any:
    os.environ["HELM"] = str(binaries.paths(["helm"])["helm"])
    (source,) = [one.source for one in plan(ENVIRONMENT) if one.name == step]
    assert isinstance(source, Chart)
    renderer = Renderer(root=ROOT, kubernetes=ENVIRONMENT.versions.kubernetes, offline=True)
    return next(thing for thing in renderer.templates(source) if (thing["kind"], thing["metadata"]["name"]) == (kind, name or step))


def secret(name: str, port: int) -> Object:
    """As it would be in the cluster, with the database here."""
    (wanted,) = [each for each in secret_objects(ENVIRONMENT) if each.name == name]
    values = {variable: password_of(credential.name) for variable, credential in wanted.sources.items()}
    text = json.dumps(shape(wanted, values)).replace("postgresql.databases.svc:5432", f"127.0.0.1:{port}")
    found: Object = json.loads(text)["stringData"]
    return found


def password_of(credential: str) -> str:
    return f"word{credential.replace('-', '')}0123456789"


def make_users(folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    """The script of the chart's second container, in this machine's folders."""
    script = rendered("postgresql", "ConfigMap", "postgresql-users")["data"]["users.sh"]
    for there, here in (("/admin/", f"{folder}/admin/"), ("/passwords/", f"{folder}/passwords/"), ("/tmp/done", f"{folder}/done")):
        script = script.replace(there, here)
    script = script.replace("PGUSER=postgres", "PGUSER=owner PGDATABASE=postgres").replace("sleep infinity &", "exit 0")
    settings = os.environ | {"PGPORT": str(port), "DATABASES": " ".join(databases(ENVIRONMENT))}
    return subprocess.run(["sh", "-c", script], env=settings, capture_output=True, text=True, check=False, timeout=60)


def run_script(name: str, folder: Path, port: int, **settings: str) -> subprocess.CompletedProcess[str]:
    """One of the chart's scripts about backups, in this machine's folders."""
    script = rendered("postgresql", "ConfigMap", "postgresql-backup")["data"][f"{name}.sh"]
    script = (
        script.replace("/admin/", f"{folder}/admin/").replace("/backups", f"{folder}/backups").replace("PGUSER=postgres", "PGUSER=owner")
    )
    told = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": str(port), "DATABASES": " ".join(databases(ENVIRONMENT)), **settings}
    return subprocess.run(["sh", "-c", script], env=told, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chart's pods see of files."""
    folder = tmp_path_factory.mktemp("postgresql")
    for name in ("admin", "passwords", "backups"):
        (folder / name).mkdir()
    return folder


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
        for name, word in secret("postgresql-users", port).items():
            (folder / "passwords" / name).write_text(word)
        again = make_users(folder, port)  # a changed password is taken up, and what is there stays
        assert again.returncode == 0, again.stderr
        assert (folder / "done").exists()
        yield port


@pytest.fixture(scope="module")
def registry(database: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """MLflow's server: its address, and the folder of its artifacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    (container,) = rendered("mlflow", "Deployment")["spec"]["template"]["spec"]["containers"]
    here = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--artifacts-destination=/artifacts": f"--artifacts-destination={folder / 'artifacts'}"}  # fmt: skip
    told = secret("mlflow-auth", database)
    (folder / "basic_auth.ini").write_text(str(told["basic_auth.ini"]))
    settings = {one["name"]: one["value"] for one in container["env"] if one.get("value") and one["name"] != "HOME"} | {
        "MLFLOW_BACKEND_STORE_URI": secret("mlflow-database", database)["url"],
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": told["session"],
    }
    assert settings.keys() <= {one["name"] for one in container["env"]}
    log, command = folder / "log", [sys.executable, "-m", "mlflow", "server", *(here.get(word, word) for word in container["args"])]
    with log.open("w") as said:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        programs.wait("MLflow", process, log, lambda: status(f"{address}/health") == 200, seconds=300)
        yield address, folder / "artifacts"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(url: str, body: bytes | None = None, *, user: str = "", method: str = "GET") -> Any:
    request = urllib.request.Request(url, data=body, method=method)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def status(url: str, **options: Any) -> int:
    with contextlib.suppress(OSError):
        try:
            ask(url, **options)
        except urllib.error.HTTPError as error:
            return error.code
        return 200
    return 0


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


def test_what_was_backed_up_comes_back_and_what_was_there_is_kept(registry: tuple[str, Path], database: int, place: Path) -> None:
    address, admin = registry[0], f"admin:{password_of('mlflow-admin')}"

    def make(name: str) -> None:
        ask(f"{address}/api/2.0/mlflow/registered-models/create", json.dumps({"name": name}).encode(), user=admin, method="POST")

    make("backed-up")
    (place / "backups" / ".2020-01-01T00-00-00Z").mkdir()  # of one that was killed
    for old in ("2020-01-02T00-00-00Z", "2020-01-03T00-00-00Z"):
        (place / "backups" / old).mkdir()
    done = run_script("backup", place, database, KEEP="2")
    assert done.returncode == 0, done.stderr
    assert "2020-01-03T00-00-00Z" in (kept := sorted(path.name for path in (place / "backups").iterdir()))
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


def test_a_dump_that_is_broken_changes_nothing(registry: tuple[str, Path], database: int, place: Path) -> None:
    address, admin = registry[0], f"admin:{password_of('mlflow-admin')}"
    before = names(address, admin)
    torn = place / "backups" / "2099-01-01T00-00-00Z"
    torn.mkdir()
    for name in databases(ENVIRONMENT):
        (torn / f"{name}.dump").write_bytes(b"PGDMP and no more")
    done = run_script("restore", place, database)
    assert (done.returncode != 0, "Nothing was changed." in done.stderr) == (True, True)
    assert names(address, admin) == before
    with create_engine(url_of(database), poolclass=NullPool).connect() as connection:
        there = set(connection.execute(text("select datname from pg_database")).scalars())
    assert not {name for name in there if "_restored_" in name}


def test_a_trigger_s_account_names_champions_of_its_models_and_of_no_others(
    registry: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = registry
    admin = f"admin:{password_of('mlflow-admin')}"

    def tell(what: str, api: str = "2.0", **said: object) -> None:
        ask(f"{address}/api/{api}/mlflow/{what}", json.dumps(said).encode(), user=admin, method="POST")

    for model in ("scam", "churn"):
        tell("registered-models/create", name=model)
        tell("model-versions/create", name=model, source="s3://models/1", tags=[{"key": "run_id", "value": "a-run"}])
        tell("registered-models/alias", name=model, alias="challenger", version="1")
    # As docs/platform.md says it.
    tell("users/create", username="retraining-fraud", password="a0word0for0it")
    granted = {"resource_type": "registered_model", "resource_id": "scam", "permission": "MANAGE"}
    tell("users/permissions/grant", api="3.0", username="retraining-fraud", **granted)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "retraining-fraud")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a0word0for0it")
    known = Registry(address)
    for model in ("scam", "churn"):
        assert known.version_of_run(model, "a-run") == 1
    known.promote("scam", 1)
    assert known.aliases("scam") == {"champion": 1}
    with pytest.raises(Unavailable, match="did not answer"):
        known.promote("churn", 1)
    assert known.aliases("churn") == {"challenger": 1}
