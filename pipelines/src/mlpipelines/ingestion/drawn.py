"""Rows with their places, and what the manifest says of them. Pure: what `steps/ingest.py` drew goes in, the manifest comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlpipelines.ingestion import labels
from mlpipelines.ingestion.assignment import Assigned, Places, proof
from mlpipelines.ingestion.checked_rows import CheckedRows
from mlpipelines.ingestion.learned_rows import Learned
from mlpipelines.ingestion.manifest import DataManifest, SpanFacts, content_hash
from mlpipelines.ingestion.near_duplicates import near_duplicates
from mlpipelines.ingestion.reading import bounds_of, utc
from mlpipelines.ingestion.sealed import Sealed
from mlpipelines.ingestion.sources import Window
from mlpipelines.ingestion.spans import Codes
from mlpipelines.project import Project

OF_PREDICTIONS = 2**62
"""The span of labelled predictions, after every month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The rows with their places: those of the source, then labelled predictions."""

    table: pa.Table
    """As in `CheckedRows`, rare classes folded."""
    spans: Codes
    strata: Codes | None
    """Of the source's rows."""
    order: Places
    """In which rows are written."""
    sealed: Sealed
    groups: pa.Array | None
    """Those with a sealed row, for a split by group."""
    assigned: Assigned
    learned: Learned
    classes: Mapping[str, int]


def manifest_of(
    read: CheckedRows,
    drawn: Drawn,
    project: Project,
    asked: Window,
    *,
    source: Mapping[str, Any],
    spans: Mapping[str, Mapping[str, SpanFacts]],
) -> DataManifest:
    """What was read, what became of it, and the proof that no two splits share a row."""
    assigned, sealed = drawn.assigned, drawn.sealed
    return DataManifest(
        rows={"train": int(assigned.train.sum()), "validation": int(assigned.validation.sum()), "test": len(sealed.keys)},
        read=read.reading.count,
        window=window_facts(asked, read.table, project),
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
        predictions=drawn.learned.facts,
        warnings=(*read.warnings, *_split_warnings(read.table, drawn, project), *drawn.learned.warnings),
    )


def window_facts(asked: Window, rows: pa.Table, project: Project) -> dict[str, str | None]:
    """The window as it was asked for, and as rows fill it."""
    oldest, newest = bounds_of(rows, project.time)
    return {"since": utc(asked.since), "until": utc(asked.until), "oldest": utc(oldest), "newest": utc(newest)}


def _split_facts(drawn: Drawn, project: Project) -> dict[str, Any]:
    validation, train = int(drawn.assigned.validation.sum()), int(drawn.assigned.train.sum())
    return {
        **project.split.model_dump(mode="json"),
        "validation_share": round(validation / (validation + train), 6),
        "strata": None if drawn.strata is None else len(np.unique(drawn.strata)),
        "disjoint": dict(proof(drawn.table, drawn.assigned, project, keys=drawn.sealed.keys, groups=drawn.groups)),
    }


def _left_out(assigned: Assigned) -> dict[str, int]:
    counts = {name: int(getattr(assigned, name).sum()) for name in ("sealed", "sealed_group", "near_sealed")}
    return {name: count for name, count in counts.items() if count}


def _near_duplicates(drawn: Drawn, project: Project) -> dict[str, Any]:
    columns = project.split.near_duplicates
    if not columns:
        return near_duplicates(columns, {})
    texts, assigned, sealed = drawn.table.select(columns), drawn.assigned, drawn.sealed
    test = sealed.rows(columns) if set(columns) <= set(sealed.columns) else texts.filter(pa.array(assigned.sealed))
    splits = {"train": texts.filter(pa.array(assigned.train)), "validation": texts.filter(pa.array(assigned.validation)), "test": test}
    return near_duplicates(columns, splits)


def _split_warnings(rows: pa.Table, drawn: Drawn, project: Project) -> list[str]:
    """What is odd about the splits; `rows` have their labels as they came."""
    sealed, warnings = drawn.sealed, []
    settings = project.split.model_dump(mode="json")
    kept = ("by", "group", "test", "test_from", "seed", "stratify")
    changed = [name for name in kept if settings[name] != sealed.manifest["split"][name]]
    if changed:
        names = ", ".join(f"split.{name}" for name in changed)
        warnings.append(f"{names} changed after the test set was sealed at {sealed.manifest['sealed_at']}; the sealed set stays as it is")
    if project.label is not None and sealed.classes is not None:
        counts = labels.class_counts(rows[project.label.column].filter(pa.array(drawn.assigned.train[: rows.num_rows])), project.label)
        grown = [
            name for name in labels.classes_kept(counts, project.label) or [] if name not in sealed.classes and name != project.label.other
        ]
        warnings += [
            f"class {name!r} now has {counts[name]:,} training rows and is still folded into {project.label.other!r}" for name in grown
        ]
    return warnings
