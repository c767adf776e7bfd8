"""The registry and the record of runs: what Millrace keeps in MLflow, and under which names.

One MLflow experiment for each project, one MLflow run for each pipeline run, one registered model for each model name.
Models are logged as plain files, so that MLflow neither loads them nor guesses what they need installed.

What the aliases mean, and how they move, is in `mlserving.rollout.aliases`: a rollout moves them too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.publishing.mlflow_runs import RUN_TAG, RunEntry, client_of, find_run, is_there, log_entry, log_files, run_for, translated
from mlpipelines.workspace import Workspace
from mlserving.rollout import aliases
from mlserving.rollout.aliases import CHALLENGER, CHAMPION

FINGERPRINT = "model_fingerprint"
TRAINING_FINGERPRINT = "training_fingerprint"
MODEL_FOLDER = "saved_model"
TRAINED_FOLDER = "trained"
TRAINED_VERSION = "trained_version"
"""The tag that names the version whose training a version reuses."""
_SHOWN_OF_HASH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """One version of a registered model."""

    model: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str
    """Where the registry keeps the SavedModel."""
    created_ms: int


def champion_of(workspace: Workspace, model: str) -> RegisteredVersion | None:
    """The version that carries the alias `champion`; None before the first one."""
    return _by_alias(workspace, model, CHAMPION)


def aliases_of(workspace: Workspace, model: str) -> dict[str, int]:
    """Which version carries which alias; empty before the first one."""
    if not is_there(workspace):
        return {}
    with translated(workspace):
        return {alias: entry.version for entry in _versions(workspace, model) for alias in entry.aliases}


def version_of(workspace: Workspace, model: str, version: int) -> RegisteredVersion:
    """One version.

    Raises:
        ConfigError: it is not registered.
    """
    found = next((entry for entry in _versions(workspace, model) if entry.version == version), None)
    if found is None:
        raise ConfigError(f"The registry has no version {version} of {model}. `millrace models {model}` lists what there is.")
    return found


def newest_version(workspace: Workspace, model: str) -> RegisteredVersion | None:
    """The version that was registered last."""
    return max(_versions(workspace, model), key=lambda entry: entry.version, default=None)


def record_run(workspace: Workspace, entry: RunEntry, files: Mapping[Path, str]) -> str:
    """Enter a pipeline run: parameters, metrics, tags and files. Doing it again adds to the same MLflow run.

    Args:
        workspace: where the registry is.
        entry: what is known.
        files: file or folder to the folder it gets in the run's artifacts ("" for the top).

    Returns:
        MLflow's id of the run.
    """
    with translated(workspace):
        run = run_for(workspace, entry.project, entry.run_id)
        log_entry(client_of(workspace), run.info.run_id, entry)
        for path, folder in files.items():
            log_files(client_of(workspace), run.info.run_id, path, folder)
        client_of(workspace).set_terminated(run.info.run_id)
        return str(run.info.run_id)


def register_version(
    workspace: Workspace,
    *,
    project: str,
    model: str,
    run_id: str,
    saved_model: Path,
    trained: Path | None = None,
    tags: Mapping[str, str],
    description: str,
) -> int:
    """Register the SavedModel, and beside it what its training left, as the next version and give it the alias `challenger`.

    If the newest version has the same `model_fingerprint`, it is that version: a run that was killed here and started
    again does not register twice.
    """
    with translated(workspace):
        newest = newest_version(workspace, model)
        if newest is not None and newest.tags.get(FINGERPRINT) == tags[FINGERPRINT]:
            version = newest.version
        else:
            files = {MODEL_FOLDER: saved_model} | ({TRAINED_FOLDER: trained} if trained is not None and trained.is_dir() else {})
            version = _create_version(workspace, project, model, run_id=run_id, files=files, tags=tags, description=description)
        if CHAMPION not in (newest.aliases if newest is not None and newest.version == version else ()):
            client_of(workspace).set_registered_model_alias(model, CHALLENGER, str(version))
        return version


def promote(workspace: Workspace, model: str, version: int) -> None:
    """Move `champion` to `version` and `previous` to the champion before it; `challenger` has done its work."""
    with translated(workspace):
        aliases.promote(client_of(workspace), model, version)


def model_files(workspace: Workspace, version: RegisteredVersion) -> Path:
    """The version's SavedModel as a local folder: in the model store, else from the registry's artifacts.

    Raises:
        Unavailable: it is in neither.
    """
    stored = workspace.model_store / version.model / str(version.version)
    if (stored / "saved_model.pb").is_file():
        return stored
    kept = local_folder(workspace, version.source)
    if not (kept / "saved_model.pb").is_file():
        raise Unavailable(
            f"Version {version.version} of {version.model} is the champion, but its files are neither in {stored} nor in {kept}. "
            f"Restore one of them from a backup, then run `millrace run` again."
        )
    return kept


def local_folder(workspace: Workspace, source: str) -> Path:
    """A folder of the registry's artifacts on this machine: where it lies, or fetched. A file system's may not be there.

    Raises:
        Unavailable: the registry does not answer.
    """
    if urlparse(source).scheme in ("", "file"):
        return Path(unquote(urlparse(source).path))
    with translated(workspace):
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(source, tracking_uri=workspace.registry_uri))


def log_failed_run(*, workspace: Workspace, project: str, run_id: str, reason: str, message: str) -> None:
    """Enter a run that ended before it could be evaluated, as failed."""
    with translated(workspace):
        run = run_for(workspace, project, run_id)
        entry = RunEntry(
            project=project, run_id=run_id, params={}, metrics={}, tags={"reason": reason, "message": message, "outcome": "failed"}
        )
        log_entry(client_of(workspace), run.info.run_id, entry)
        client_of(workspace).set_terminated(run.info.run_id, status="FAILED")


def list_models(workspace: Workspace) -> list[dict[str, Any]]:
    """Every registered model, with its champion."""
    if not is_there(workspace):
        return []
    with translated(workspace):
        names = sorted(found.name for found in client_of(workspace).search_registered_models(max_results=1000))
        return [_model_row(workspace, name) for name in names]


def list_versions(workspace: Workspace, model: str) -> list[dict[str, Any]]:
    """The versions of a model, newest first: aliases, when, the deciding metric, verdict and lineage.

    Raises:
        ConfigError: there is no such model.
    """
    with translated(workspace):
        found = sorted(_versions(workspace, model), key=lambda entry: -entry.version) if is_there(workspace) else []
        if not found:
            known = ", ".join(row["model"] for row in list_models(workspace)) or "none yet"
            raise ConfigError(f"There is no model {model!r} in the registry, only: {known}. `millrace models` lists them.")
        return [_version_row(entry) for entry in found]


def compare_runs(workspace: Workspace, run_ids: list[str]) -> list[dict[str, Any]]:
    """What is recorded of each run, in the order asked for: data, parameters, metrics, time, memory.

    Raises:
        ConfigError: a run was never entered.
    """
    with translated(workspace):
        return [_run_row(workspace, run_id) for run_id in run_ids]


def _create_version(
    workspace: Workspace,
    project: str,
    model: str,
    *,
    run_id: str,
    files: Mapping[str, Path],
    tags: Mapping[str, str],
    description: str,
) -> int:
    from mlflow.exceptions import MlflowException

    client, run = client_of(workspace), run_for(workspace, project, run_id)
    for folder, content in files.items():
        log_files(client, run.info.run_id, content, folder)
    try:
        client.create_registered_model(model, tags={"project": project})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/{MODEL_FOLDER}"
    created = client.create_model_version(model, source=source, run_id=run.info.run_id, tags=dict(tags), description=description)
    return int(created.version)


def _by_alias(workspace: Workspace, model: str, alias: str) -> RegisteredVersion | None:
    if not is_there(workspace):
        return None
    return next((entry for entry in _versions(workspace, model) if alias in entry.aliases), None)


def _versions(workspace: Workspace, model: str) -> list[RegisteredVersion]:
    """All versions with their aliases (a search leaves them out)."""
    with translated(workspace):
        from_search = client_of(workspace).search_model_versions(f"name='{model}'", max_results=10_000)
        if not from_search:
            return []
        named = client_of(workspace).get_registered_model(model).aliases
        return [_entry(found, named) for found in from_search]


def _entry(found: Any, aliases: Mapping[str, Any]) -> RegisteredVersion:
    version = int(found.version)
    return RegisteredVersion(
        model=found.name,
        version=version,
        aliases=tuple(sorted(name for name, of in aliases.items() if int(of) == version)),
        tags=dict(found.tags),
        source=found.source,
        created_ms=found.creation_timestamp,
    )


def _model_row(workspace: Workspace, name: str) -> dict[str, Any]:
    found = _versions(workspace, name)
    champion = next((entry for entry in found if CHAMPION in entry.aliases), None)
    tags = champion.tags if champion else {}
    return {
        "model": name,
        "versions": len(found),
        "champion": champion.version if champion else None,
        "metric": _metric_of(tags),
        "published": tags.get("published", ""),
        "verdict": tags.get("verdict", ""),
    }


def _version_row(entry: RegisteredVersion) -> dict[str, Any]:
    tags = entry.tags
    return {
        "version": entry.version,
        "aliases": ", ".join(entry.aliases),
        "created": _utc(entry.created_ms),
        "metric": _metric_of(tags),
        "data": tags.get("data_hash", "")[:_SHOWN_OF_HASH],
        "schema": tags.get("schema_hash", "")[:_SHOWN_OF_HASH],
        "code": tags.get("lineage.commit", "")[:_SHOWN_OF_HASH],
        "trained as": tags.get(TRAINED_VERSION) or str(entry.version),
        "run": tags.get("run_id", ""),
        "verdict": tags.get("verdict", ""),
    }


def _metric_of(tags: Mapping[str, str]) -> str:
    return f"{tags['metric']} {tags['metric_value']}" if "metric" in tags else ""


def _run_row(workspace: Workspace, run_id: str) -> dict[str, Any]:
    experiments = [found.experiment_id for found in client_of(workspace).search_experiments()] if is_there(workspace) else []
    run = find_run(workspace, run_id, experiments)
    if run is None:
        raise ConfigError(f"The run {run_id} was never entered in the registry: it ended before `evaluate`. `millrace runs` lists runs.")
    tags = {name: _shortened(value) for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    facts = {"run": run_id, "started": _utc(run.info.start_time), **_sorted(tags, skip={RUN_TAG})}
    return (
        facts | {f"param {k}": v for k, v in _sorted(run.data.params).items()} | _sorted(run.data.metrics) | _costs(workspace, tags, run_id)
    )


def _shortened(value: str) -> str:
    """The beginning of a hash; any other text as it is."""
    return value[:_SHOWN_OF_HASH] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def _costs(workspace: Workspace, tags: Mapping[str, str], run_id: str) -> dict[str, Any]:
    """Seconds and peak memory of each step that really ran, where this machine has the run's folder."""
    from mlpipelines.runs import fold, read_events

    steps = fold(read_events(workspace.project(tags.get("project", "")).runs / run_id)[0]).values()
    ran = [step for step in steps if step.status == "done"]
    return {f"{s.step} seconds": round(s.seconds, 1) for s in ran} | {f"{s.step} peak MB": round(s.peak_mb) for s in ran}


def _sorted(values: Mapping[str, Any], skip: Collection[str] = ()) -> dict[str, Any]:
    return {name: values[name] for name in sorted(values) if name not in skip}


def _utc(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(milliseconds / 1000)) + " UTC"
