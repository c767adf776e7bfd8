"""What breaks the reviewed schema, as TensorFlow Data Validation finds it, in words that lead to a row.

The checks are TFDV's; here its anomalies are given our names and a way to find the rows (`Pick`). Columns that are on one side
only are compared here, so that a renamed column reads as what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from mlpipelines.validation import tfdv_core
from mlpipelines.validation.anomalies import Anomaly, Pick, told_only
from mlpipelines.validation.schemas import domain_of, feature_of
from mlserving.statistics.columns import Column

_Type = anomalies_pb2.AnomalyInfo
_MISSING = {
    _Type.FEATURE_TYPE_LOW_FRACTION_PRESENT,
    _Type.FEATURE_TYPE_LOW_NUMBER_PRESENT,
    _Type.FEATURE_TYPE_NOT_PRESENT,
    _Type.FEATURE_TYPE_NO_VALUES,
}
_ABOVE = {_Type.INT_TYPE_BIG_INT, _Type.FLOAT_TYPE_BIG_FLOAT, _Type.BOOL_TYPE_BIG_INT}
_BELOW = {_Type.INT_TYPE_SMALL_INT, _Type.FLOAT_TYPE_SMALL_FLOAT, _Type.BOOL_TYPE_SMALL_INT}
_COLUMNS = {_Type.SCHEMA_NEW_COLUMN, _Type.SCHEMA_MISSING_COLUMN}


def schema_anomalies(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, columns: Mapping[str, Column], schema: schema_pb2.Schema
) -> list[Anomaly]:
    """Everything in the data that breaks the schema.

    Args:
        statistics: of both splits together, as TFDV wrote them.
        columns: the same, as `columns.read_snapshot` reads them.
        schema: the reviewed one.
    """
    expected = {feature.name for feature in schema.feature}
    found = [*_one_sided(expected, set(columns))]
    for info in tfdv_core.validate_statistics(statistics, schema).anomaly_info.values():
        name = ".".join(info.path.step)
        if name in columns and name in expected and columns[name].present:
            found += [_translated(name, reason, columns[name], schema) for reason in info.reason if reason.type not in _COLUMNS]
    rejected = {anomaly.column for anomaly in found}
    return [*found, *(anomaly for anomaly in _tolerated(columns, schema) if anomaly.column not in rejected)]


def _one_sided(expected: set[str], there: set[str]) -> Iterator[Anomaly]:
    hint = "; renamed?" if expected - there and there - expected else ""
    for name in sorted(expected - there):
        yield Anomaly(column=name, rule="column missing", what=f"the schema has it and the data has not{hint}", share=1.0)
    for name in sorted(there - expected):
        what = f"the data has it and the schema has not{hint}"
        yield Anomaly(column=name, rule="column not in the schema", what=what, pick=Pick(kind="any"))


def _translated(name: str, reason: Any, column: Column, schema: schema_pb2.Schema) -> Anomaly:
    domain = domain_of(schema, name)
    feature = feature_of(schema, name)
    if reason.type == _Type.ENUM_TYPE_UNEXPECTED_STRING_VALUES and domain is not None:
        what = f"values that are not among the {len(domain)} of the schema"
        return Anomaly(column=name, rule="not in the domain", what=what, pick=Pick(kind="outside", values=domain))
    if reason.type in _MISSING and feature is not None:
        wanted = feature.presence.min_fraction
        what = f"{column.missing_share:.1%} of rows have no value; the schema asks for one in {wanted:.0%} of rows"
        return Anomaly(column=name, rule="value missing", what=what, share=column.missing_share, pick=Pick(kind="missing"))
    return Anomaly(column=name, rule=_rule(reason.type), what=_sentence(reason), pick=_bounds(feature, reason.type))


def _rule(kind: int) -> str:
    if kind in _ABOVE | _BELOW:
        return "out of range"
    named = {_Type.UNEXPECTED_DATA_TYPE: "wrong type", _Type.ENUM_TYPE_INVALID_UTF8: "broken UTF-8"}
    return named.get(kind, "breaks the schema")


def _bounds(feature: Any, kind: int) -> Pick:
    domain = feature.int_domain if feature.HasField("int_domain") else feature.float_domain
    if kind in _ABOVE:
        return Pick(kind="between", low=float(domain.max))
    if kind in _BELOW:
        return Pick(kind="between", high=float(domain.min), without_high=True)
    return Pick(kind="any")


def _sentence(reason: Any) -> str:
    return " ".join(f"{reason.short_description}: {reason.description}".split()).rstrip(". ")


def _tolerated(columns: Mapping[str, Column], schema: schema_pb2.Schema) -> Iterator[Anomaly]:
    """Warnings for values outside a domain that the schema lets pass, because they are few."""
    for name, column in columns.items():
        domain = domain_of(schema, name)
        if domain is None or column.texts is None:
            continue
        outside = [value for value in column.texts.counts if value not in set(domain)]
        if outside:
            what = f"values that are not among the {len(domain)} of the schema, few enough for it"
            yield told_only(Anomaly(column=name, rule="not in the domain", what=what, pick=Pick(kind="outside", values=domain)))
