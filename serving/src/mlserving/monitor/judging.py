"""From what was measured to alarms: which number is beyond which limit, and why, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mlserving.monitor.findings import Alarm, Group, Parity

FEATURE_DRIFT, PREDICTION_DRIFT = "ModelFeatureDrift", "ModelPredictionDrift"
MISSING_VALUES = "ModelMissingValues"
QUALITY_LOW = "ModelQualityLow"
LABELS_LATE = "ModelLabelsLate"
PARITY_BROKEN = "ModelParityBroken"
DECIDING = ("accuracy_weighted", "accuracy", "recall_at_capacity")
"""What `floor` is about, the first of these that there is: weighted accuracy speaks of all answers, not of those that were reviewed."""
LEAST_LABELS = 30
"""Fewer labels than this raise no alarm, whatever they say."""


def alarms(model: str, groups: Iterable[Group], parity: Sequence[Parity]) -> list[Alarm]:
    """Everything that is beyond its limit."""
    found = [alarm for group in groups for alarm in (*_drift(model, group), *_quality(model, group), *_late(model, group))]
    return found + [alarm for each in parity for alarm in _parity(model, each)]


def deciding(group: Group) -> str | None:
    """The metric that the group's floor is about; None where there are no labels for it."""
    return next((name for name in DECIDING if name in group.quality.metrics), None)


def _drift(model: str, group: Group) -> Iterator[Alarm]:
    for column in group.columns:
        labels = {"model": model, **group.labels, "column": column.column}
        if column.drifted and column.distance is not None:
            name = PREDICTION_DRIFT if column.column.startswith("output/") else FEATURE_DRIFT
            allowed = f"{column.measure} {column.distance:.3f}, allowed {column.limit:.3f} with {column.rows:,} rows"
            yield Alarm(
                name=name,
                labels=labels,
                value=column.distance,
                threshold=column.limit,
                reason=f"{column.column}: {column.where} ({allowed})",
            )
        if column.missing_moved:
            reason = (
                f"{column.column} is missing in {column.missing:.1%} of {column.rows:,} rows; in training in {column.missing_before:.1%}"
            )
            yield Alarm(
                name=MISSING_VALUES,
                labels=labels,
                value=abs(column.missing - column.missing_before),
                threshold=column.missing_limit,
                reason=reason,
            )


def below_floor(group: Group) -> bool:
    """Whether the deciding metric's whole interval is below the floor, with labels enough."""
    name = deciding(group)
    if name is None or group.floor is None or not group.judged:
        return False
    estimate = group.quality.metrics[name]
    return estimate.high < group.floor and estimate.rows >= LEAST_LABELS


def _quality(model: str, group: Group) -> Iterator[Alarm]:
    name = deciding(group)
    if name is not None and group.floor is not None and below_floor(group):
        found = group.quality.metrics[name]
        told = f"{name} is {found.value:.3f} ({found.low:.3f} to {found.high:.3f}, {found.rows:,} labels)"
        yield Alarm(
            name=QUALITY_LOW,
            labels={"model": model, **group.labels, "metric": name},
            value=found.value,
            threshold=group.floor,
            reason=f"{told}; the floor is {group.floor:g}",
        )


def _late(model: str, group: Group) -> Iterator[Alarm]:
    """Of all rows of a version and track: slices have the same labellers."""
    limit, found = group.label_delay_limit, group.labelling
    if limit is None or group.slice or not group.judged:
        return
    late = lateness(group)
    if late > limit:
        heard = f"nine in ten labels come within {found.delay_p90 / 3600:.1f} h" if found.delay_p90 is not None else "no label has come"
        reason = f"{heard}, {found.labelled_share:.1%} of {group.rows:,} rows have one; {limit / 3600:.1f} h are allowed"
        yield Alarm(name=LABELS_LATE, labels={"model": model, **group.labels}, value=late, threshold=limit, reason=reason)


def lateness(group: Group) -> float:
    """Seconds that labels are late by the worst sign: the delay of nine in ten, the age of the newest, or, without any, that of the oldest prediction."""
    found = group.labelling
    if not found.labelled:
        return found.oldest_unlabelled_age or 0.0
    return max(found.delay_p90 or 0.0, found.newest_label_age or 0.0)


def _parity(model: str, found: Parity) -> Iterator[Alarm]:
    if found.failures:
        yield Alarm(
            name=PARITY_BROKEN,
            labels={"model": model, "version": str(found.version)},
            value=float(found.failures),
            threshold=0.0,
            reason=f"{found.failures} of {found.requests} golden requests were not answered as when version {found.version} was published: {found.example}",
        )
