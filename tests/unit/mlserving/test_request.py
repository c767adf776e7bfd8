"""What a person types becomes tensors of the types that the model's signature tells."""

from __future__ import annotations

import base64
import json
import math

import pytest

from mlserving.client.request import example_line, row_of_arguments, rows_of_lines, tensors
from mlserving.client.signature import Signature, Tensor, TensorSpec
from mlserving.errors import ConfigError


def spec(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


CARDS = Signature(
    name="serving_default",
    method="tensorflow/serving/predict",
    inputs={
        "merchant": spec("merchant", "DT_STRING", -1),
        "amount": spec("amount", "DT_FLOAT", -1),
        "month": spec("month", "DT_INT64", -1),
        "refund": spec("refund", "DT_BOOL", -1),
        "tags": spec("tags", "DT_STRING", -1, -1),
        "lags": spec("lags", "DT_FLOAT", -1, 3),
    },
    outputs={"score": spec("score", "DT_FLOAT", -1)},
)


def no_file(path: str) -> bytes:
    raise AssertionError(path)


def values(rows: list[dict[str, object]]) -> dict[str, object]:
    return {name: tensor.nested() for name, tensor in tensors(rows, CARDS).items()}


def test_typed_values_get_the_types_of_the_signature() -> None:
    row = row_of_arguments(["merchant=007", "amount=12", "month=3", "refund=yes", 'tags=["a"]', "lags=[1, 2, 3]"], CARDS, no_file)
    assert row == {"merchant": "007", "amount": 12.0, "month": 3, "refund": True, "tags": ["a"], "lags": [1, 2, 3]}


def test_a_value_may_contain_equal_signs_and_what_looks_like_a_file() -> None:
    assert row_of_arguments(["merchant=a=b@c"], CARDS, no_file) == {"merchant": "a=b@c"}


def test_the_bytes_of_a_file_and_bytes_in_json_reach_the_model_as_they_are() -> None:
    photo = b"\xff\xd8\xff=@"
    assert row_of_arguments(["merchant@a=b.jpg"], CARDS, {"a=b.jpg": photo}.__getitem__) == {"merchant": photo}
    assert values(rows_of_lines([json.dumps({"merchant": {"b64": base64.b64encode(photo).decode()}})], CARDS, "-"))["merchant"] == [photo]


def test_only_text_takes_a_file_and_what_is_no_base64_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"amount: float.*takes no file: write amount=1.5"):
        row_of_arguments(["amount@a.jpg"], CARDS, no_file)
    with pytest.raises(ConfigError, match="no base64"):
        tensors([{"merchant": {"b64": "?"}}], CARDS)


def test_what_is_left_out_is_missing_in_the_way_that_models_expect() -> None:
    sent = values([{}])
    assert sent["merchant"] == [b""]
    assert sent["month"] == [-1]
    assert sent["refund"] == [False]
    assert sent["tags"] == [[b""]]
    assert tensors([{}], CARDS)["lags"].shape == (1, 3)
    assert all(math.isnan(value) for value in tensors([{}], CARDS)["lags"].values + tensors([{}], CARDS)["amount"].values)


def test_lists_of_different_rows_are_padded_to_the_longest() -> None:
    assert values([{"tags": ["a", "b"]}, {"tags": ["c"]}])["tags"] == [[b"a", b"b"], [b"c", b""]]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("amount", "not name=value.*amount: float"),
        ("amont=1", "Did you mean 'amount'"),
        ("amount=x", "amount: float .batch. cannot be 'x'"),
        ("month=1.5", "month: int64 .batch. cannot be '1.5'"),
        ("refund=maybe", "true or false"),
        ("tags=a", "JSON list"),
    ],
)
def test_a_wrong_argument_is_told_with_what_would_be_right(argument: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        row_of_arguments([argument], CARDS, no_file)


def test_a_list_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="lists of 3"):
        tensors([{"lags": [1, 2, 3, 4]}], CARDS)


def test_a_file_has_one_object_a_line_and_a_mistake_names_its_line() -> None:
    assert rows_of_lines(['{"amount": 1}', "", '{"amount": null}'], CARDS, "rows.jsonl") == [{"amount": 1}, {"amount": None}]
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 2 is no JSON.*such as \{"):
        rows_of_lines(["{}", "{"], CARDS, "rows.jsonl")
    with pytest.raises(ConfigError, match="line 1 is no object"):
        rows_of_lines(["[]"], CARDS, "rows.jsonl")


def test_the_example_is_itself_a_valid_row() -> None:
    assert tensors(rows_of_lines([example_line(CARDS)], CARDS, "example"), CARDS)


@pytest.mark.parametrize("nested", [3, [], [1, 2], [[1, 2], [3, 4], [5, 6]], [[[1], [2]]], [[], []]])
def test_a_tensor_gives_back_the_lists_that_it_was_made_of(nested: object) -> None:
    assert Tensor.of("DT_INT64", nested).nested() == nested


@pytest.mark.parametrize("ragged", [[[1], [1, 2]], [1, [2]], [[1], 2]])
def test_ragged_lists_are_no_tensor(ragged: object) -> None:
    with pytest.raises(ConfigError):
        Tensor.of("DT_INT64", ragged)
