"""Schemas: what is proposed, how it reads, how two differ, and how one is accepted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.validation.schemas import (
    accept_schema,
    describe_schema,
    diff_schemas,
    domain_of,
    feature_of,
    load_schema,
    propose_schema,
    relax_schema,
    render_schema,
)
from mlpipelines.workspace import ProjectState
from mlserving.statistics.columns import Column, Numbers, Texts
from mlserving.workspace import write_whole

ROWS = 1000


def project(**values: object) -> Project:
    base = {
        "name": "payments",
        "team": "finance",
        "task": "classification",
        "source": {"kind": "parquet", "path": "x"},
        "features": {"merchant": "string", "currency": "string", "amount": "float", "day": "integer", "image": "bytes"},
        "label": {"column": "category"},
    }
    return parse_project({**base, **values}, origin="the test")


def proposed(*columns: Column, of: Project | None = None) -> schema_pb2.Schema:
    return propose_schema(written(columns), {column.name: column for column in columns}, of or project())


def entry(schema: schema_pb2.Schema, column: str) -> Any:
    feature = feature_of(schema, column)
    assert feature is not None
    return feature


def text(name: str, counts: dict[str, float], missing: int = 0) -> Column:
    total = sum(counts.values())
    return Column(name=name, rows=ROWS, missing=missing, texts=Texts(counts=counts, total=total, distinct=len(counts)))


def number(name: str, missing: int = 0, low: float = 0, high: float = 1) -> Column:
    return Column(name=name, rows=ROWS, missing=missing, numbers=Numbers(buckets=(), minimum=low, maximum=high))


def written(columns: tuple[Column, ...]) -> statistics_pb2.DatasetFeatureStatisticsList:
    """The statistics that TFDV would have written for these columns, as far as its inference reads them."""
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    data = statistics.datasets.add(num_examples=ROWS)
    for column in columns:
        feature = data.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
        if column.texts is None:
            feature.type = statistics_pb2.FeatureNameStatistics.INT if column.name == "day" else statistics_pb2.FeatureNameStatistics.FLOAT
        feature.path.step.append(column.name)
        stats = feature.num_stats if column.texts is None else feature.string_stats
        common = stats.common_stats
        common.num_non_missing, common.num_missing, common.tot_num_values = column.present, column.missing, column.present
        common.min_num_values = common.max_num_values = 1
        for rank, (value, count) in enumerate(column.texts.counts.items() if column.texts else ()):
            feature.string_stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)
            feature.string_stats.unique = rank + 1
    return statistics


def test_only_text_with_few_values_gets_a_domain() -> None:
    merchants = {f"merchant {i}": 10.0 for i in range(90)} | {f"seen once {i}": 1.0 for i in range(9)}
    schema = proposed(text("merchant", merchants), text("currency", {"GBP": 900, "EUR": 100}))
    assert domain_of(schema, "merchant") is None
    assert domain_of(schema, "currency") == ("EUR", "GBP")
    assert entry(schema, "currency").distribution_constraints.min_domain_mass == pytest.approx(0.99)
    assert [domain.name for domain in schema.string_domain] == ["currency"]


def test_the_label_has_all_its_classes_as_its_domain_even_rare_ones() -> None:
    classes = {f"class {i:03}": 1.0 for i in range(200)}
    schema = proposed(text("category", classes))
    assert domain_of(schema, "category") == tuple(sorted(classes))
    assert not entry(schema, "category").HasField("distribution_constraints")


def test_a_numeric_flag_is_nought_or_one() -> None:
    flags = project(label={"column": "day", "kind": "flag"}, features={"amount": "float"})
    feature = entry(proposed(number("day"), of=flags), "day")
    assert (feature.int_domain.min, feature.int_domain.max) == (0, 1)


def test_integers_are_always_there_and_others_a_little_less_often_than_seen() -> None:
    schema = proposed(number("day"), number("amount", missing=100), text("currency", {"GBP": 1000}))
    shares = {feature.name: feature.presence.min_fraction for feature in schema.feature}
    assert shares["day"] == shares["currency"] == 1
    assert 0.8 < shares["amount"] < 0.9


def test_text_of_digits_stays_text() -> None:
    feature = entry(proposed(text("merchant", {str(10_000 + i): 1.0 for i in range(ROWS)})), "merchant")
    assert feature.WhichOneof("domain_info") is None


def test_bytes_have_no_domain() -> None:
    assert domain_of(proposed(text("image", {"": 1000})), "image") is None


def test_a_description_reads_like_a_table() -> None:
    schema = proposed(number("day"), text("currency", {"GBP": 900, "EUR": 100}), number("amount", missing=100))
    assert describe_schema(schema) == [
        {"column": "day", "type": "integer", "present": "always", "values": "1", "domain": "any"},
        {"column": "currency", "type": "text", "present": "always", "values": "1", "domain": "2 values: EUR, GBP (99% of rows or more)"},
        {"column": "amount", "type": "number", "present": "in 84% of rows or more", "values": "1", "domain": "any"},
    ]


def test_a_schema_does_not_differ_from_itself_or_its_text() -> None:
    schema = proposed(number("day"), text("currency", {"GBP": 1000}))
    assert diff_schemas(schema, schema) == []


def test_a_difference_names_column_and_values() -> None:
    old = proposed(text("currency", {"GBP": 900, "EUR": 100}), number("day"), number("amount"))
    new = proposed(text("currency", {"GBP": 900, "CHF": 100}), number("amount", missing=500), text("merchant", {"a": 1000}))
    rows = {(row["column"], row["what"]): (row["reviewed"], row["proposed"]) for row in diff_schemas(old, new)}
    assert rows["currency", "values of the domain"] == ("EUR", "CHF")
    assert rows["day", "column"] == ("integer, always, any", "–")
    assert rows["merchant", "column"][0] == "–"
    assert rows["amount", "present"][0] == "always"


def test_relaxing_touches_only_what_is_broken_and_forgets_no_value() -> None:
    reviewed = proposed(text("currency", {"GBP": 900, "EUR": 100}), number("day"), number("amount"))
    now = proposed(text("currency", {"GBP": 900, "CHF": 100}), number("amount", missing=500), text("merchant", {"a": 1000}))
    relaxed = relax_schema(reviewed, now, ["currency", "day", "merchant"])
    assert domain_of(relaxed, "currency") == ("CHF", "EUR", "GBP")
    assert feature_of(relaxed, "day") is None
    assert feature_of(relaxed, "merchant") is not None
    assert feature_of(relaxed, "amount") == feature_of(reviewed, "amount")


def test_accepting_writes_the_project_file_and_empties_the_proposal(tmp_path: Path) -> None:
    state = ProjectState(tmp_path / "state")
    schema = proposed(number("day"))
    write_whole(state.proposed_schema, render_schema(schema))
    file = accept_schema(project(), tmp_path, state)
    assert file == tmp_path / "schema.pbtxt"
    assert load_schema(file) == schema
    assert file.read_text().startswith("# What the data of `payments` must look like.")
    assert not state.proposed_schema.exists()


def test_accepting_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Nothing is proposed for payments.*`millrace schema show"):
        accept_schema(project(), tmp_path, ProjectState(tmp_path))


def test_a_schema_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "schema.pbtxt"
    file.write_text("feature {\n  nme: 'x'\n}\n")
    with pytest.raises(ConfigError, match=r"schema.pbtxt is not a schema: 2:"):
        load_schema(file)


def test_tfdvs_core_alone_answers_as_the_whole_package_does() -> None:
    """In a process of its own, for the package must not have been imported before."""
    code = """
import sys
from tensorflow_metadata.proto.v0 import statistics_pb2
from mlpipelines.validation import tfdv_core
statistics = statistics_pb2.DatasetFeatureStatisticsList()
data = statistics.datasets.add(num_examples=9)
feature = data.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
feature.path.step.append("x")
common = feature.string_stats.common_stats
common.num_non_missing = common.tot_num_values = 9
common.min_num_values = common.max_num_values = 1
for rank, (value, count) in enumerate([("a", 6), ("b", 3)]):
    feature.string_stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=value, sample_count=count)
schema = tfdv_core.infer_schema(statistics, max_domain=10)
narrow = type(schema).FromString(schema.SerializeToString())
narrow.string_domain[0].value[:] = ["a"]
anomalies = tfdv_core.validate_statistics(statistics, narrow)
assert tfdv_core._core() is not None
assert "tensorflow" not in sys.modules
import tensorflow_data_validation as tfdv
assert schema == tfdv.infer_schema(statistics, infer_feature_shape=False, max_string_domain_size=10)
assert anomalies == tfdv.validate_statistics(statistics, narrow)
assert list(anomalies.anomaly_info) == ["x"]
print("agreed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "agreed"
