"""From a source to one Arrow table of canonical rows, each with its key: the half of `ingest` that knows no splits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines import progress
from mlpipelines.artifacts import KEY
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion.canonical import ARROW_TYPES, CanonicalBatch, Repairs, canonical_batch
from mlpipelines.ingestion.row_keys import content_keys, repeated
from mlpipelines.ingestion.sources import Chunk, RowSource, Window
from mlpipelines.project import ColumnType, Project

_SAID_EVERY = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one pass over the source brought."""

    rows: pa.Table
    """Canonical columns and `KEY`; every row has a time inside the window."""
    count: int
    """Rows that the source handed over."""
    repairs: Mapping[str, Repairs] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


def window_of(project: Project, since: datetime | None, until: datetime | None) -> Window:
    """The window that was asked for, without `source.window_days`.

    Raises:
        ConfigError: there is one, and no time column to apply it to.
    """
    window = Window.between(since, until)
    if project.time is None and not (window.is_open and project.source.window_days is None):
        raise ConfigError("A window (--since, --until, source.window_days) needs `time` in project.yaml. Name the column and run again.")
    return window


def last_days(window: Window, days: int | None, newest: int | None) -> Window:
    """`window`, narrowed to `days` before `newest`, which counts in: the window of one day holds one day. Pure."""
    if days is None or newest is None:
        return window
    start = newest + 1 - int(timedelta(days=days).total_seconds())
    return Window(since=start if window.since is None else max(start, window.since), until=window.until)


def newest_time(source: RowSource, project: Project, window: Window) -> int | None:
    """The newest time of the window in the source, not later than now: a row from the future must not push all others out."""
    assert project.time is not None
    newest: int | None = None
    for chunk in source.newest(_theirs(project, [project.time]), project.time, window):
        seconds = _inside(_canonical(chunk, project, {project.time: "timestamp"}).rows, project.time, window)[project.time]
        if seconds.null_count < len(seconds):
            newest = max(int(pc.max(seconds).as_py()), newest if newest is not None else -(2**62))
    return None if newest is None else min(newest, int(time.time()))


def read_source(source: RowSource, project: Project, window: Window) -> Reading:
    """Read the window's rows as they stream in, cast them, and give each its key.

    Raises:
        DataRejected: a column is missing, a value is of the wrong type, a key is missing or occurs twice.
    """
    types = dict(sorted(project.column_types.items()))  # so that a file's bytes do not depend on the order in project.yaml
    batches: list[pa.RecordBatch] = []
    repairs: dict[str, Repairs] = {}
    count = inside = undated = 0
    for chunk in source.chunks(_theirs(project, types), project.time, window):
        canonical = _canonical(chunk, project, types)
        for name, mended in canonical.repairs.items():
            repairs.setdefault(name, Repairs()).add(mended)
        rows = canonical.rows
        if project.time is not None:
            undated += rows[project.time].null_count
            rows = _inside(rows, project.time, window)
        batches.append(rows)
        if (count + chunk.rows.num_rows) // _SAID_EVERY > count // _SAID_EVERY:
            progress.progress(f"read {count + chunk.rows.num_rows:,} rows")
        count += chunk.rows.num_rows
        inside += rows.num_rows
    table = pa.Table.from_batches(batches, schema=_schema(types))
    dropped = {"time_missing": undated, "outside_window": count - undated - inside}
    _require_times(undated, count, project)
    return Reading(rows=_with_keys(table, project), count=count, repairs=repairs, dropped={k: n for k, n in dropped.items() if n})


def _theirs(project: Project, names: Mapping[str, ColumnType] | list[str]) -> dict[str, str]:
    return {name: project.rename.get(name, name) for name in names}


def _schema(types: Mapping[str, ColumnType]) -> pa.Schema:
    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in types.items()])


def _canonical(chunk: Chunk, project: Project, types: Mapping[str, ColumnType]) -> CanonicalBatch:
    return canonical_batch(chunk.rows, types, theirs=_theirs(project, types), origin=chunk.origin, first_row=chunk.first_row)


def _inside(rows: pa.RecordBatch, column: str, window: Window) -> pa.RecordBatch:
    """Rows with a time inside the window."""
    seconds = rows[column]
    if window.is_open and not seconds.null_count:
        return rows
    keep = pc.is_valid(seconds)
    if window.since is not None:
        keep = pc.and_kleene(keep, pc.greater_equal(seconds, window.since))
    if window.until is not None:
        keep = pc.and_kleene(keep, pc.less(seconds, window.until))
    return rows.filter(keep)


def _require_times(missing: int, count: int, project: Project) -> None:
    if missing > 0.05 * count:
        raise DataRejected(
            f"The time {project.time!r} is missing in {missing:,} of {count:,} rows ({missing / count:.1%}); at most 5% are dropped without asking. "
            "Correct the source, or name another column as `time` in project.yaml.",
            report=[{"column": project.time, "rule": "missing ≤ 5%", "share": missing / count, "example": None}],
        )


def _with_keys(rows: pa.Table, project: Project) -> pa.Table:
    if project.key is None:
        return rows.append_column(pa.field(KEY, pa.string()), content_keys(rows))
    keys = rows[project.key].cast(pa.string()).combine_chunks()
    if keys.null_count:
        raise DataRejected(
            f"The key {project.key!r} is missing in {keys.null_count:,} of {rows.num_rows:,} rows. Correct the source, or take `key` out of "
            "project.yaml: rows are then known by their content.",
            report=[{"column": project.key, "rule": "key present", "share": keys.null_count / rows.num_rows, "example": None}],
        )
    _refuse_repeats(keys, project)
    return rows.append_column(pa.field(KEY, pa.string()), keys)


def _refuse_repeats(keys: pa.Array, project: Project) -> None:
    count, examples = repeated(keys)
    if not count:
        return
    shown = ", ".join(f"{key!r} ({times} times)" for key, times in examples)
    raise DataRejected(
        f"{count:,} values of the key {project.key!r} occur more than once: {shown}. A join gone wrong does this. Correct the source, or name the "
        "column that does tell rows apart as `key` in project.yaml.",
        report=[
            {"column": project.key, "rule": "key unique", "share": count / len(keys), "example": key, "times": n} for key, n in examples
        ],
    )


def utc(second: int | None) -> str | None:
    """ISO 8601 text of a canonical time."""
    return None if second is None else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def inside(rows: pa.Table, column: str | None, window: Window) -> pa.Table:
    """Rows with a time inside the window; all where there is no time."""
    return (
        rows
        if column is None or window.is_open
        else pa.Table.from_batches([_inside(b, column, window) for b in rows.to_batches()], rows.schema)
    )


def bounds_of(rows: pa.Table, column: str | None) -> tuple[int | None, int | None]:
    """Oldest and newest time."""
    if column is None or not rows.num_rows:
        return None, None
    found = pc.min_max(rows[column]).as_py()
    return found["min"], found["max"]


def seconds_of(rows: pa.Table, column: str | None) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """The times as an array."""
    return None if column is None else np.asarray(rows[column].combine_chunks(), dtype=np.int64)
