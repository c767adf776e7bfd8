"""Where everything lies that outlives a run, on one machine or on a volume that the pods share.

One folder, told by `--workspace`, `MILLRACE_WORKSPACE` or `.millrace` in the current folder. Nothing else in the code
joins these paths by itself. Writers go through `write_whole` and `create_folder`: a reader, or the next run after a
SIGKILL, sees the old content or the new one, never half.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpipelines.errors import Conflict
from mlserving.workspace import model_store, registry_uri, workspace_folder, write_whole


@dataclass(frozen=True, slots=True)
class ProjectState:
    """What one project keeps between runs, below `workspace/projects/<name>`."""

    root: Path

    @property
    def sealed(self) -> Path:
        """The sealed test set: `test.parquet`, `keys.parquet`, `manifest.json`. Written once, by the first run."""
        return self.root / "sealed"

    @property
    def rows(self) -> Path:
        """What an incremental source has read so far, and `watermark.json`."""
        return self.root / "rows"

    @property
    def proposed_schema(self) -> Path:
        """The schema that `validate` proposes where the project has none."""
        return self.root / "proposed_schema.pbtxt"

    @property
    def accepted_statistics(self) -> Path:
        """`<data hash>/` with statistics and manifest of each data set that `validate` let through; `current.json` names the last."""
        return self.root / "accepted"

    @property
    def analyzer_cache(self) -> Path:
        """TensorFlow Transform's analyzer results, by span content."""
        return self.root / "analyzers"

    @property
    def checkpoints(self) -> Path:
        """Of trainings that have not finished, by fingerprint."""
        return self.root / "checkpoints"

    @property
    def gpu_time(self) -> Path:
        """Who held how many GPUs from when to when, a folder for each run. See `gpu_time`."""
        return self.root / "gpu_time"

    @property
    def cache(self) -> Path:
        """Results of steps, by their inputs (kfp.local's cache)."""
        return self.root / "cache"

    @property
    def runs(self) -> Path:
        """One folder for each run."""
        return self.root / "runs"

    @property
    def lock(self) -> Path:
        """Held by the run that is open on this project."""
        return self.root / "lock"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder and its parts."""

    root: Path

    def project(self, name: str) -> ProjectState:
        """The state of the project `name`."""
        return ProjectState(self.projects / name)

    @property
    def projects(self) -> Path:
        """What runs keep, a folder for each project."""
        return self.root / "projects"

    @property
    def model_store(self) -> Path:
        """`<model>/<version>/saved_model.pb`, the layout that TensorFlow Serving reads."""
        return model_store(self.root)

    @property
    def predictions(self) -> Path:
        """The prediction log, and the labels that came for it."""
        return self.root / "predictions"

    @property
    def registry_uri(self) -> str:
        """MLflow's address: SQLite in the workspace, unless MLFLOW_TRACKING_URI names a server."""
        return registry_uri(self.root)

    @property
    def registry_artifacts(self) -> Path:
        """Where MLflow keeps files when it is embedded."""
        return self.root / "mlartifacts"


def find_workspace(argument: str | Path | None = None) -> Workspace:
    """The workspace that a command means: its argument, else the environment's, else `.millrace` here."""
    return Workspace(workspace_folder(argument))


def create_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder beside `path`, then rename it there. What is never replaced is never half replaced.

    Raises:
        Conflict: `path` is there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir()
        write(fresh)
        if path.exists():
            raise Conflict(f"{path} is there already; it is written once and never replaced.")
        try:
            fresh.rename(path)
        except OSError as error:  # somebody else created it since the line above
            if path.exists():
                raise Conflict(f"{path} is there already; it is written once and never replaced.") from error
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, written whole."""
    write_whole(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
