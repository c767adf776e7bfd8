"""Put the blessed model where servers look, after checking that it answers as the trained one did.

The store (`mlserving.store`) makes a copy that servers do not see yet. Here that copy is restored as a server restores it, held
against the trained model row by row, given the requests that travel with it, and asked those too. Then the store makes it
visible by one rename, the registry's `champion` moves, and old versions go. Killed anywhere in between, the next run deletes
what was half copied, finds the version already there, or moves the alias: never half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.artifacts import Model, TestSet
from mlpipelines.errors import ConfigError, Conflict, MillraceError, ModelRejected, Unavailable
from mlpipelines.evaluation.answers import Outputs
from mlpipelines.evaluation.served_model import answer_rows, load_model
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.publishing import registry
from mlpipelines.publishing.parity import compare_answers
from mlpipelines.publishing.warmup import write_requests
from mlpipelines.publishing.watching import write_watching
from mlpipelines.workspace import Workspace
from mlserving import errors as serving_errors
from mlserving.store import prune, publish_version

_OURS: dict[type[serving_errors.ServingError], type[MillraceError]] = {
    serving_errors.ConfigError: ConfigError,
    serving_errors.Conflict: Conflict,
    serving_errors.Unavailable: Unavailable,
}


def publish(
    *, project: Project, workspace: Workspace, data: Path, test: Path, model: Path, statistics: Path, evaluation: Path, version: int
) -> Path:
    """Publish the model as `<store>/<model>/<version>` and make it the champion.

    On the track `canary` the alias `champion` stays where it is, unless there is none: a rollout promotes the version.

    Args:
        project: its features and its deployment section count.
        workspace: model store and registry.
        data: the `Data` artifact that it learned from.
        test: the `TestSet` artifact; warm-up and golden requests are rows of it.
        model: the `Model` artifact.
        statistics: the `Statistics` artifact of the rows that it learned from; they travel with the version.
        evaluation: the `Evaluation` artifact; so does how the model answered there.
        version: its number in the registry.

    Returns:
        The version's folder.

    Raises:
        Conflict: the version is there with another content.
        ModelRejected: the exported model answers differently from the trained one, or cannot be served.
        Unavailable: the disk is full, or the registry does not answer.
    """
    store, name = workspace.model_store, project.model_name
    reference, first = pq.read_table(Model(model).reference), _first_rows(TestSet(test).rows, project.deployment.warmup_requests)
    progress("copying the model into the store", 0.0)
    with _translated():
        target = publish_version(
            store,
            name,
            version,
            Model(model).saved_model,
            lambda copied: _complete(project, copied, reference, first, data=data, statistics=statistics, evaluation=evaluation),
        )
    progress("published; moving the alias", 0.9)
    if project.deployment.track == "stable" or registry.champion_of(workspace, name) is None:
        registry.promote(workspace, name, version)
    with _translated():
        pruned = prune(store, name, project.deployment.keep_versions, {version, *registry.aliases_of(workspace, name).values()})
    note(published=str(target), pruned=pruned, summary=f"{name} version {version} in {target}")
    return target


def _complete(project: Project, copied: Path, reference: pa.Table, first: pa.Table, **learned_from: Path) -> None:
    _check_and_complete(project, copied, reference, first)
    progress("describing what it learned from and how it answers", 0.8)
    write_watching(copied, project, **learned_from)


def _check_and_complete(project: Project, copied: Path, reference: pa.Table, first: pa.Table) -> None:
    """Hold the copy against the trained model, and add the requests that travel with it."""
    from mlserving.server.warmup import warm_up

    with load_model(copied) as served:
        progress("comparing the exported model with the trained one", 0.3)
        require_parity(reference, answer_rows(served, project, reference))
        progress("writing warm-up and golden requests", 0.7)
        write_requests(copied, served, project, project.model_name, first)
        try:
            warm_up(served.servable, copied)
        except serving_errors.Unavailable as error:
            raise ModelRejected(f"{error} No server would load it. Nothing was published. Run `millrace run --no-cache` again.") from error


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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The store's errors as ours."""
    try:
        yield
    except serving_errors.ServingError as error:
        raise _OURS.get(type(error), Unavailable)(str(error)) from error
