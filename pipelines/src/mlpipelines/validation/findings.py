"""Every rule about a data set, asked in one place.

`steps.validate` reads what the rules need and writes down what they say; nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlpipelines.project import Project
from mlpipelines.validation import data_rules
from mlpipelines.validation.accepted import Accepted
from mlpipelines.validation.anomalies import Anomaly, told_only
from mlpipelines.validation.columns import Snapshot
from mlpipelines.validation.data_rules import Compared
from mlpipelines.validation.label_rules import ClassCounts, label_anomalies
from mlpipelines.validation.schema_rules import schema_anomalies
from mlpipelines.validation.schemas import domain_of

_SETTINGS: Mapping[str, str] = {
    "drift": "validation.columns.{column}=1",
    "skew": "validation.columns.{column}=1",
    "missing share": "validation.max_missing_change=1",
    "growth": "validation.max_growth=1000",
    "class vanished": "validation.label.vanished=warn",
    "class share": "validation.label.max_share_change=1",
}
"""What lets a rule pass for one run, by rule. The others say that the data is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the rules said about one data set."""

    of_schema: tuple[Anomaly, ...] = ()
    beside_schema: tuple[Anomaly, ...] = ()
    drift: Compared = field(default_factory=dict)
    skew: Compared = field(default_factory=dict)

    @property
    def anomalies(self) -> list[Anomaly]:
        """All of them, what rejects first."""
        return sorted([*self.of_schema, *self.beside_schema], key=lambda anomaly: not anomaly.rejects)

    @property
    def rejecting(self) -> list[Anomaly]:
        """Those for which the data is refused."""
        return [anomaly for anomaly in self.anomalies if anomaly.rejects]

    @property
    def broken_columns(self) -> list[str]:
        """Columns that break the schema."""
        return list(dict.fromkeys(anomaly.column for anomaly in self.of_schema if anomaly.rejects))


def judge(
    project: Project,
    current: Snapshot,
    *,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    last: Accepted | None,
    classes: ClassCounts | None,
    now: datetime,
) -> Findings:
    """Ask every rule.

    Args:
        project: its section `validation` is read.
        current: the data set.
        statistics: of both its splits together, as TFDV wrote them.
        schema: what to hold it against.
        last: the last accepted data set.
        classes: of the label, if it has classes.
        now: for rows in the future.
    """
    rules = project.validation
    drift = data_rules.drift(last.snapshot, current, project) if last else {}
    skew = data_rules.skew(current, project)
    beside = (
        *data_rules.missing_values(current, last.snapshot if last else None, project),
        *data_rules.infinite_values(current),
        *data_rules.growth(current.total_rows, last.snapshot.total_rows if last else None, rules.max_growth),
        *data_rules.future_times(current, project, now),
        *_about_label(project, classes, last, schema),
        *data_rules.shift_anomalies(drift, "drift", None),
        *data_rules.shift_anomalies(skew, "skew", "validation"),
    )
    empty = {anomaly.column for anomaly in beside if anomaly.rule == "all missing"}
    of_schema = tuple(a for a in schema_anomalies(statistics, current.whole, schema) if a.column not in empty)
    return Findings(of_schema=of_schema, beside_schema=beside, drift=drift, skew=skew)


def _about_label(project: Project, classes: ClassCounts | None, last: Accepted | None, schema: schema_pb2.Schema) -> list[Anomaly]:
    """The label's rules. A label that no model learns from only warns."""
    if project.label is None or classes is None or not classes.counts:
        return []
    found = label_anomalies(
        project.label.column,
        classes,
        last=last.classes if last else None,
        classes=domain_of(schema, project.label.column) or (),
        rules=project.validation.label,
    )
    return found if project.label.use == "training" else [told_only(anomaly) for anomaly in found]


def settings_that_let_pass(anomalies: list[Anomaly]) -> list[str]:
    """`section.field=value` for each anomaly, or nothing if one of them cannot be let pass."""
    if any(anomaly.rule not in _SETTINGS for anomaly in anomalies):
        return []
    return list(dict.fromkeys(_SETTINGS[anomaly.rule].format(column=anomaly.column) for anomaly in anomalies))
