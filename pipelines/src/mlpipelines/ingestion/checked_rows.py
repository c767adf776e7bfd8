"""What rows must have before anything is drawn from them: some rows, a label, images that decode, and a word about whatever is odd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from mlpipelines.errors import DataRejected
from mlpipelines.ingestion import images, labels
from mlpipelines.ingestion.incremental import Pending, WindowRows
from mlpipelines.ingestion.manifest import mended
from mlpipelines.ingestion.reading import Reading, utc
from mlpipelines.ingestion.sources import Window
from mlpipelines.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """Rows that passed the checks, how they came, and what the checks said."""

    table: pa.Table
    reading: Reading
    pending: Pending | None
    dropped: Mapping[str, int]
    warnings: tuple[str, ...]


def checked(window: WindowRows, project: Project, asked: Window) -> CheckedRows:
    """Drop rows without a label and rows whose image does not decode, and bring a flag into one spelling.

    Raises:
        DataRejected: there is no row, or too many of them have no label or a broken image, or a flag is neither 0 nor 1.
    """
    reading, rows, pending = window.reading, window.rows, window.pending
    _require_rows(reading, rows, project, asked)
    empty = [name for name in project.column_types if rows[name].null_count == rows.num_rows]
    warnings = [f"column {name!r} has no value in any row" for name in empty if project.label is None or name != project.label.column]
    warnings += mended({name: asdict(repairs) for name, repairs in reading.repairs.items()})
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
            rows = labels.with_column(rows, column, labels.canonical_flags(rows[column].combine_chunks(), project.label))
    whole, broken = images.without_broken(rows, project.source.images)
    if broken:
        dropped["image_broken"] = rows.num_rows - whole.num_rows
    rows, warnings = whole, [*warnings, *broken]
    return CheckedRows(table=rows.combine_chunks(), reading=reading, pending=pending, dropped=dropped, warnings=tuple(warnings))


def _require_rows(reading: Reading, rows: pa.Table, project: Project, asked: Window) -> None:
    if rows.num_rows:
        return
    where = f"between {utc(asked.since) or 'the beginning'} and {utc(asked.until) or 'the end'}" if project.time else "in the source"
    raise DataRejected(
        f"There is no row {where}" + (f" ({reading.count:,} were read, by {project.time!r} all of them outside). " if reading.count else ". ")
        + "Widen --since and --until or source.window_days, or correct `source` in project.yaml.",
        report=[{"column": project.time, "rule": "rows in the window", "read": reading.count}],
    )  # fmt: skip
