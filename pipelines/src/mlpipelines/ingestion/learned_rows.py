"""Which labelled predictions become rows to learn from, and which do not, each for a named reason. Pure: tables in, tables out.

A prediction is a row where all features of the project were logged, its label can be one of the project's, and the row is not known yet: what
looks like a sealed row, or like one of the source, stays out, by key where the key was logged and by what the model is asked in any
case. So nothing that judges is ever learned from, and nothing is learned from twice. `split.gap_days` holds for predictions as for
the source's rows, for their labels are told as late. The sealed test set is drawn before anybody
comes here, and takes nothing from here.

Which side a row is on follows from its prediction's id alone, or from its group. Columns that a model is not asked (context, a key) are
null. Who told the labels is counted: reviewers saw what the model was least sure of, others what they came across, so neither is a
sample of what is asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.artifacts import KEY
from mlpipelines.ingestion import labels
from mlpipelines.ingestion.assignment import Assigned, Period, near
from mlpipelines.ingestion.canonical import Repairs, canonical_array, offenders
from mlpipelines.ingestion.labelled_predictions import PREDICTION_ID, RECEIVED, ROW, TELLER, TIME, TRUTH
from mlpipelines.ingestion.reading import utc
from mlpipelines.ingestion.row_keys import content_hashes
from mlpipelines.ingestion.sources import Window
from mlpipelines.ingestion.splits import Mask, drawn_alone
from mlpipelines.project import ColumnType, Label, Project
from mlpipelines.transformation.raw_features import as_asked
from mlserving.predictions.records import ENCODED, FEATURE, bytes_of

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a prediction must not be: the rows that are known already."""

    rows: pa.Table
    """Of the source, labels as they came, with `KEY`."""
    assigned: Assigned
    sealed: pa.Table
    """The sealed rows: `KEY`, and the features that they have in today's types."""
    sealed_groups: pa.Array | None = None
    """For a split by group."""
    period: Period | None = None
    """The first and the last second of the sealed rows, where `split.gap_days` keeps a distance to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The rows, and what is told of them."""

    rows: pa.Table
    """As the source's rows."""
    validation: Mask
    """Those that watch training; the others are trained on."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the manifest: `train`, `validation`, `from` (by who told the label), `left_out` (by reason), `labelled_until`."""
    warnings: tuple[str, ...] = ()


def learned_rows(told: pa.Table | None, around: Around, project: Project, window: Window) -> Learned:
    """The rows of `told` that are learned from.

    Args:
        told: as `labelled_predictions.read_labelled` gives them.
        around: the source's rows and the sealed ones.
        project: its columns, label and split.
        window: the times that are trained on.
    """
    if told is None or project.label is None:
        return Learned(rows=around.rows.slice(0, 0), validation=np.zeros(0, dtype=np.bool_))
    sieve = _Sieve(told)
    sieve.drop("repeated", _repeats(_ids(sieve.told)))
    sieve.drop("told_by_others", ~np.isin(_column(sieve.told, TELLER).to_pylist(), project.source.learn_from))
    never = _drop_unlogged(sieve, project)
    sieve.rows = _canonical(sieve, around.rows, project)
    sieve.drop("outside_window", _outside(sieve.rows, project.time, window))
    if project.time is not None:
        sieve.drop("near_sealed", near(_seconds(sieve.rows, project.time), around.period, project.split.gap_days))
    strangers = _drop_unknown_labels(sieve, around, project.label)
    _drop_known(sieve, around, project)
    validation = _validation(sieve, around, project)
    return Learned(
        rows=sieve.rows,
        validation=validation,
        facts=_facts(sieve, validation, len(told)),
        warnings=tuple(_warnings(sieve.left_out, never, strangers)),
    )


class _Sieve:
    """The predictions that are left, and how many went for which reason."""

    def __init__(self, told: pa.Table) -> None:
        self.told = told.combine_chunks()
        self.rows = self.told
        """The same predictions as rows of the data set, once they are."""
        self.left_out: dict[str, int] = {}

    def drop(self, reason: str, mask: npt.ArrayLike) -> None:
        """Leave out the predictions of the mask."""
        gone = np.asarray(mask, dtype=np.bool_)
        if gone.any():
            self.left_out[reason] = self.left_out.get(reason, 0) + int(gone.sum())
            kept = pa.array(~gone)
            self.told, self.rows = (table.filter(kept).combine_chunks() for table in (self.told, self.rows))


def _ids(told: pa.Table) -> pa.Array:
    """What a prediction is called among rows: `prediction/<id>/<row>`."""
    return pc.binary_join_element_wise("prediction", _column(told, PREDICTION_ID), _column(told, ROW).cast(pa.string()), "/")


def _repeats(keys: pa.Array) -> Mask:
    """All but the first of each key: a shadow's copy of a prediction, or a file that was seen merged and unmerged."""
    places = np.asarray(keys.dictionary_encode().indices)
    again = np.ones(len(places), dtype=np.bool_)
    again[np.unique(places, return_index=True)[1]] = False
    return again


def _drop_unlogged(sieve: _Sieve, project: Project) -> list[str]:
    """Leave out what lacks a feature: it is not to be logged, or was too large, or unreadable. Returns the features that none has."""
    never = [name for name in project.features if FEATURE + name not in sieve.told.column_names]
    lacking = np.full(sieve.told.num_rows, bool(never))
    for name in project.features:
        if name not in never:
            lacking |= np.asarray(_column(sieve.told, FEATURE + name).is_null())
    sieve.drop("not_logged", lacking)
    return never


def _canonical(sieve: _Sieve, source: pa.Table, project: Project) -> pa.Table:
    """The predictions as the source's rows are: features and time cast, the label too, `KEY`, null for what was not asked."""
    assert project.label is not None
    features = project.features if sieve.told.num_rows else {}
    unreadable = np.zeros(sieve.told.num_rows, dtype=np.bool_)
    for name, kind in features.items():
        unreadable[offenders(_asked(sieve.told, name, kind), kind, len(unreadable))] = True
    sieve.drop("unreadable", unreadable)
    columns = {name: canonical_array(_asked(sieve.told, name, kind), kind, Repairs()) for name, kind in features.items()}
    columns[project.label.column] = _truths(_column(sieve.told, TRUTH), source.schema.field(project.label.column).type, project.label)
    if project.time is not None and project.time not in columns:
        columns[project.time] = pc.floor_temporal(_column(sieve.told, TIME), unit="second").cast(pa.timestamp("s", "UTC")).cast(pa.int64())
    logged_key = columns.get(project.key) if project.key is not None else None
    columns[KEY] = _ids(sieve.told) if logged_key is None else pc.coalesce(logged_key.cast(pa.string()), _ids(sieve.told))
    count = sieve.told.num_rows
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in source.schema], schema=source.schema)


def _asked(told: pa.Table, name: str, kind: ColumnType) -> pa.Array:
    """A logged feature as it was asked: what is no text, the log writes as a `data:` URL."""
    values = _column(told, FEATURE + name)
    if pa.types.is_string(values.type) and (kind == "bytes" or pc.any(pc.starts_with(values, ENCODED)).as_py()):
        return pa.array([bytes_of(text) for text in values.to_pylist()], pa.binary())
    return values


def _outside(rows: pa.Table, time: str | None, window: Window) -> Mask:
    if time is None:
        return np.zeros(rows.num_rows, dtype=np.bool_)
    seconds = _seconds(rows, time)
    early = seconds < (window.since if window.since is not None else -(2**62))
    return early | (seconds >= (window.until if window.until is not None else 2**62))


def _seconds(rows: pa.Table, time: str) -> npt.NDArray[np.int64]:
    return np.asarray(_column(rows, time), dtype=np.int64)


def _truths(texts: pa.Array, kind: pa.DataType, label: Label) -> pa.Array:
    """What was told, as the label column has it; null where it says nothing of the kind."""
    if label.kind == "flag" and label.positive is None:
        texts = labels.known_flags(texts)
    return texts if pa.types.is_string(kind) else pa.array([_number(text, kind) for text in texts.to_pylist()], kind)


def _number(text: str | None, kind: pa.DataType) -> float | int | None:
    """The number that somebody wrote, if it is one."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    if not math.isfinite(value) or (pa.types.is_integer(kind) and value != int(value)):
        return None
    return int(value) if pa.types.is_integer(kind) else value


def _drop_unknown_labels(sieve: _Sieve, around: Around, label: Label) -> list[str]:
    """Leave out labels that say nothing, and classes that no row of the source has: a slip of the pen must not become a class. Returns examples."""
    values = _column(sieve.rows, label.column)
    sieve.drop("unreadable", labels.missing_labels(values))
    if label.kind == "number":
        return []
    values, known = _column(sieve.rows, label.column), _column(around.rows, label.column).unique()
    folded = pa.array([label.other], pa.string()) if label.min_rows > 1 and pa.types.is_string(values.type) else pa.array([], known.type)
    strange = ~np.asarray(pc.is_in(values, value_set=pa.concat_arrays([known, folded])))
    sieve.drop("unknown_class", strange)
    return [str(value) for value in values.filter(pa.array(strange)).unique().to_pylist()]


def _drop_known(sieve: _Sieve, around: Around, project: Project) -> None:
    """Leave out what looks like a sealed row or like one of the source, and what belongs to a sealed group."""
    group = project.split.group if project.split.by == "group" else None
    if group is not None and group not in project.features:
        sieve.drop("unknown_group", np.ones(sieve.rows.num_rows, dtype=np.bool_))  # it may be a sealed one
    if group is not None and around.sealed_groups is not None:
        sieve.drop("sealed_group", pc.is_in(_column(sieve.rows, group), value_set=around.sealed_groups.drop_null()))
    if not sieve.rows.num_rows:
        return
    sieve.drop("repeated", _repeats(_column(sieve.rows, KEY)))  # of a key that was logged
    for reason, known in (("sealed", around.sealed), ("in_source", around.rows)):
        comparable = [name for name in project.features if name in known.column_names]
        asked = content_hashes(as_asked(project, sieve.rows, comparable))
        alike = np.isin(asked, content_hashes(as_asked(project, known, comparable))) if comparable else np.ones(len(asked), dtype=np.bool_)
        sieve.drop(reason, alike | np.asarray(pc.is_in(_column(sieve.rows, KEY), value_set=_column(known, KEY))))


def _validation(sieve: _Sieve, around: Around, project: Project) -> Mask:
    """By the prediction's id; with a group, where the group's other rows are."""
    group = project.split.group if project.split.by == "group" else None
    if group is None:
        return drawn_alone(_column(sieve.rows, KEY), None, project.split)
    groups = _column(sieve.rows, group)
    drawn = drawn_alone(_column(sieve.rows, KEY), groups.cast(pa.string()), project.split)
    for mask, side in ((around.assigned.validation, True), (around.assigned.train, False)):
        there = _column(around.rows, group).filter(pa.array(mask)).drop_null()
        drawn[np.asarray(pc.is_in(groups, value_set=there))] = side
    return drawn


def _facts(sieve: _Sieve, validation: Mask, told: int) -> dict[str, Any]:
    tellers = Counter(_column(sieve.told, TELLER).to_pylist())
    until = pc.max(sieve.told[RECEIVED]).as_py()
    return {
        "labelled": told,
        "train": int((~validation).sum()),
        "validation": int(validation.sum()),
        "from": dict(sorted(tellers.items())),
        "left_out": dict(sieve.left_out),
        "labelled_until": None if until is None else utc(int(until.timestamp())),
    }


def _warnings(left_out: Mapping[str, int], never: list[str], strangers: list[str]) -> Iterator[str]:
    if never and "not_logged" in left_out:
        yield (
            f"{left_out['not_logged']:,} labelled predictions cannot be learned from: {', '.join(map(repr, never))} is not logged "
            "(deployment.log.features; source.learn_from: [] says that none should be)"
        )
    if strangers:
        shown = ", ".join(map(repr, strangers[:_SHOWN]))
        yield f"{left_out['unknown_class']:,} labelled predictions name a class that no row of the source has: {shown}"


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()
