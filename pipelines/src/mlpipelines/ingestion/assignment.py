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
from mlpipelines.ingestion.splits import Mask, SplitRows, codes, select_test, select_validation, unit_hashes
from mlpipelines.ingestion.validation_set import require_validation_set
from mlpipelines.project import Project

Places = npt.NDArray[np.int64]
"""Row numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """Where each row goes."""

    train: Mask
    validation: Mask
    sealed: Mask
    sealed_group: Mask
    """Rows that are not sealed themselves and belong to a group that is: they go nowhere."""


def prepare(rows: pa.Table, project: Project) -> SplitRows:
    """What the split looks at, for each of `rows`."""
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
    )


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
            report=[{"rule": "rows in every split", "column": project.time if project.split.by == "time" else project.split.group}],
        )
    return chosen


def assign(rows: pa.Table, prepared: SplitRows, project: Project, *, keys: pa.Array, groups: pa.Array | None) -> Assigned:
    """Split what is not sealed into train and validation.

    Args:
        rows: with `KEY`.
        prepared: of these rows.
        project: its split.
        keys: of the sealed rows.
        groups: values of `split.group` that have a sealed row, for `by: group`.

    Raises:
        ConfigError: the validation set would be too small.
        DataRejected: nothing is left to train on, or the validation set does not hold what `split.validation_holds` asks for.
    """
    sealed = np.asarray(pc.is_in(rows[KEY], value_set=keys))
    sealed_group = np.zeros(len(sealed), dtype=np.bool_)
    if groups is not None and project.split.group is not None:
        sealed_group = np.asarray(pc.is_in(rows[project.split.group], value_set=groups.drop_null())) & ~sealed
    free = np.flatnonzero(~(sealed | sealed_group))
    if len(free) < 2:  # noqa: PLR2004 - one to train on, one to watch
        raise DataRejected(
            f"Only {len(free)} of {len(sealed):,} rows are not part of the sealed test set, too few for training and validation. Widen the window, or "
            "correct the source.",
            report=[{"rule": "rows in every split", "column": None}],
        )
    validation = np.zeros(len(sealed), dtype=np.bool_)
    validation[free[select_validation(_at(prepared, free), project.split)]] = True
    train = ~(sealed | sealed_group | validation)
    require_validation_set(rows, train, validation, project)
    return Assigned(train=train, validation=validation, sealed=sealed, sealed_group=sealed_group)


def joined_with(rows: pa.Table, assigned: Assigned, more: pa.Table, validation: Mask) -> tuple[pa.Table, Assigned]:
    """`rows` and `more` as one table with their places; `more` is trained on but for `validation`."""
    none = np.zeros(len(validation), dtype=np.bool_)
    sides = (("train", ~validation), ("validation", validation), ("sealed", none), ("sealed_group", none))
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
