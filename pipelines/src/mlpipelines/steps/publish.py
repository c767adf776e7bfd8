"""Put the blessed model where servers look, after checking that it answers as the trained one did.

Everything is prepared in a staging folder beside the model folders (its name starts with a dot: servers ignore it): a copy
of the model, warm-up requests and golden requests from test rows, and the parity check on that copy. Then one rename makes
the version visible, old versions go, and, last of all, the registry's `champion` moves. Killed anywhere in between, the next
run starts the staging anew, finds the version already there, or moves the alias: never half.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines import registry
from mlpipelines.answers import Outputs
from mlpipelines.artifacts import Model, TestSet
from mlpipelines.errors import ConfigError, Conflict, MillraceError, ModelRejected, Unavailable
from mlpipelines.parity import compare_answers
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.served_model import EXTRA, answer_rows, fingerprint, load_model
from mlpipelines.warmup import write_requests
from mlpipelines.workspace import Workspace
from mlserving import errors as serving_errors
from mlserving.store import prune, publish_version, versions

STAGING = ".staging"
_OURS: dict[type[serving_errors.ServingError], type[MillraceError]] = {
    serving_errors.ConfigError: ConfigError,
    serving_errors.Conflict: Conflict,
    serving_errors.Unavailable: Unavailable,
}


def publish(*, project: Project, workspace: Workspace, test: Path, model: Path, version: int) -> Path:
    """Publish the model as `<store>/<model>/<version>` and make it the champion.

    On the track `canary` the alias `champion` stays where it is, unless there is none: a rollout promotes the version.

    Args:
        project: its features and its deployment section count.
        workspace: model store and registry.
        test: the `TestSet` artifact; warm-up and golden requests are rows of it.
        model: the `Model` artifact.
        version: its number in the registry.

    Returns:
        The version's folder.

    Raises:
        Conflict: the version is there with another content.
        ModelRejected: the exported model answers differently from the trained one.
        Unavailable: the disk is full, or the registry does not answer.
    """
    store, name = workspace.model_store, project.model_name
    with _translated():
        if version in versions(store, name):
            target = _same_or_conflict(store / name / str(version), Model(model).saved_model)
        else:
            with _staging(store, name) as staged:
                _prepare(project, name, staged, test, model)
                progress("publishing", 0.9)
                target = publish_version(store, name, version, staged)
        champion = registry.champion_of(workspace, name)
        keep = {version, *([champion.version] if champion else [])}
        pruned = prune(store, name, project.deployment.keep_versions, keep)
    if project.deployment.track == "stable" or champion is None:
        registry.promote(workspace, name, version)
    note(published=str(target), pruned=pruned, summary=f"{name} version {version} in {target}")
    return target


def _prepare(project: Project, name: str, staged: Path, test: Path, model: Path) -> None:
    """Copy the model, hold it against the trained one, and add the requests that travel with it."""
    progress("copying the model beside the store", 0.0)
    shutil.copytree(Model(model).saved_model, staged)
    served = load_model(staged)
    progress("comparing the exported model with the trained one", 0.3)
    reference = pq.read_table(Model(model).reference)
    require_parity(reference, answer_rows(served, project, reference))
    progress("writing warm-up and golden requests", 0.7)
    write_requests(staged / EXTRA, served, project, name, _first_rows(TestSet(test).rows, project.deployment.warmup_requests))


def require_parity(reference: pa.Table, answers: Outputs) -> None:
    """Refuse a model that answers the reference rows differently from the model that was trained.

    Raises:
        ModelRejected: with a table of the outputs that differ.
    """
    found = compare_answers(reference, answers)
    apart = [agreement for agreement in found if agreement.differing]
    if not found or not len(reference):
        raise ModelRejected("There is no reference to compare the exported model with. Train again: `millrace run --no-cache`.")
    note(parity=f"{len(reference):,} rows, largest difference {max(agreement.worst for agreement in found):.1e}")
    if apart:
        worst = max(apart, key=lambda agreement: agreement.worst)
        raise ModelRejected(
            f"The exported model answers differently from the trained one: {', '.join(f'{a.output!r} in {a.differing:,} of {a.rows:,} rows' for a in apart)} "
            f"({worst.example}). Nothing was published. Look for what features.py or model.py compute outside the graph, then `millrace run` again.",
            report=[agreement.as_row() for agreement in found],
        )


def _first_rows(file: Path, count: int) -> pa.Table:
    batches = pq.ParquetFile(file).iter_batches(batch_size=count)
    return pa.Table.from_batches([next(batches)])


def _same_or_conflict(target: Path, source: Path) -> Path:
    if fingerprint(target) != fingerprint(source):
        raise Conflict(f"{target} is there already with another model, and a published version never changes. Run `millrace run` again.")
    return target


@contextlib.contextmanager
def _staging(store: Path, model: str) -> Iterator[Path]:
    """A folder on the store's file system for one publisher at a time; what a killed one left there is deleted first."""
    folder = store / STAGING
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{model}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staged = folder / model
        shutil.rmtree(staged, ignore_errors=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The store's and the disk's errors as ours."""
    try:
        yield
    except serving_errors.ServingError as error:
        raise _OURS.get(type(error), Unavailable)(str(error)) from error
    except OSError as error:
        raise Unavailable(
            f"The model could not be copied into the model store: {error.strerror or error}. Nothing was published. "
            "Free some space and run `millrace run` again."
        ) from error
