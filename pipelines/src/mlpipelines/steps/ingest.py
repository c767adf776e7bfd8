"""The first step: read the source's rows, draw the splits, seal the test set once, and say in a manifest what was done.

The rows come canonical and with a key from `mlpipelines.ingestion.reading`; who goes where is decided by `mlpipelines.ingestion.assignment`, which
knows no files. What is left here is the order of things: nothing outside the step's own outputs changes before the rows have
passed the checks, then the test set is sealed (first run only), then the outputs are written, and last the watermark moves.

Memory grows with the rows: about twice the canonical rows' size, since only row groups are copied on the way to disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines import progress
from mlpipelines.artifacts import KEY, Data
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion import labels
from mlpipelines.ingestion.assignment import Assigned, Places, assign, first_test, prepare, proof, written_order
from mlpipelines.ingestion.checked_rows import CheckedRows, checked
from mlpipelines.ingestion.incremental import read_window
from mlpipelines.ingestion.manifest import DataManifest, SpanFacts, content_hash, place_of, write_manifest
from mlpipelines.ingestion.near_duplicates import near_duplicates
from mlpipelines.ingestion.parquet_files import sha256_of, write_rows
from mlpipelines.ingestion.reading import bounds_of, utc, window_of
from mlpipelines.ingestion.sealed import Sealed, load_sealed, seal
from mlpipelines.ingestion.sources import Window, open_source
from mlpipelines.ingestion.spans import span_name
from mlpipelines.ingestion.splits import Mask, SplitRows
from mlpipelines.project import Project
from mlpipelines.workspace import ProjectState

_WRITERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The rows with their places."""

    table: pa.Table
    """As in `CheckedRows`, rare classes folded."""
    prepared: SplitRows
    order: Places
    """In which rows are written."""
    sealed: Sealed
    groups: pa.Array | None
    """Those with a sealed row, for a split by group."""
    assigned: Assigned
    classes: Mapping[str, int]


def ingest(
    *,
    project: Project,
    project_dir: Path,
    state: ProjectState,
    data: Path,
    test: Path,
    since: datetime | None = None,
    until: datetime | None = None,
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
        drawn = _draw(read, project, state, asked)
        progress.progress("write the splits", 0.7)
        drawn.sealed.copy_to(test, project.column_types, drawn.table)
        manifest = _manifest(read, drawn, project, asked, source=source.describe(), spans=_write(drawn, project, data))
        write_manifest(Data(data).manifest, manifest)
        if read.pending is not None:
            read.pending.save(state)
    progress.note(
        rows=dict(manifest.rows),
        read=manifest.read,
        data=manifest.content_hash,
        warnings=list(manifest.warnings),
        summary=" · ".join([*(f"{rows:,} {split}" for split, rows in manifest.rows.items()), *manifest.warnings]),
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


def _draw(read: CheckedRows, project: Project, state: ProjectState, asked: Window) -> _Drawn:
    """Draw the splits around the sealed test set, which the first run draws before."""
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
    assigned = assign(table, prepared, project, keys=sealed.keys, groups=groups)
    classes_now = _class_counts(table, assigned.train, project)
    return _Drawn(table=table, prepared=prepared, order=order, sealed=sealed, groups=groups, assigned=assigned, classes=classes_now)


def _seal(test: pa.Table, classes: list[str] | None, project: Project, state: ProjectState, asked: Window) -> Sealed:
    facts = {
        "columns": dict(project.column_types),
        "key": project.key,
        "classes": classes,
        "window": _window_facts(asked, test, project),
        "split": project.split.model_dump(mode="json"),
        "sealed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": os.environ.get(progress.RUN_ID),
    }
    return seal(state, _folded(test, classes, project), facts)


def _first_classes(rows: pa.Table, prepared: SplitRows, chosen: Mask, project: Project) -> list[str] | None:
    """The classes with enough training rows; also sees to it that a data set that cannot be trained on seals nothing."""
    keys = rows[KEY].filter(pa.array(chosen)).combine_chunks()
    groups = rows[project.split.group].filter(pa.array(chosen)).combine_chunks() if _grouped(project) else None
    assigned = assign(rows, prepared, project, keys=keys, groups=groups)
    counts = _class_counts(rows, assigned.train, project)
    return None if project.label is None else labels.classes_kept(counts, project.label)


def _grouped(project: Project) -> bool:
    return project.split.by == "group" and project.split.group is not None


def _class_counts(rows: pa.Table, train: Mask, project: Project) -> dict[str, int]:
    if project.label is None:
        return {}
    counts = labels.class_counts(rows[project.label.column].filter(pa.array(train)), project.label)
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


def _write(drawn: _Drawn, project: Project, root: Path) -> dict[str, dict[str, SpanFacts]]:
    """One Parquet file for each split and span, two at a time."""
    jobs = []
    for split, mask in (("train", drawn.assigned.train), ("validation", drawn.assigned.validation)):
        shutil.rmtree(root / split, ignore_errors=True)  # of an attempt that was killed
        (root / split).mkdir(parents=True)
        places = drawn.order[mask[drawn.order]]
        spans = drawn.prepared.spans[places]
        starts = np.flatnonzero(np.diff(spans, prepend=spans[:1] - 1))
        for start, part in zip(starts.tolist(), np.split(places, starts[1:]), strict=True):
            name = span_name(int(spans[start]), project.source.span, timed=project.time is not None)
            jobs.append((split, name, part))

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


def _manifest(
    read: CheckedRows,
    drawn: _Drawn,
    project: Project,
    asked: Window,
    *,
    source: Mapping[str, Any],
    spans: Mapping[str, Mapping[str, SpanFacts]],
) -> DataManifest:
    assigned, sealed = drawn.assigned, drawn.sealed
    return DataManifest(
        rows={"train": int(assigned.train.sum()), "validation": int(assigned.validation.sum()), "test": len(sealed.keys)},
        read=read.reading.count,
        window=_window_facts(asked, drawn.table, project),
        columns=dict(project.column_types),
        content_hash=content_hash(spans),
        spans=spans,
        source=source,
        split=_split_facts(drawn, project),
        sealed={**{name: sealed.manifest[name] for name in ("content_hash", "rows", "sealed_at", "run")}, "first_run": sealed.first_run},
        near_duplicates=_near_duplicates(drawn, project),
        classes=drawn.classes,
        dropped={**read.dropped, **_left_out(assigned)},
        repaired={name: {what: n for what, n in asdict(mended).items() if n} for name, mended in read.reading.repairs.items()},
        incremental={} if read.pending is None else read.pending.facts(),
        warnings=(*read.warnings, *_split_warnings(read.table, drawn, project)),
    )


def _window_facts(asked: Window, rows: pa.Table, project: Project) -> dict[str, str | None]:
    oldest, newest = bounds_of(rows, project.time)
    return {"since": utc(asked.since), "until": utc(asked.until), "oldest": utc(oldest), "newest": utc(newest)}


def _split_facts(drawn: _Drawn, project: Project) -> dict[str, Any]:
    validation, train = int(drawn.assigned.validation.sum()), int(drawn.assigned.train.sum())
    return {
        **project.split.model_dump(mode="json"),
        "validation_share": round(validation / (validation + train), 6),
        "strata": None if drawn.prepared.strata is None else len(np.unique(drawn.prepared.strata)),
        "disjoint": dict(proof(drawn.table, drawn.assigned, project, keys=drawn.sealed.keys, groups=drawn.groups)),
    }


def _left_out(assigned: Assigned) -> dict[str, int]:
    counts = {"sealed": int(assigned.sealed.sum()), "sealed_group": int(assigned.sealed_group.sum())}
    return {name: count for name, count in counts.items() if count}


def _near_duplicates(drawn: _Drawn, project: Project) -> dict[str, Any]:
    columns = project.split.near_duplicates
    if not columns:
        return near_duplicates(columns, {})
    texts, assigned, sealed = drawn.table.select(columns), drawn.assigned, drawn.sealed
    test = sealed.rows(columns) if set(columns) <= set(sealed.columns) else texts.filter(pa.array(assigned.sealed))
    splits = {"train": texts.filter(pa.array(assigned.train)), "validation": texts.filter(pa.array(assigned.validation)), "test": test}
    return near_duplicates(columns, splits)


def _split_warnings(rows: pa.Table, drawn: _Drawn, project: Project) -> list[str]:
    """What is odd about the splits; `rows` have their labels as they came."""
    sealed, warnings = drawn.sealed, []
    settings = project.split.model_dump(mode="json")
    kept = ("by", "group", "test", "test_from", "seed", "stratify")
    changed = [name for name in kept if settings[name] != sealed.manifest["split"][name]]
    if changed:
        names = ", ".join(f"split.{name}" for name in changed)
        warnings.append(f"{names} changed after the test set was sealed at {sealed.manifest['sealed_at']}; the sealed set stays as it is")
    if project.label is not None and sealed.classes is not None:
        counts = labels.class_counts(rows[project.label.column].filter(pa.array(drawn.assigned.train)), project.label)
        grown = [
            name for name in labels.classes_kept(counts, project.label) or [] if name not in sealed.classes and name != project.label.other
        ]
        warnings += [
            f"class {name!r} now has {counts[name]:,} training rows and is still folded into {project.label.other!r}" for name in grown
        ]
    return warnings
