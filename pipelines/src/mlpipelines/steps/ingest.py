"""The first step: read the source's rows, draw the splits, seal the test set once, and say in a manifest what was done.

The rows come canonical and with a key from `mlpipelines.reading`; who goes where is decided by `mlpipelines.assignment`, which
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

from mlpipelines import labels, progress
from mlpipelines.artifacts import KEY, Data
from mlpipelines.assignment import Assigned, assign, first_test, prepare, proof, written_order
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.incremental import Pending, WindowRows, read_window
from mlpipelines.manifest import DataManifest, SpanFacts, content_hash, write_manifest
from mlpipelines.near_duplicates import near_duplicates
from mlpipelines.parquet_files import sha256_of, write_rows
from mlpipelines.project import Project
from mlpipelines.reading import Reading, bounds_of, utc, window_of
from mlpipelines.sealed import Sealed, load_sealed, seal
from mlpipelines.sources import Window, open_source
from mlpipelines.spans import span_name
from mlpipelines.splits import Mask, SplitRows
from mlpipelines.workspace import ProjectState

_WRITERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows that passed the checks, how they came, and what the checks said."""

    table: pa.Table
    reading: Reading
    pending: Pending | None
    dropped: Mapping[str, int]
    warnings: tuple[str, ...]


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
    with _next_command(project_dir):
        source = open_source(project.source, project_dir)
        asked = window_of(project, since, until)
        progress.progress("read the source")
        read = _checked(read_window(source, project, state, asked), project, asked)
        progress.progress("draw the splits", 0.5)
        prepared = prepare(read.table, project)
        sealed = load_sealed(state) or _seal_first(read.table, prepared, project, state, asked)
        _require_same_identity(sealed, project)
        table = _folded(read.table, sealed, project)
        groups = _sealed_groups(table, sealed, project)
        assigned = assign(table, prepared, project, keys=sealed.keys, groups=groups)
        counts = _class_counts(table, assigned.train, project)
        progress.progress("write the splits", 0.7)
        sealed.copy_to(test, project.column_types, table)
        spans = _write(table, prepared, assigned, project, data)
        manifest = DataManifest(
            rows={"train": int(assigned.train.sum()), "validation": int(assigned.validation.sum()), "test": len(sealed.keys)},
            read=read.reading.count,
            window=_window_facts(asked, table, project),
            columns=dict(project.column_types),
            content_hash=content_hash(spans),
            spans=spans,
            source=source.describe(),
            split=_split_facts(assigned, prepared, project, proof(table, assigned, project, keys=sealed.keys, groups=groups)),
            sealed={
                **{name: sealed.manifest[name] for name in ("content_hash", "rows", "sealed_at", "run")},
                "first_run": sealed.first_run,
            },
            near_duplicates=_near_duplicates(table, assigned, sealed, project),
            classes=counts,
            dropped={**read.dropped, **_left_out(assigned)},
            repaired={name: {what: n for what, n in asdict(mended).items() if n} for name, mended in read.reading.repairs.items()},
            incremental={} if read.pending is None else read.pending.facts(),
            warnings=(*read.warnings, *_split_warnings(read.table, assigned, sealed, project)),
        )
        write_manifest(Data(data).manifest, manifest)
        if read.pending is not None:
            read.pending.save(state)
    progress.note(rows=dict(manifest.rows), read=manifest.read, data=manifest.content_hash, warnings=list(manifest.warnings))
    return manifest


@contextmanager
def _next_command(project_dir: Path) -> Iterator[None]:
    try:
        yield
    except DataRejected as error:
        raise DataRejected(f"{error} Then: millrace run {project_dir}", error.report) from error


def _checked(window: WindowRows, project: Project, asked: Window) -> _Rows:
    """Refuse what cannot be trained on, and drop rows without a label."""
    reading, rows, pending = window.reading, window.rows, window.pending
    _require_rows(reading, rows, project, asked)
    empty = [name for name in project.column_types if rows[name].null_count == rows.num_rows]
    warnings = [f"column {name!r} has no value in any row" for name in empty if project.label is None or name != project.label.column]
    warnings += [
        f"column {name!r}: " + ", ".join(f"{n:,} {_REPAIRS[what]}" for what, n in asdict(mended).items() if n)
        for name, mended in reading.repairs.items()
    ]
    if pending is not None and pending.kept.started_over:
        warnings.append(pending.kept.started_over)
    dropped = dict(reading.dropped)
    if project.label is not None:
        column = project.label.column
        missing = labels.missing_labels(rows[column].combine_chunks())
        labels.require_labels(missing, project.label)
        if project.label.use == "training" and missing.any():
            dropped["label_missing"] = int(missing.sum())
            rows = rows.filter(pa.array(~missing))
        if project.label.kind == "flag":
            rows = _with(rows, column, labels.canonical_flags(rows[column].combine_chunks(), project.label))
    return _Rows(table=rows.combine_chunks(), reading=reading, pending=pending, dropped=dropped, warnings=tuple(warnings))


_REPAIRS = {
    "broken_utf8": "values were not UTF-8; their broken bytes became U+FFFD",
    "nul": "values held NUL, which was removed",
    "null_items": "list items were null and were left out",
}


def _require_rows(reading: Reading, rows: pa.Table, project: Project, asked: Window) -> None:
    if rows.num_rows:
        return
    where = f"between {utc(asked.since) or 'the beginning'} and {utc(asked.until) or 'the end'}" if project.time else "in the source"
    raise DataRejected(
        f"There is no row {where}" + (f" ({reading.count:,} were read, by {project.time!r} all of them outside). " if reading.count else ". ")
        + "Widen --since and --until or source.window_days, or correct `source` in project.yaml.",
        report=[{"column": project.time, "rule": "rows in the window", "read": reading.count}],
    )  # fmt: skip


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), values)


def _seal_first(rows: pa.Table, prepared: SplitRows, project: Project, state: ProjectState, asked: Window) -> Sealed:
    """Draw and seal the test set of a first run."""
    chosen = first_test(rows, prepared, project)
    classes = _first_classes(rows, prepared, chosen, project)
    places = written_order(rows, project.time)
    test = rows.take(pa.array(places[chosen[places]]))
    if classes is not None and project.label is not None:
        test = _with(test, project.label.column, labels.folded(test[project.label.column].combine_chunks(), classes, project.label))
    facts = {
        "columns": dict(project.column_types),
        "key": project.key,
        "classes": classes,
        "window": _window_facts(asked, test, project),
        "split": project.split.model_dump(mode="json"),
        "sealed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": os.environ.get(progress.RUN_ID),
    }
    return seal(state, test, facts)


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


def _folded(rows: pa.Table, sealed: Sealed, project: Project) -> pa.Table:
    if project.label is None or sealed.classes is None:
        return rows
    column = project.label.column
    return _with(rows, column, labels.folded(rows[column].combine_chunks(), sealed.classes, project.label))


def _sealed_groups(rows: pa.Table, sealed: Sealed, project: Project) -> pa.Array | None:
    """Groups with a sealed row, for a split by group."""
    group = project.split.group
    if not _grouped(project) or group is None:
        return None
    known = rows[group].filter(pc.is_in(rows[KEY], value_set=sealed.keys))
    if sealed.columns.get(group) == project.column_types[group]:
        known = pa.chunked_array([*known.chunks, *sealed.rows([group])[group].chunks], known.type)
    return known.unique()


def _write(rows: pa.Table, prepared: SplitRows, assigned: Assigned, project: Project, root: Path) -> dict[str, dict[str, SpanFacts]]:
    """One Parquet file for each split and span, two at a time."""
    order = written_order(rows, project.time)
    jobs = []
    for split, mask in (("train", assigned.train), ("validation", assigned.validation)):
        shutil.rmtree(root / split, ignore_errors=True)  # of an attempt that was killed
        (root / split).mkdir(parents=True)
        places = order[mask[order]]
        spans = prepared.spans[places]
        starts = np.flatnonzero(np.concatenate([[True], np.diff(spans) != 0])) if len(spans) else np.zeros(0, np.int64)
        for start, part in zip(starts.tolist(), np.split(places, starts[1:]), strict=True):
            name = span_name(int(spans[start]), project.source.span, timed=project.time is not None)
            jobs.append((split, name, part))

    def write(job: tuple[str, str, Any]) -> SpanFacts:
        split, name, part = job
        file = root / split / name / "part-00000.parquet"
        write_rows(file, rows, part)
        return SpanFacts(rows=len(part), sha256=sha256_of(file))

    spans_of: dict[str, dict[str, SpanFacts]] = {"train": {}, "validation": {}}
    with ThreadPoolExecutor(_WRITERS) as pool:
        for (split, name, _), facts in zip(jobs, pool.map(write, jobs), strict=True):
            spans_of[split][name] = facts
    return spans_of


def _window_facts(asked: Window, rows: pa.Table, project: Project) -> dict[str, str | None]:
    oldest, newest = bounds_of(rows, project.time)
    return {"since": utc(asked.since), "until": utc(asked.until), "oldest": utc(oldest), "newest": utc(newest)}


def _split_facts(assigned: Assigned, prepared: SplitRows, project: Project, disjoint: Mapping[str, Any]) -> dict[str, Any]:
    validation, train = int(assigned.validation.sum()), int(assigned.train.sum())
    return {
        **project.split.model_dump(mode="json"),
        "validation_share": round(validation / (validation + train), 6),
        "strata": None if prepared.strata is None else len(np.unique(prepared.strata)),
        "disjoint": dict(disjoint),
    }


def _left_out(assigned: Assigned) -> dict[str, int]:
    counts = {"sealed": int(assigned.sealed.sum()), "sealed_group": int(assigned.sealed_group.sum())}
    return {name: count for name, count in counts.items() if count}


def _near_duplicates(rows: pa.Table, assigned: Assigned, sealed: Sealed, project: Project) -> dict[str, Any]:
    columns = project.split.near_duplicates
    if not columns:
        return near_duplicates(columns, {})
    texts = rows.select(columns)
    test = sealed.rows(columns) if set(columns) <= set(sealed.columns) else texts.filter(pa.array(assigned.sealed))
    splits = {"train": texts.filter(pa.array(assigned.train)), "validation": texts.filter(pa.array(assigned.validation)), "test": test}
    return near_duplicates(columns, splits)


def _split_warnings(rows: pa.Table, assigned: Assigned, sealed: Sealed, project: Project) -> list[str]:
    """What is odd about the splits; `rows` have their labels as they came."""
    warnings = []
    settings = project.split.model_dump(mode="json")
    drawn = ("by", "group", "test", "test_from", "seed", "stratify")
    changed = [name for name in drawn if settings[name] != sealed.manifest["split"][name]]
    if changed:
        names = ", ".join(f"split.{name}" for name in changed)
        warnings.append(f"{names} changed after the test set was sealed at {sealed.manifest['sealed_at']}; the sealed set stays as it is")
    if project.label is not None and sealed.classes is not None:
        counts = labels.class_counts(rows[project.label.column].filter(pa.array(assigned.train)), project.label)
        grown = [
            name for name in labels.classes_kept(counts, project.label) or [] if name not in sealed.classes and name != project.label.other
        ]
        warnings += [
            f"class {name!r} now has {counts[name]:,} training rows and is still folded into {project.label.other!r}" for name in grown
        ]
    return warnings
