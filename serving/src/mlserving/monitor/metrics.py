"""The findings as Prometheus metrics, all of them always, also when all is well: an absent series is a monitor that does not run.

Names begin with `millrace_monitor_`. Each run replaces what the one before said, so a column or a slice that is gone leaves no stale number.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mlserving.errors import Unavailable
from mlserving.exposition import Families
from mlserving.monitor import judging
from mlserving.monitor.drift import ColumnDrift
from mlserving.monitor.findings import Findings, Group
from mlserving.monitor.intervals import Estimate

PREFIX = "millrace_monitor_"
_GROUP = ("model", "version", "track", "slice")
_COLUMN = (*_GROUP, "column")


DECLARED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("last_run_timestamp_seconds", "When the last run that ended ended.", ("model",)),
    ("last_run_seconds", "How long it took.", ("model",)),
    ("window_seconds", "How long the window is.", ("model",)),
    ("alarms", "Alarms of the last run, by name.", ("model", "alarm")),
    ("rows", "Predictions in the window.", _GROUP),
    ("statistics_present", "1 where the version carries the statistics of its training, without which drift is not measured.", _GROUP),
    ("drift_distance", "Distance to training: L-infinity for text, Jensen-Shannon for numbers.", (*_COLUMN, "measure")),
    ("drift_threshold", "The distance above which it alarms: the project's threshold or what chance reaches with so many rows, the larger.", _COLUMN),
    ("drift_noise", "What chance alone reaches with so many rows.", _COLUMN),
    ("drift_effect", "Cohen's w for text, Cliff's delta for numbers.", _COLUMN),
    ("drift_alarm", "1 where the distance is above the threshold, with rows enough.", _COLUMN),
    ("missing_ratio", "Share of rows without a value.", _COLUMN),
    ("missing_training_ratio", "The same in training.", _COLUMN),
    ("missing_alarm", "1 where it moved further than is allowed, with rows enough.", _COLUMN),
    ("new_values_ratio", "Share of text values that training did not list.", _COLUMN),
    ("quality", "A metric of the labelled predictions.", (*_GROUP, "metric")),
    ("quality_low", "The lower end of its interval.", (*_GROUP, "metric")),
    ("quality_high", "The upper end of its interval.", (*_GROUP, "metric")),
    ("quality_labels", "The labels that it is computed from.", (*_GROUP, "metric")),
    ("quality_floor", "What the version's settings ask of accuracy, or of recall at the capacity.", _GROUP),
    ("quality_alarm", "1 where the interval of the metric that the floor is about lies below it.", _GROUP),
    ("class_precision", "Of a class, among labelled predictions.", (*_GROUP, "class")),
    ("class_recall", "Of a class, among labelled predictions.", (*_GROUP, "class")),
    ("labelled_ratio", "Share of predictions with a label.", _GROUP),
    ("reviewed_ratio", "Share of predictions that a reviewer labelled.", _GROUP),
    ("label_delay_seconds", "From a prediction to its label.", (*_GROUP, "quantile")),
    ("newest_label_age_seconds", "Since the last label of the window's predictions arrived.", _GROUP),
    ("oldest_unlabelled_age_seconds", "Since the oldest prediction of the window that has no label.", _GROUP),
    ("label_lateness_seconds", "The worst sign of late labels; what the limit is held against.", _GROUP),
    ("label_delay_limit_seconds", "How late the version's settings allow labels to be.", _GROUP),
    ("parity_servers_up", "1 where every server that golden requests are asked of answered.", ("model",)),
    ("parity_requests", "Golden requests that were asked.", ("model", "version")),
    ("parity_failures", "Golden requests that were answered differently from when the version was published, or not at all.", ("model", "version")),
    ("parity_worst_difference", "The largest difference, relative to the expected value where that is above 1.", ("model", "version")),
)  # fmt: skip
ALARMS = (
    judging.FEATURE_DRIFT, judging.PREDICTION_DRIFT, judging.MISSING_VALUES, judging.QUALITY_LOW, judging.LABELS_LATE, judging.PARITY_BROKEN
)  # fmt: skip
MOST_CLASSES = 100


def families(all_findings: Iterable[Findings]) -> list[Metric]:
    """Every metric of these runs, one for each model."""
    told = Families(PREFIX)
    for name, text, labels in DECLARED:
        told.declare(name, text, labels)
    for findings in all_findings:
        _tell_run(told, findings)
        for group in findings.groups:
            _tell_group(told, {"model": findings.model, **group.labels}, group)
    return told.all()


def exposition(all_findings: Iterable[Findings]) -> bytes:
    """The metrics as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Told(list(all_findings)))
    return generate_latest(registry)


class Told(Collector):
    """A collector of the last findings of each model. `replace` them and the next scrape tells the new ones."""

    def __init__(self, all_findings: list[Findings] | None = None) -> None:
        self._findings = {findings.model: findings for findings in all_findings or ()}

    def replace(self, findings: Findings) -> None:
        """Take the place of what was known of the model."""
        self._findings = {**self._findings, findings.model: findings}

    @property
    def findings(self) -> list[Findings]:
        """The last of each model."""
        return list(self._findings.values())

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client asks."""
        yield from families(self._findings.values())


def write(path: Path, all_findings: Iterable[Findings]) -> None:
    """Write the text exposition for a node exporter's textfile collector: whole, by one rename.

    Raises:
        Unavailable: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(exposition(all_findings))
        Path(file.name).chmod(0o644)  # the collector runs as somebody else
        os.replace(file.name, path)  # noqa: PTH105  # one call, atomic
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}. Name another file with --metrics-file.") from error


def _tell_run(told: Families, findings: Findings) -> None:
    model = {"model": findings.model}
    told.add("last_run_timestamp_seconds", model, findings.measured_at.timestamp() + findings.seconds)
    told.add("last_run_seconds", model, findings.seconds)
    told.add("window_seconds", model, (findings.end - findings.start).total_seconds())
    for name in ALARMS:
        told.add("alarms", {**model, "alarm": name}, sum(alarm.name == name for alarm in findings.alarms))
    told.add("parity_servers_up", model, findings.servers_reached)
    for each in findings.parity:
        labels = {**model, "version": str(each.version)}
        told.add("parity_requests", labels, each.requests)
        told.add("parity_failures", labels, each.failures)
        told.add("parity_worst_difference", labels, each.worst)


def _tell_group(told: Families, labels: Mapping[str, str], group: Group) -> None:
    told.add("rows", labels, group.rows)
    told.add("statistics_present", labels, group.has_statistics)
    for column in group.columns:
        _tell_column(told, {**labels, "column": column.column}, column)
    for name, estimate in group.quality.metrics.items():
        _tell_quality(told, {**labels, "metric": name}, estimate)
    for each in group.quality.classes[:MOST_CLASSES]:
        told.add("class_precision", {**labels, "class": each.name}, each.precision.value if each.precision else None)
        told.add("class_recall", {**labels, "class": each.name}, each.recall.value if each.recall else None)
    told.add("quality_floor", labels, group.floor)
    told.add("quality_alarm", labels, judging.below_floor(group))
    _tell_labelling(told, labels, group)


def _tell_labelling(told: Families, labels: Mapping[str, str], group: Group) -> None:
    found = group.labelling
    told.add("labelled_ratio", labels, found.labelled_share)
    told.add("reviewed_ratio", labels, found.reviewed_share)
    told.add("label_delay_seconds", {**labels, "quantile": "0.5"}, found.delay_median)
    told.add("label_delay_seconds", {**labels, "quantile": "0.9"}, found.delay_p90)
    told.add("newest_label_age_seconds", labels, found.newest_label_age)
    told.add("oldest_unlabelled_age_seconds", labels, found.oldest_unlabelled_age)
    told.add("label_lateness_seconds", labels, judging.lateness(group))
    told.add("label_delay_limit_seconds", labels, group.label_delay_limit)


def _tell_column(told: Families, labels: Mapping[str, str], column: ColumnDrift) -> None:
    told.add("drift_distance", {**labels, "measure": column.measure}, column.distance)
    told.add("drift_threshold", labels, column.limit)
    told.add("drift_noise", labels, column.noise if column.distance is not None else math.nan)
    told.add("drift_effect", labels, column.effect)
    told.add("drift_alarm", labels, column.drifted)
    told.add("missing_ratio", labels, column.missing)
    told.add("missing_training_ratio", labels, column.missing_before)
    told.add("missing_alarm", labels, column.missing_moved)
    told.add("new_values_ratio", labels, column.new_values)


def _tell_quality(told: Families, labels: Mapping[str, str], estimate: Estimate) -> None:
    told.add("quality", labels, estimate.value)
    told.add("quality_low", labels, estimate.low)
    told.add("quality_high", labels, estimate.high)
    told.add("quality_labels", labels, estimate.rows)
