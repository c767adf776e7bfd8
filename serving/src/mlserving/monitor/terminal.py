"""Findings as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from mlserving.monitor import judging
from mlserving.monitor.drift import ColumnDrift
from mlserving.monitor.findings import Findings, Group
from mlserving.monitor.intervals import Estimate

_MOST_COLUMNS = 30
_HOUR = 3600


def line(findings: Findings) -> str:
    """One line: for logs."""
    state = f"{len(findings.alarms)} alarms: {findings.alarms[0].reason}" if findings.alarms else "healthy"
    return f"{findings.model}: {findings.rows:,} predictions, {state} ({findings.seconds:.1f} s)"


def text(findings: Findings) -> str:
    """All of it: alarms first, for that is why one looks."""
    head = (
        f"{findings.model}: {findings.rows:,} predictions from {findings.start:%Y-%m-%d %H:%M} to {findings.end:%Y-%m-%d %H:%M} UTC, "
        f"{len(findings.alarms)} alarms"
    )
    parts = [head, *(f"  ALARM {alarm.name} {_where(alarm.labels)}\n        {alarm.reason}" for alarm in findings.alarms)]
    for group in findings.groups:
        parts += _group(group)
    for each in findings.parity:
        parts.append(
            f"\nGolden requests, version {each.version}: {each.requests - each.failures} of {each.requests} answered as published, "
            f"largest difference {each.worst:.2g}"
        )
    return "\n".join([*parts, *(f"\nNote: {note}" for note in findings.notes)])


def _where(labels: object) -> str:
    assert isinstance(labels, dict)
    return " ".join(f"{name}={value}" for name, value in labels.items() if value and name != "model")


def _group(group: Group) -> Iterator[str]:
    piece = f", {group.slice}" if group.slice else ""
    yield f"\nVersion {group.version}, {group.track}{piece}: {group.rows:,} predictions, {group.labelling.labelled_share:.1%} labelled"
    columns = sorted(group.columns, key=lambda each: (not (each.drifted or each.missing_moved), -_closeness(each)))
    if columns:
        yield f"  {'column':<28} {'distance':>9} {'limit':>7} {'effect':>7} {'missing':>8}  what moved most"
    for column in columns[:_MOST_COLUMNS]:
        yield _column(column)
    if len(columns) > _MOST_COLUMNS:
        yield f"  … and {len(columns) - _MOST_COLUMNS} more, all further from their limits"
    yield from _quality(group)


def _closeness(column: ColumnDrift) -> float:
    return (column.distance or 0.0) / column.limit if column.limit else 0.0


def _column(column: ColumnDrift) -> str:
    mark = "!" if column.drifted or column.missing_moved else " "
    distance = f"{column.distance:.3f}" if column.distance is not None else "–"
    effect = f"{column.effect:.2f}" if column.effect is not None else "–"
    return f"{mark} {column.column:<28} {distance:>9} {column.limit:>7.3f} {effect:>7} {column.missing:>8.1%}  {column.where}"


def _quality(group: Group) -> Iterator[str]:
    for name, estimate in group.quality.metrics.items():
        floor = f", floor {group.floor:g}" if group.floor is not None and name == judging.deciding(group) else ""
        yield f"  {name:<28} {_interval(estimate)}{floor}"
    for source, estimate in group.quality.by_source.items():
        yield f"  accuracy, labels from {source:<6} {_interval(estimate)}"
    found = group.labelling
    if found.delay_median is not None and found.delay_p90 is not None:
        yield f"  labels come after             {found.delay_median / _HOUR:.1f} h (median), {found.delay_p90 / _HOUR:.1f} h (nine in ten)"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g}, {estimate.rows:,} labels)"
