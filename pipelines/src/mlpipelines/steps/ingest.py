"""The first step: read the source's rows, draw the splits, seal the test set once, and say in a manifest what was done.

The rows come canonical and with a key from `mlpipelines.ingestion.reading`; who goes where is decided by `mlpipelines.ingestion.assignment`, which
knows no files. What is left here is the order of things: nothing outside the step's own outputs changes before the rows have
passed the checks, then the test set is sealed (first run only), then the outputs are written, and last the watermark moves.

Memory grows with the rows: about twice the canonical rows' size, since only row groups are copied on the way to disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines import progress
from mlpipelines.artifacts import KEY, PREDICTIONS, Data
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion import labels
from mlpipelines.ingestion.assignment import Assigned, Period, assign, first_test, joined_with, prepare, written_order
from mlpipelines.ingestion.checked_rows import CheckedRows, checked
from mlpipelines.ingestion.drawn import OF_PREDICTIONS, Drawn, manifest_of, window_facts
from mlpipelines.ingestion.incremental import read_window
from mlpipelines.ingestion.labelled_predictions import read_labelled
from mlpipelines.ingestion.learned_rows import Around, learned_rows
from mlpipelines.ingestion.manifest import DataManifest, SpanFacts, learned_text, place_of, write_manifest
from mlpipelines.ingestion.parquet_files import sha256_of, write_rows
from mlpipelines.ingestion.reading import bounds_of, last_days, window_of
from mlpipelines.ingestion.sealed import Sealed, load_sealed, seal
from mlpipelines.ingestion.sources import Window, open_source
from mlpipelines.ingestion.spans import span_name
from mlpipelines.ingestion.splits import Mask, SplitRows
from mlpipelines.project import Project
from mlpipelines.workspace import ProjectState

_WRITERS = 2


def ingest(
    *,
    project: Project,
    project_dir: Path,
    state: ProjectState,
    data: Path,
    test: Path,
    since: datetime | None = None,
    until: datetime | None = None,
    predictions: Path | None = None,
) -> DataManifest:
    """Read the window [since, until) of the project's source into `data` and the sealed test set into `test`.

    Args:
        project: its source, columns, label and split are read.
        project_dir: where relative paths and the source's `entry` lie.
        state: the sealed set and, for an incremental source, the kept rows.
        data: becomes a `Data` artifact.
        test: becomes a `TestSet` artifact.
        since: earliest time, naive is UTC; None: `source.window_days` or everything.
        until: first time that is too late.
        predictions: the folder of prediction log and labels; None: nothing is learned from predictions.

    Raises:
        DataRejected: the rows cannot be trained on; the project's state has not changed.
        ConfigError: project.yaml asks for what is not there.
        Unavailable: the source did not answer.
        Conflict: the sealed test set was changed by somebody.
    """
    source = open_source(project.source, project_dir)
    asked = window_of(project, since, until)
    with _source_and_next_command(place_of(source.describe()), project_dir):
        progress.progress("read the source")
        read = checked(read_window(source, project, state, asked), project, asked)
        progress.progress("draw the splits", 0.5)
        told = None if predictions is None else read_labelled(project, predictions)
        drawn = _draw(read, told, project, state, asked)
        progress.progress("write the splits", 0.7)
        drawn.sealed.copy_to(test, project.column_types, drawn.table)
        manifest = manifest_of(read, drawn, project, asked, source=source.describe(), spans=_write(drawn, project, data))
        write_manifest(Data(data).manifest, manifest)
        if read.pending is not None:
            read.pending.save(state)
    progress.note(
        rows=dict(manifest.rows),
        read=manifest.read,
        data=manifest.content_hash,
        warnings=list(manifest.warnings),
        learned=learned_text(manifest.predictions),
        summary=" · ".join(
            [
                *(f"{n:,} {split}" for split, n in manifest.rows.items()),
                *filter(None, [learned_text(manifest.predictions)]),
                *manifest.warnings,
            ]
        ),
    )
    return manifest


@contextmanager
def _source_and_next_command(place: str, project_dir: Path) -> Iterator[None]:
    """What every refusal ends with. The source is named where it is not yet: a rule about all rows knows none."""
    try:
        yield
    except DataRejected as error:
        source = "" if place in str(error) else f" The source is {place}."
        raise DataRejected(f"{error}{source} Then: millrace run {project_dir}", error.report) from error


def _draw(read: CheckedRows, told: pa.Table | None, project: Project, state: ProjectState, asked: Window) -> Drawn:
    """Draw the splits around the sealed test set, which the first run draws before. Labelled predictions come last, and move no other row."""
    rows = read.table
    prepared = prepare(rows, project)
    order = written_order(rows, project.time)
    sealed = load_sealed(state)
    if sealed is None:
        chosen = first_test(rows, prepared, project)
        classes = _first_classes(rows, prepared, chosen, project)
        sealed = _seal(rows.take(pa.array(order[chosen[order]])), classes, project, state, asked)
    _require_same_identity(sealed, project)
    table = _folded(rows, sealed.classes, project)
    groups = _sealed_groups(table, sealed, project)
    period = _sealed_period(sealed.rows, project)
    assigned = assign(table, prepared, project, keys=sealed.keys, groups=groups, period=period)
    around = Around(rows=rows, assigned=assigned, sealed=_sealed_as_asked(sealed, project), sealed_groups=groups, period=period)
    learned = learned_rows(told, around, project, last_days(asked, project.source.window_days, bounds_of(rows, project.time)[1]))
    with_learned = joined_with(table, assigned, _folded(learned.rows, sealed.classes, project), learned.validation)
    return Drawn(
        table=with_learned[0],
        assigned=with_learned[1],
        spans=np.append(prepared.spans, np.full(len(learned.validation), OF_PREDICTIONS)),
        strata=prepared.strata,
        order=np.append(order, rows.num_rows + written_order(learned.rows, project.time)),
        sealed=sealed,
        groups=groups,
        learned=learned,
        classes=_class_counts(*with_learned, project),
    )


def _sealed_as_asked(sealed: Sealed, project: Project) -> pa.Table:
    """The sealed rows' identity, and what of a request they have in today's types."""
    return sealed.rows([KEY, *(name for name, kind in project.features.items() if sealed.columns.get(name) == kind)])


def _seal(test: pa.Table, classes: list[str] | None, project: Project, state: ProjectState, asked: Window) -> Sealed:
    facts = {
        "columns": dict(project.column_types),
        "key": project.key,
        "classes": classes,
        "window": window_facts(asked, test, project),
        "split": project.split.model_dump(mode="json"),
        "sealed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": os.environ.get(progress.RUN_ID),
    }
    return seal(state, _folded(test, classes, project), facts)


def _first_classes(rows: pa.Table, prepared: SplitRows, chosen: Mask, project: Project) -> list[str] | None:
    """The classes with enough training rows; also sees to it that a data set that cannot be trained on seals nothing."""
    keys = rows[KEY].filter(pa.array(chosen)).combine_chunks()
    groups = rows[project.split.group].filter(pa.array(chosen)).combine_chunks() if _grouped(project) else None
    period = _sealed_period(lambda names: rows.select(names).filter(pa.array(chosen)), project)
    assigned = assign(rows, prepared, project, keys=keys, groups=groups, period=period)
    counts = _class_counts(rows, assigned, project)
    return None if project.label is None else labels.classes_kept(counts, project.label)


def _sealed_period(sealed: Callable[[list[str]], pa.Table], project: Project) -> Period | None:
    """The first and the last second of the sealed rows, where `split.gap_days` asks for them."""
    if project.time is None or not project.split.gap_days:
        return None
    first, last = bounds_of(sealed([project.time]), project.time)
    return None if first is None or last is None else (first, last)


def _grouped(project: Project) -> bool:
    return project.split.by == "group" and project.split.group is not None


def _class_counts(rows: pa.Table, assigned: Assigned, project: Project) -> dict[str, int]:
    if project.label is None:
        return {}
    counts = labels.class_counts(rows[project.label.column].filter(pa.array(assigned.train)), project.label)
    labels.require_classes(counts, project.label)
    return counts


def _require_same_identity(sealed: Sealed, project: Project) -> None:
    """Without a key, other columns give every row another identity, and sealed rows would slip into training."""
    same_columns = dict(sealed.columns) == dict(project.column_types)
    if sealed.manifest["key"] == project.key and (project.key is not None or same_columns):
        return
    what = "the columns" if sealed.manifest["key"] == project.key else "`key`"
    raise ConfigError(
        f"{what} in project.yaml changed since the test set was sealed ({sealed.folder}), so its rows would no longer be recognised and would be "
        "trained on. Take the change back, or, to seal a new test set (models judged before cannot be compared with it then): "
        f"rm -r {sealed.folder}"
    )


def _folded(rows: pa.Table, classes: list[str] | None, project: Project) -> pa.Table:
    if project.label is None or classes is None:
        return rows
    column = project.label.column
    return labels.with_column(rows, column, labels.folded(rows[column].combine_chunks(), classes, project.label))


def _sealed_groups(rows: pa.Table, sealed: Sealed, project: Project) -> pa.Array | None:
    """Groups with a sealed row, for a split by group."""
    group = project.split.group
    if not _grouped(project) or group is None:
        return None
    known = rows[group].filter(pc.is_in(rows[KEY], value_set=sealed.keys))
    if sealed.columns.get(group) == project.column_types[group]:
        known = pa.chunked_array([*known.chunks, *sealed.rows([group])[group].chunks], known.type)
    return known.unique()


def _span_of(code: int, project: Project) -> str:
    return PREDICTIONS if code == OF_PREDICTIONS else span_name(code, project.source.span, timed=project.time is not None)


def _write(drawn: Drawn, project: Project, root: Path) -> dict[str, dict[str, SpanFacts]]:
    """One Parquet file for each split and span, two at a time."""
    jobs = []
    for split, mask in (("train", drawn.assigned.train), ("validation", drawn.assigned.validation)):
        shutil.rmtree(root / split, ignore_errors=True)  # of an attempt that was killed
        (root / split).mkdir(parents=True)
        places = drawn.order[mask[drawn.order]]
        spans = drawn.spans[places]
        starts = np.flatnonzero(np.diff(spans, prepend=spans[:1] - 1))
        for start, part in zip(starts.tolist(), np.split(places, starts[1:]), strict=True):
            jobs.append((split, _span_of(int(spans[start]), project), part))

    def write(job: tuple[str, str, Any]) -> SpanFacts:
        split, name, part = job
        file = root / split / name / "part-00000.parquet"
        write_rows(file, drawn.table, part)
        return SpanFacts(rows=len(part), sha256=sha256_of(file))

    spans_of: dict[str, dict[str, SpanFacts]] = {"train": {}, "validation": {}}
    with ThreadPoolExecutor(_WRITERS) as pool:
        for (split, name, _), facts in zip(jobs, pool.map(write, jobs), strict=True):
            spans_of[split][name] = facts
    return spans_of
