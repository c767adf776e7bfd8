"""Class names and encoded labels."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mlpipelines.errors import DataRejected
from mlpipelines.project import Label
from mlpipelines.project_file import parse_project
from mlpipelines.transformation.label_codes import class_names, encode, encoded_type, learned


def label(**values: object) -> Label:
    return Label.model_validate({"column": "category", **values})


def test_classes_are_sorted_whatever_the_order_of_rows_and_files() -> None:
    assert class_names(label(), [pa.array(["rent", "food"]), pa.array(["cash", "food", None])]) == ("cash", "food", "rent")


def test_class_ids_are_places_in_the_list_of_names() -> None:
    assert encode(label(), ["cash", "food"], pa.array(["food", "cash", None])).to_pylist() == [1, 0, None]


def test_a_class_that_training_never_saw_is_other_where_there_is_one_and_has_no_answer_elsewhere() -> None:
    assert encode(label(), ["food", "other"], pa.array(["new", None])).to_pylist() == [1, None]
    assert encode(label(), ["food"], pa.array(["new"])).to_pylist() == [None]


def test_class_labels_may_be_integers() -> None:
    names = class_names(label(), [pa.array([3, 1, 3])])
    assert names == ("1", "3")
    assert encode(label(), names, pa.array([3])).to_pylist() == [1]


def test_training_rows_without_any_label_are_refused() -> None:
    with pytest.raises(DataRejected, match="'category'"):
        class_names(label(), [pa.array([None, None], pa.string())])


def test_many_classes_keep_the_known_ones_and_an_empty_list_is_an_answer() -> None:
    column = pa.array([["b", "new", "a"], [], None, ["b"]])
    assert class_names(label(kind="classes"), [column]) == ("a", "b", "new")
    encoded = encode(label(kind="classes"), ["a", "b"], column)
    assert encoded.to_pylist() == [[1, 0], [], None, [1]]
    assert encoded.type == encoded_type(label(kind="classes"))


def test_many_classes_of_a_slice_are_those_of_its_rows() -> None:
    column = pa.array([["a"], ["b", "a"], ["b"]]).slice(1, 2)
    assert encode(label(kind="classes"), ["a", "b"], column).to_pylist() == [[1, 0], [1]]


@pytest.mark.parametrize("column", [pa.array([1, 0, None]), pa.array(["True", "false", None]), pa.array([1.0, 0.0, None])])
def test_flags_are_read_from_numbers_and_words(column: pa.Array) -> None:
    assert encode(label(kind="flag"), (), column).to_pylist() == [1, 0, None]


def test_a_flag_with_a_positive_value_is_that_value_or_not() -> None:
    assert encode(label(kind="flag", positive="outlier"), (), pa.array(["outlier", "fine", None])).to_pylist() == [1, 0, None]


def test_a_flag_of_other_words_is_refused_with_the_setting_that_explains_it() -> None:
    with pytest.raises(DataRejected, match=r"'outlier'.*label\.positive"):
        encode(label(kind="flag"), (), pa.array(["outlier"]))


def test_numbers_become_float32_and_nan_is_no_answer() -> None:
    encoded = encode(label(kind="number"), (), pa.array([1.5, float("nan"), None]))
    assert encoded.to_pylist() == [1.5, None, None]
    assert encoded.type == pa.float32()


def test_a_label_that_only_evaluates_is_not_learned() -> None:
    values = {"name": "p", "team": "t", "task": "detection", "source": {"kind": "csv", "path": "x"}, "features": {"a": "float"}}
    project = parse_project({**values, "label": {"column": "bad", "kind": "flag", "use": "evaluation"}}, origin="test")
    assert learned(project) is None
