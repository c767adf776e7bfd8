"""Where state lies on one machine: the folder that `--workspace` or MILLRACE_WORKSPACE names, else `.millrace` here.

Serving's part of it: `models/` (the store), `predictions/`, and `serving/` with `gateway.yaml`, the wanted tracks of each model and the database.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def named_workspace(argument: str | Path | None = None) -> Path:
    """The workspace that a command means, as it was named."""
    return Path(argument or os.environ.get("MILLRACE_WORKSPACE") or ".millrace")


def workspace_folder(argument: str | Path | None = None) -> Path:
    """The same, wherever one goes from here."""
    return named_workspace(argument).absolute()


def named_store(store: str | Path | None, workspace: str | Path | None) -> Path:
    """The model store that a command means: the one that is typed, else that of a workspace that is typed, else MILLRACE_MODEL_STORE."""
    return Path(store or (None if workspace else os.environ.get("MILLRACE_MODEL_STORE")) or named_workspace(workspace) / "models")


def model_store(workspace: Path) -> Path:
    """Where versions are published."""
    return Path(os.environ.get("MILLRACE_MODEL_STORE") or workspace / "models").absolute()


def serving_folder(workspace: Path) -> Path:
    """Where the state of what is served lies."""
    return workspace / "serving"


def registry_uri(workspace: Path) -> str:
    """MLflow's address: SQLite in the workspace, unless MLFLOW_TRACKING_URI names a server."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace / 'mlflow.db'}"


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that readers, and whoever comes after a crash, see the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with fresh.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only one who changes `path`, by a lock file beside it that the kernel frees when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
