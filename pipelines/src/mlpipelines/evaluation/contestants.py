"""Challenger and opponent, asked about the same sealed rows: the adapter part of `evaluate`.

The opponent is the registry's champion; where the challenger *is* the champion, its answers count for both, and a model that
answers every row as the champion does is nothing new either (the same rows trained again). With no champion yet the opponent is the project's baseline, counted from the training rows. What comes out is a `Contest`, and `judge.py` goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlpipelines.artifacts import Data, Model
from mlpipelines.errors import DataRejected
from mlpipelines.evaluation import baselines
from mlpipelines.evaluation.answers import Outputs, read_answers, read_truth, space_of
from mlpipelines.evaluation.capacity import places_for
from mlpipelines.evaluation.judge import Contest, Measured
from mlpipelines.evaluation.planted import PLANTED, with_planted
from mlpipelines.evaluation.served_model import ServedModel, answer_rows, fingerprint, load_model, median_latency, size_mb
from mlpipelines.evaluation.verdict import Opponent
from mlpipelines.project import Label, Project
from mlpipelines.publishing import registry
from mlpipelines.publishing.parity import TOLERANCE
from mlpipelines.publishing.registry import RegisteredVersion
from mlpipelines.workspace import Workspace, read_json

Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Who answered, and what."""

    opponent: Opponent
    outputs: Outputs
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The contest, and what else the step writes down."""

    contest: Contest
    outputs: Outputs
    """The challenger's answers."""
    fingerprint: str
    """Of the challenger."""


def judged_by(project: Project, file: Path) -> tuple[Project, pa.Table]:
    """The sealed rows that have a label; with no label in the project, all of them and planted ones (see `planted`).

    Returns:
        The project with the label that the rows are judged by, and the rows.

    Raises:
        DataRejected: the label column is missing, or no row has a label.
    """
    rows = pq.read_table(file)
    if project.label is None:
        return project.model_copy(update={"label": PLANTED}), with_planted(rows, project)
    label = project.label.column
    if label not in rows.column_names:
        raise DataRejected(
            f"{file} has no column {label!r}, the label: the test set was sealed without it, and it is never sealed twice. "
            "Start a new workspace with `millrace run PROJECT_DIR --workspace DIR`."
        )
    rows = rows.filter(pc.is_valid(rows[label]))
    if not len(rows):
        raise DataRejected(f"No row of {file} has a value in the label column {label!r}. Look at the source, then `millrace run` again.")
    return project, rows


def ask_both(
    project: Project, workspace: Workspace, rows: pa.Table, *, data: Path, model: Path, training_fingerprint: str, say: Say
) -> Asked:
    """Let challenger and opponent answer for `rows`.

    Args:
        project: its label, task, features and evaluation.
        workspace: where registry and model store are.
        rows: from `judged_by`, as `project` is.
        data: the `Data` artifact, for the baseline.
        model: the `Model` artifact, the challenger.
        training_fingerprint: of the challenger's training, "" if unknown.
        say: told what is being done, and which share of the asking is done.
    """
    assert project.label is not None
    say("loading the challenger", 0.0)
    with load_model(Model(model).saved_model) as challenger:
        outputs = answer_rows(challenger, project, rows, progress=lambda share: say("asking the challenger", 0.5 * share))
        measured = Measured(size_mb=size_mb(challenger.folder), latency_ms=median_latency(challenger, project, rows))
    own = fingerprint(challenger.folder)
    champion = registry.champion_of(workspace, project.model_name)
    unchanged = champion is not None and is_same(champion, own, training_fingerprint)
    if champion is None:
        side = _baseline(project, project.label, rows, data)
    else:
        side = _champion(champion, challenger, outputs) if unchanged else _ask_champion(project, workspace, champion, rows, say)
        knows_more = side.classes != challenger.classes or (project.training.reuse is not None and not _same_rows(champion, data))
        unchanged = unchanged or (not knows_more and same_answers(outputs, side.outputs))
    contest = _contest(project, rows, (outputs, challenger.classes), side, measured, unchanged=unchanged)
    return Asked(contest=contest, outputs=outputs, fingerprint=own)


def is_same(champion: RegisteredVersion, own: str, training: str) -> bool:
    """Whether a challenger is the champion itself: the same files, or the same training."""
    return champion.tags.get(registry.FINGERPRINT) == own or (
        bool(training) and champion.tags.get(registry.TRAINING_FINGERPRINT) == training
    )


def _same_rows(champion: RegisteredVersion, data: Path) -> bool:
    """Whether the champion was made of the rows in `data`. If not, labels were added or taken away, also where the sealed rows' answers stay."""
    manifest = Data(data).manifest
    return manifest.is_file() and champion.tags.get("data_hash") == read_json(manifest).get("content_hash")


def same_answers(ours: Outputs, theirs: Outputs) -> bool:
    """Whether two models answer every row alike: the same text, numbers within 1e-5. A training run again on the same rows does."""
    return set(ours) == set(theirs) and all(_alike(ours[name], theirs[name]) for name in ours)


def _alike(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    return bool(
        np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE) if np.issubdtype(ours.dtype, np.number) else (ours == theirs).all()
    )


def _contest(
    project: Project, rows: pa.Table, challenger: tuple[Outputs, tuple[str, ...]], side: Side, measured: Measured, *, unchanged: bool
) -> Contest:
    label, capacity = project.label, places_for(project.evaluation.capacity, rows[project.time] if project.time else None)
    assert label is not None
    labels = _flattened(rows[label.column]) if label.kind == "classes" else rows[label.column]
    named = [labels, *_names_in(side), *([pa.array(side.classes, pa.string())] if side.opponent.kind == "champion" else [])]
    space = space_of(challenger[1], named if label.kind in ("class", "classes") else [], label.other)
    truth, embeds = read_truth(label, rows[label.column], space), project.task == "similarity"
    return Contest(
        model=project.model_name,
        task=project.task,
        truth=truth,
        challenger=read_answers(truth, *challenger, space, capacity=capacity, embeds=embeds, who="the challenger"),
        champion=read_answers(truth, side.outputs, side.classes, space, capacity=capacity, embeds=embeds, who=side.opponent.name),
        opponent=side.opponent,
        measured=measured,
        columns={wanted.column: rows[wanted.column] for wanted in project.evaluation.slices},
        unchanged=unchanged,
    )


def _baseline(project: Project, label: Label, rows: pa.Table, data: Path) -> Side:
    baseline = project.evaluation.baseline
    files = Data(data).files("train")
    there = pq.read_schema(files[0]).names if files else []
    wanted = [name for name in baselines.columns_needed(baseline, label, project.features) if name in there]
    train = pa.concat_tables([pq.read_table(file, columns=wanted) for file in files]) if files else pa.table({})
    found = baselines.answer(baseline, label, train, rows, task=project.task, features=project.features)
    name = f"the baseline '{baselines.describe(baseline, label)}'" + (", and chance" if project.task == "similarity" else "")
    return Side(opponent=Opponent(kind="baseline", name=name), outputs=found.outputs, classes=found.classes)


def _champion(champion: RegisteredVersion, model: ServedModel, outputs: Outputs) -> Side:
    opponent = Opponent(kind="champion", name=f"champion version {champion.version}", version=champion.version)
    return Side(opponent=opponent, outputs=outputs, classes=model.classes)


def _ask_champion(project: Project, workspace: Workspace, champion: RegisteredVersion, rows: pa.Table, say: Say) -> Side:
    with load_model(registry.model_files(workspace, champion)) as model:
        outputs = answer_rows(
            model, project, rows, progress=lambda share: say(f"asking champion version {champion.version}", 0.5 + 0.5 * share)
        )
    return _champion(champion, model, outputs)


def _names_in(side: Side) -> list[pa.Array]:
    """The class names that an opponent answers with."""
    if "label" not in side.outputs:
        return []
    names = np.unique(side.outputs["label"].astype(object).reshape(-1))
    return [pa.array([name.decode() if isinstance(name, bytes) else name for name in names], pa.string())]


def _flattened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column)
