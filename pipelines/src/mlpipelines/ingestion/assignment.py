"""Every row's place: train, validation, sealed, or nowhere; and the proof that no two places share a row or a group.

Between `splits.py`, which draws from arrays, and `steps/ingest.py`, which reads and writes. Pure: tables in, masks out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.artifacts import KEY
from mlpipelines.errors import DataRejected
from mlpipelines.ingestion.labels import missing_labels
from mlpipelines.ingestion.spans import Codes, span_codes
from mlpipelines.ingestion.splits import SIDES, Mask, SplitRows, codes, said_sides, select_test, select_validation, unit_hashes
from mlpipelines.ingestion.validation_set import require_validation_set
from mlpipelines.project import Project

Places = npt.NDArray[np.int64]
"""Row numbers."""
Period = tuple[int, int]
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """Where each row goes."""

    train: Mask
    validation: Mask
    sealed: Mask
    sealed_group: Mask
    """Rows that are not sealed themselves and belong to a group that is, or are said to be for the test: they go nowhere."""
    near_sealed: Mask
    """Rows that lie within `split.gap_days` of the sealed ones: they go nowhere either."""


def prepare(rows: pa.Table, project: Project) -> SplitRows:
    """What the split looks at, for each of `rows`.

    Raises:
        DataRejected: `split.column` says something else than train, validation or test.
    """
    split = project.split
    seconds = None if project.time is None else np.asarray(rows[project.time].combine_chunks(), dtype=np.int64)
    groups = rows[split.group].combine_chunks() if split.by == "group" and split.group else None
    if groups is not None and not pa.types.is_string(groups.type):
        groups = groups.cast(pa.string())
    return SplitRows(
        hashes=unit_hashes(rows[KEY].combine_chunks(), groups, split.seed),
        spans=span_codes(seconds, project.source.span, rows.num_rows),
        seconds=seconds,
        strata=None if split.stratify is None else codes(rows[split.stratify].combine_chunks()),
        balance=None if split.balance is None else codes(rows[split.balance].combine_chunks()),
        said=_said(rows, split.column) if split.by == "column" and split.column else None,
    )


def _said(rows: pa.Table, column: str) -> Codes:
    values = rows[column].combine_chunks()
    said = said_sides(values if pa.types.is_string(values.type) else values.cast(pa.string()))
    if (said < 0).any():
        strange = values.filter(pa.array(said < 0))
        raise DataRejected(
            f"The column {column!r}, which split.column names, says {strange[0].as_py()!r} in {len(strange):,} rows; it may say {', '.join(SIDES)}. "
            "Correct it at the source, or `split` in project.yaml.",
            report=[{"rule": f"one of {', '.join(SIDES)}", "column": column, "rows": len(strange), "example": str(strange[0].as_py())}],
        )
    return said


def first_test(rows: pa.Table, prepared: SplitRows, project: Project) -> Mask:
    """The rows that the first run seals. A label that is only for evaluation may be missing, but not in what judges.

    Raises:
        DataRejected: there would be none, or nothing else.
    """
    chosen = select_test(prepared, project.split)
    if project.label is not None:
        chosen &= ~missing_labels(rows[project.label.column].combine_chunks())
    if not chosen.any() or chosen.all():
        by_time = f" (split.test_from: {project.split.test_from})" if project.split.test_from else ""
        raise DataRejected(
            f"The split by {project.split.by}{by_time} would seal {int(chosen.sum()):,} of {len(chosen):,} rows for the test set, and both sides need "
            "some. Read more rows, or change `split` in project.yaml.",
            report=[{"rule": "rows in every split", "column": _split_column(project)}],
        )
    return chosen


def _split_column(project: Project) -> str | None:
    split = project.split
    return {"row": None, "time": project.time, "group": split.group, "column": split.column}[split.by]


def assign(
    rows: pa.Table, prepared: SplitRows, project: Project, *, keys: pa.Array, groups: pa.Array | None, period: Period | None
) -> Assigned:
    """Split what is not sealed into train and validation.

    Args:
        rows: with `KEY`.
        prepared: of these rows.
        project: its split.
        keys: of the sealed rows.
        groups: values of `split.group` that have a sealed row, for `by: group`.
        period: the first and the last second of the sealed rows, for `by: time`.

    Raises:
        ConfigError: the validation set would be too small.
        DataRejected: nothing is left to train on, or the validation set does not hold what `split.validation_holds` asks for.
    """
    sealed = np.asarray(pc.is_in(rows[KEY], value_set=keys))
    sealed_group = np.zeros(len(sealed), dtype=np.bool_)
    if groups is not None and project.split.group is not None:
        sealed_group = np.asarray(pc.is_in(rows[project.split.group], value_set=groups.drop_null())) & ~sealed
    if prepared.said is not None:
        sealed_group = (prepared.said == SIDES.index("test")) & ~sealed
    seconds = prepared.seconds if prepared.seconds is not None else np.zeros(len(sealed), dtype=np.int64)
    near_sealed = near(seconds, period, project.split.gap_days) & ~sealed
    nowhere = sealed | sealed_group | near_sealed
    free = np.flatnonzero(~nowhere)
    if len(free) < 2:  # noqa: PLR2004 - one to train on, one to watch
        gap = f", and {int(near_sealed.sum()):,} lie within split.gap_days of it" if near_sealed.any() else ""
        raise DataRejected(
            f"Only {len(free)} of {len(sealed):,} rows are not part of the sealed test set{gap}, too few for training and validation. Widen the window, or "
            "correct the source.",
            report=[{"rule": "rows in every split", "column": None}],
        )
    validation = np.zeros(len(sealed), dtype=np.bool_)
    validation[free[select_validation(_at(prepared, free), project.split)]] = True
    train = ~(nowhere | validation)
    require_validation_set(rows, train, validation, project)
    return Assigned(train=train, validation=validation, sealed=sealed, sealed_group=sealed_group, near_sealed=near_sealed)


def near(seconds: npt.NDArray[np.int64], period: Period | None, days: int) -> Mask:
    """Which of the times lie less than `split.gap_days` from the sealed period, or in it; none where there is no gap."""
    if period is None or not days:
        return np.zeros(len(seconds), dtype=np.bool_)
    first, last = period
    return (seconds > first - days * _DAY) & (seconds < last + days * _DAY)


def joined_with(rows: pa.Table, assigned: Assigned, more: pa.Table, validation: Mask) -> tuple[pa.Table, Assigned]:
    """`rows` and `more` as one table with their places; `more` is trained on but for `validation`."""
    none = np.zeros(len(validation), dtype=np.bool_)
    sides = (("train", ~validation), ("validation", validation), ("sealed", none), ("sealed_group", none), ("near_sealed", none))
    places = {side: np.append(getattr(assigned, side), mask) for side, mask in sides}
    return pa.concat_tables([rows, more]).combine_chunks(), Assigned(**places)


def _at(prepared: SplitRows, places: Places) -> SplitRows:
    def taken(values: Codes | None) -> Codes | None:
        return None if values is None else values[places]

    return SplitRows(
        hashes=prepared.hashes[places],
        spans=prepared.spans[places],
        seconds=taken(prepared.seconds),
        strata=taken(prepared.strata),
        balance=taken(prepared.balance),
        said=taken(prepared.said),
    )


def proof(rows: pa.Table, assigned: Assigned, project: Project, *, keys: pa.Array, groups: pa.Array | None) -> Mapping[str, Any]:
    """Look the values up in each other's splits, for the manifest. Sharing one is a bug in this package, so it is asserted."""
    by = project.split.group if project.split.by == "group" and project.split.group else KEY
    values = rows[by].combine_chunks()
    held = {
        name: values.filter(pa.array(mask)).unique().drop_null()
        for name, mask in (("train", assigned.train), ("validation", assigned.validation))
    }
    held["test"] = (keys if groups is None else groups).drop_null()
    shared = {
        f"{one}/{other}": int(pc.sum(pc.is_in(held[other], value_set=held[one])).as_py() or 0)
        for one, other in (("train", "validation"), ("train", "test"), ("validation", "test"))
    }
    assert not any(shared.values()), f"splits share values of {by}: {shared}"
    return {"by": "key" if by == KEY else by, "values": {name: len(found) for name, found in held.items()}, "shared": shared}


def written_order(rows: pa.Table, time: str | None) -> Places:
    """Places of the rows by time, then key, so that a file's bytes are a function of its rows."""
    by = [(KEY, "ascending")] if time is None else [(time, "ascending"), (KEY, "ascending")]
    return np.asarray(pc.sort_indices(rows.select([name for name, _ in by]), sort_keys=by), dtype=np.int64)
