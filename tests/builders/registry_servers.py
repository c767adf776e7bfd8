"""MLflow's server as `helm/mlflow` starts it, on this machine: the chart's arguments and environment, and the Secrets' texts with credentials that tests know."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import binaries
import programs
from control_plane import free_ports
from mlplatform.cluster.objects import Object
from mlplatform.cluster.rendering import Renderer, shape
from mlplatform.environment import Environment
from mlplatform.plan.credentials import secret_objects
from mlplatform.plan.order import plan
from mlplatform.plan.steps import Chart
from raw_answers import status
from typed_platform import ROOT


def password_of(credential: str) -> str:
    """What a test keeps under that name."""
    return f"word{credential.replace('-', '')}0123456789"


@cache
def _templates(text: str, step: str) -> list[Object]:
    environment = Environment.model_validate_json(text)
    (source,) = [one.source for one in plan(environment) if one.name == step]
    assert isinstance(source, Chart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELM", str(binaries.paths(["helm"])["helm"]))
        return Renderer(root=ROOT, kubernetes=environment.versions.kubernetes, offline=True).templates(source)


def rendered(environment: Environment, step: str, kind: str, name: str = "") -> Any:
    """An object of one of the environment's charts."""
    things = _templates(environment.model_dump_json(), step)
    return next(thing for thing in things if (thing["kind"], thing["metadata"]["name"]) == (kind, name or step))


def secret(environment: Environment, name: str, *, postgresql: str = "", namespace: str = "") -> Object:
    """A Secret's texts as they would be in the cluster, with the database at `postgresql` (HOST:PORT)."""
    wanted = next(each for each in secret_objects(environment) if each.name == name and namespace in ("", each.namespace))
    values = {variable: password_of(credential.name) for variable, credential in wanted.sources.items()}
    text = json.dumps(shape(wanted, values)).replace("postgresql.databases.svc:5432", postgresql)
    found: Object = json.loads(text)["stringData"]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Databases:
    """Where a server keeps things, as SQLAlchemy's addresses."""

    models: str
    permissions: str


def in_folder(folder: Path) -> Databases:
    """SQLite, beside each other."""
    return Databases(models=f"sqlite:///{folder}/mlflow.db", permissions=f"sqlite:///{folder}/auth.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that answers."""

    address: str
    folder: Path
    settings: dict[str, str]

    @property
    def artifacts(self) -> Path:
        """Where it keeps files."""
        return self.folder / "artifacts"


@contextlib.contextmanager
def mlflow_server(environment: Environment, folder: Path, databases: Databases, *, admin: str = "", **more: str) -> Iterator[Served]:
    """One, for as long as it is needed; `admin` is the administrator's password, `more` is laid over its environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    pod = rendered(environment, "mlflow", "Deployment")["spec"]["template"]["spec"]
    (container,), (administrator,) = pod["containers"], pod["initContainers"]
    here = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--artifacts-destination=/artifacts": f"--artifacts-destination={folder / 'artifacts'}"}  # fmt: skip
    settings = {one["name"]: one["value"] for one in container["env"] if one.get("value") and one["name"] != "HOME"} | {
        "MLFLOW_BACKEND_STORE_URI": databases.models,
        "MLFLOW_AUTH_CONFIG_PATH": str(_settings_file(environment, folder, databases, admin)),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs sessions in tests",
    }
    assert settings.keys() <= {one["name"] for one in container["env"]}
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | settings | more
    done = subprocess.run([sys.executable, *administrator["command"][1:]], env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    log, command = folder / "log", [sys.executable, "-m", "mlflow", "server", *(here.get(word, word) for word in container["args"])]
    with log.open("a") as said:
        said.write(done.stdout)
        said.flush()
        process = subprocess.Popen(command, env=surroundings, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        programs.wait("MLflow", process, log, lambda: status(f"{address}/health") == 200, seconds=300)
        yield Served(address=address, folder=folder, settings=settings)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _settings_file(environment: Environment, folder: Path, databases: Databases, admin: str) -> Path:
    """basic_auth.ini of the Secret, about this machine."""
    lines = str(secret(environment, "mlflow-auth")["basic_auth.ini"]).splitlines()
    here = {"database_uri": databases.permissions.replace("%", "%%")} | ({"admin_password": admin} if admin else {})
    named = {line.partition(" = ")[0]: line for line in lines} | {name: f"{name} = {value}" for name, value in here.items()}
    file = folder / "basic_auth.ini"
    file.write_text("\n".join(named.values()) + "\n")
    return file
