"""The way into MLflow: the client, its errors as ours, and the one MLflow run that a pipeline run has.

MLflow runs embedded on SQLite unless MLFLOW_TRACKING_URI names a server. Importing it takes seconds, so it is imported on
the first call. What is kept there, and under which names, is told in `registry.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.workspace import Workspace
from mlserving import errors as serving_errors
from mlserving.rollout import aliases

RUN_TAG = "millrace.run_id"
_LONGEST_VALUE = 5000
_PARAMS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """What is known of one pipeline run when it is entered."""

    project: str
    run_id: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


def client_of(workspace: Workspace) -> Any:
    """The client, one a process and address."""
    if _embedded(workspace):
        workspace.root.mkdir(parents=True, exist_ok=True)
    return aliases.client_at(workspace.registry_uri)


def _embedded(workspace: Workspace) -> bool:
    return workspace.registry_uri.startswith("sqlite:")


def is_there(workspace: Workspace) -> bool:
    """Whether looking would not create an empty database."""
    return aliases.is_there(workspace.registry_uri)


@contextlib.contextmanager
def translated(workspace: Workspace) -> Iterator[None]:
    """MLflow's errors as ours.

    Raises:
        Unavailable: it did not answer, or not to this password.
        ConfigError: this account may not do that.
    """
    try:
        with aliases.translated(workspace.registry_uri):
            yield
    except serving_errors.Unavailable as error:
        raise Unavailable(str(error)) from error
    except serving_errors.ConfigError as error:
        raise ConfigError(str(error)) from error


def _experiment(workspace: Workspace, project: str) -> str:
    client = client_of(workspace)
    found = client.get_experiment_by_name(project)
    if found is not None:
        return str(found.experiment_id)
    location = (workspace.registry_artifacts / project).absolute().as_uri() if _embedded(workspace) else None
    return str(client.create_experiment(project, artifact_location=location))


def find_run(workspace: Workspace, run_id: str, experiments: list[str]) -> Any:
    """The MLflow run of a pipeline run, in one of the experiments; None if it was never entered."""
    found = client_of(workspace).search_runs(experiments, f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1) if experiments else []
    return found[0] if found else None


def run_for(workspace: Workspace, project: str, run_id: str) -> Any:
    """The MLflow run of a pipeline run; a new one the first time."""
    experiment = _experiment(workspace, project)
    return find_run(workspace, run_id, [experiment]) or client_of(workspace).create_run(experiment, run_name=run_id, tags={RUN_TAG: run_id})


def log_entry(client: Any, run: str, entry: RunEntry) -> None:
    """Parameters, metrics and tags into an MLflow run."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    known = client.get_run(run).data.params  # a parameter is written once
    params = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in entry.params.items() if name not in known]
    metrics = [Metric(name, float(value), now, 0) for name, value in entry.metrics.items()]
    client.log_batch(run, metrics=metrics, tags=[RunTag(name, str(value)[:_LONGEST_VALUE]) for name, value in entry.tags.items()])
    for start in range(0, len(params), _PARAMS_AT_ONCE):
        client.log_batch(run, params=params[start : start + _PARAMS_AT_ONCE])


def log_files(client: Any, run: str, path: Path, folder: str) -> None:
    """A file, or what a folder holds, into `folder` of the run's artifacts ("" for the top)."""
    if path.is_dir():
        client.log_artifacts(run, str(path), folder or None)
    else:
        client.log_artifact(run, str(path), folder or None)
