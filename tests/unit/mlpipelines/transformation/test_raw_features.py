"""Raw rows as the features' graph takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlpipelines.errors import DataRejected
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.transformation.raw_features import arrow_schema, fill_missing, to_tensors


def project(**features: str) -> Project:
    values = {"name": "p", "team": "t", "task": "detection", "source": {"kind": "csv", "path": "x"}, "features": features}
    return parse_project(values, origin="test")


def rows(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    )


def test_a_missing_text_is_empty_and_a_missing_number_is_nan() -> None:
    filled = fill_missing(
        project(text="string", image="bytes", amount="float"), rows(text=["a", None], image=[None, b"\xff"], amount=[None, 1.5])
    )
    assert filled["text"].to_pylist() == [b"a", b""]
    assert filled["image"].to_pylist() == [b"", b"\xff"]
    assert math.isnan(filled["amount"][0].as_py())
    assert filled["amount"][1].as_py() == 1.5


def test_only_declared_features_pass_in_their_declared_order() -> None:
    wanted = project(b="integer", a="string")
    filled = fill_missing(wanted, rows(a=["x"], label=["secret"], b=[1]))
    assert filled.schema == arrow_schema(wanted)
    assert filled.schema.names == ["b", "a"]


@pytest.mark.parametrize("kind", ["integer", "timestamp"])
def test_a_missing_integer_is_refused_by_name(kind: str) -> None:
    with pytest.raises(DataRejected, match="'count' has 1 missing"):
        fill_missing(project(count=kind), rows(count=[1, None]))


def test_a_column_that_is_not_there_or_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(DataRejected, match="no column 'count'"):
        fill_missing(project(count="integer"), rows(other=[1]))
    with pytest.raises(DataRejected, match=r"'count' holds string where project\.yaml declares 'integer'"):
        fill_missing(project(count="integer"), rows(count=["many"]))


@pytest.mark.parametrize(
    ("kind", "column", "kept"),
    [
        ("[string]", pa.array([["a", None, ""], None, ["b"]]), [[b"a"], [], [b"b"]]),
        ("[integer]", pa.array([[1, -1, 2], [], None]), [[1, 2], [], []]),
        ("[float]", pa.array([[0.5, float("nan")], [None], [2.0]], pa.list_(pa.float32())), [[0.5], [], [2.0]]),
    ],
)
def test_an_element_that_equals_the_padding_is_no_element(kind: str, column: pa.Array, kept: list[Any]) -> None:
    assert fill_missing(project(many=kind), rows(many=column))["many"].to_pylist() == kept


def test_lists_of_a_slice_are_those_of_its_rows() -> None:
    batch = rows(many=pa.array([["a"], ["b", ""], None, ["c"]])).slice(1)
    assert fill_missing(project(many="[string]"), batch)["many"].to_pylist() == [[b"b"], [], [b"c"]]


def test_tensors_for_a_request_are_arrays_with_padded_lists() -> None:
    batch = rows(text=["a", None], when=[1, 2], many=pa.array([[1], [2, 3]]), words=pa.array([None, ["x"]], pa.list_(pa.string())))
    tensors = to_tensors(project(text="string", when="timestamp", many="[integer]", words="[string]"), batch)
    assert tensors["text"].tolist() == [b"a", b""]
    assert tensors["when"].dtype == np.int64
    assert tensors["many"].tolist() == [[1, -1], [2, 3]]
    assert tensors["words"].tolist() == [[b""], [b"x"]]


def test_rows_without_any_element_still_have_a_column_of_padding() -> None:
    tensors = to_tensors(project(many="[float]"), rows(many=pa.array([None, []], pa.list_(pa.float32()))))
    assert tensors["many"].shape == (2, 1)
    assert np.isnan(tensors["many"]).all()
