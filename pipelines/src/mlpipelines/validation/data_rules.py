"""Rules beside the reviewed schema: what no schema can say, because it takes two data sets, two splits or a clock.

Pure functions over `columns.Snapshot`; `steps.validate` brings the snapshots and the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from mlpipelines.artifacts import SplitName
from mlpipelines.project import Project
from mlpipelines.validation.anomalies import Anomaly, Pick, told_only
from mlpipelines.validation.columns import Snapshot
from mlserving.statistics.columns import Column
from mlserving.statistics.distances import Shift, pooled_share, share_noise, shift

Compared = Mapping[str, tuple[Shift, float]]
"""By column: how far it moved, and its threshold."""
ROWS = "(rows)"
"""Stands for the column where an anomaly is about the data set."""


def empty_splits(current: Snapshot) -> list[Anomaly]:
    """Splits without a row, where nothing else can be said."""
    return [
        Anomaly(column=ROWS, rule="no rows", what=f"the {split} split has no row; is the time window empty?", share=0.0)
        for split, rows in current.rows.items()
        if rows == 0
    ]


def missing_values(current: Snapshot, last: Snapshot | None, project: Project) -> Iterator[Anomaly]:
    """Columns without any value, labels that are missing, and missing shares that moved."""
    label = project.label.column if project.label and project.label.use == "training" else None
    for name, column in current.whole.items():
        if column.rows and not column.present:
            what = "no row has a value; was it renamed?"
            found = Anomaly(column=name, rule="all missing", what=what, share=1.0, pick=Pick(kind="missing"))
            yield told_only(found) if _only_evaluates(name, project) else found
        elif name == label and column.missing:
            what = f"{column.missing:,} rows have no label; leave them out at the source"
            yield Anomaly(column=name, rule="label missing", what=what, share=column.missing_share, pick=Pick(kind="missing"))
        elif last is not None and name in last.whole:
            yield from _missing_moved(last.whole[name], column, project.validation.max_missing_change)


def _only_evaluates(name: str, project: Project) -> bool:
    return project.label is not None and project.label.column == name and project.label.use == "evaluation"


def _missing_moved(before: Column, after: Column, limit: float) -> Iterator[Anomaly]:
    shares, rows = (before.missing_share, after.missing_share), (before.rows, after.rows)
    allowed = limit + share_noise(pooled_share(shares, rows), rows)
    if abs(shares[1] - shares[0]) > allowed:
        what = f"missing went from {shares[0]:.1%} to {shares[1]:.1%} of rows; a change of {allowed:.1%} is allowed"
        pick = Pick(kind="missing" if shares[1] > shares[0] else "any")
        yield Anomaly(column=after.name, rule="missing share", what=what, share=after.missing_share, pick=pick)


def infinite_values(current: Snapshot) -> Iterator[Anomaly]:
    """Warnings for numeric columns with an infinite value: a mean over them is not a number."""
    for name, column in current.whole.items():
        if column.numbers is not None and math.inf in (column.numbers.maximum, -column.numbers.minimum):
            low, high = (math.inf, math.inf) if column.numbers.maximum == math.inf else (-math.inf, -math.inf)
            pick = Pick(kind="between", low=low, high=high)
            yield told_only(Anomaly(column=name, rule="infinite value", what="not every value is finite", pick=pick))


def growth(rows: int, last_rows: int | None, limit: float | None) -> Iterator[Anomaly]:
    """Many times the rows of the last accepted data set."""
    if last_rows and limit is not None and rows > last_rows * limit:
        what = f"{rows:,} rows where the last accepted data had {last_rows:,}: more than {limit:g} times; has a join gone wrong?"
        yield Anomaly(column=ROWS, rule="growth", what=what, share=1.0)


def future_times(current: Snapshot, project: Project, now: datetime) -> Iterator[Anomaly]:
    """Rows that happened later than `validation.future_hours` from `now`."""
    hours, name = project.validation.future_hours, project.time
    column = current.whole.get(name) if name is not None else None
    if hours is None or name is None or column is None or column.numbers is None:
        return
    limit = now + timedelta(hours=hours)
    if column.numbers.maximum > limit.timestamp():
        newest = _day(column.numbers.maximum)
        what = f"the newest row is of {newest}, and it is {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield Anomaly(column=name, rule="in the future", what=what, pick=Pick(kind="between", low=limit.timestamp()))


def _day(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} seconds after 1970"


def drift(last: Snapshot, current: Snapshot, project: Project) -> Compared:
    """How far each column lies from the last accepted data set, and its threshold. The label's classes have their own rules."""
    left_out = {project.label.column} if project.label is not None and project.label.kind != "number" else set()
    return _compare(last.whole, current.whole, project, project.validation.drift, left_out)


def skew(current: Snapshot, project: Project) -> Compared:
    """How far each column of the validation split lies from the training split, and its threshold."""
    return _compare(current.train, current.validation, project, project.validation.skew, set())


def shift_anomalies(compared: Compared, rule: str, split: SplitName | None) -> Iterator[Anomaly]:
    """The columns that moved further than their threshold and chance together allow.

    Args:
        compared: of `drift` or `skew`.
        rule: how it is called.
        split: where rows to show are to be found.
    """
    for name, (found, threshold) in compared.items():
        if found.exceeds(threshold):
            measured = f"{found.measure} distance {found.distance:.3f}, allowed {threshold:g} + {found.noise:.3f} for sampling"
            yield Anomaly(column=name, rule=rule, what=f"{found.where} ({measured})", pick=_pick(found), split=split)


def _pick(found: Shift) -> Pick:
    if found.between is not None:
        return Pick(kind="between", low=found.between[0], high=found.between[1])
    return Pick(kind="among", values=found.values) if found.values else Pick(kind="any")


def _compare(
    before: Mapping[str, Column], after: Mapping[str, Column], project: Project, default: float | None, left_out: set[str]
) -> Compared:
    compared = {}
    for name, column in after.items():
        threshold = project.validation.columns.get(name, default)
        if name in before and name not in left_out and threshold is not None and _comparable(name, project):
            found = shift(before[name], column)
            if found is not None:
                compared[name] = (found, threshold)
    return compared


def _comparable(name: str, project: Project) -> bool:
    """A key and the content of bytes are always new; time moves on, unless a threshold was set for it."""
    if name in project.validation.columns:
        return True
    kind = project.column_types.get(name)
    return name not in project.validation.ignore and name != project.key and kind not in ("bytes", "timestamp")
