"""TensorFlow Serving's JSON, row by row and column by column."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mlserving.client.signature import Signature, TensorSpec
from mlserving.server.answer_errors import RequestError
from mlserving.server.rest_json import parse_body, predict_call, predict_response


def signature(**inputs: str) -> Signature:
    specs = {name: TensorSpec(name=name, dtype=dtype, shape=None) for name, dtype in inputs.items()}
    return Signature(name="serving_default", method="", inputs=specs, outputs={})


ONE = signature(x="DT_FLOAT")
TWO = signature(merchant="DT_STRING", amount="DT_FLOAT")


def feeds(body: str, called: Signature) -> dict[str, Any]:
    return {name: array.tolist() for name, array in predict_call(parse_body(body.encode()), called).feeds.items()}


def test_rows_are_stacked_into_columns() -> None:
    body = '{"instances": [{"merchant": "a", "amount": 1}, {"merchant": "b", "amount": 2.5}]}'
    assert feeds(body, TWO) == {"merchant": [b"a", b"b"], "amount": [1.0, 2.5]}


def test_columns_are_taken_as_they_are() -> None:
    assert feeds('{"inputs": {"merchant": ["a"], "amount": [1]}}', TWO) == {"merchant": [b"a"], "amount": [1.0]}


@pytest.mark.parametrize(
    "body", ['{"instances": [[1, 2]]}', '{"instances": [{"x": [1, 2]}]}', '{"inputs": [[1, 2]]}', '{"inputs": {"x": [[1, 2]]}}']
)
def test_a_single_input_may_come_without_its_name(body: str) -> None:
    assert feeds(body, ONE) == {"x": [[1.0, 2.0]]}


def test_bytes_come_as_base64() -> None:
    only = signature(photo="DT_STRING")
    assert feeds('{"instances": [{"b64": "/+8="}]}', only) == {"photo": [b"\xff\xef"]}
    assert feeds('{"instances": [{"photo": {"b64": "/+8="}}]}', only) == {"photo": [b"\xff\xef"]}


def test_missing_numbers_come_as_nan() -> None:
    array = predict_call(parse_body(b'{"instances": [NaN, Infinity]}'), ONE).feeds["x"]
    assert np.isnan(array[0])
    assert np.isposinf(array[1])


@pytest.mark.parametrize(
    ("called", "body", "text"),
    [
        (ONE, "{", "JSON Parse error"),
        (ONE, "[1]", "must be a JSON object"),
        (ONE, "{}", "either 'instances'"),
        (ONE, '{"instances": [1], "inputs": [1]}', "not both"),
        (ONE, '{"instances": []}', "at least one row"),
        (ONE, '{"instances": ["1"]}', r'Input x: float .*got \["1"\]'),
        (ONE, '{"instances": [true]}', "Input x: float"),
        (ONE, '{"instances": [null]}', "write a missing value as NaN"),
        (ONE, '{"instances": [[1], [1, 2]]}', "not of one shape"),
        (TWO, '{"instances": [1]}', "several inputs, so name them"),
        (TWO, '{"instances": [{"merchant": "a"}]}', "missing: amount; unknown: none. Expected inputs: merchant: string"),
        (TWO, '{"inputs": {"merchant": ["a"], "amont": [1]}}', "missing: amount; unknown: amont"),
        (TWO, '{"instances": [{"merchant": 1, "amount": 1}]}', "Input merchant: string .*expected a string"),
        (TWO, '{"instances": [{"merchant": {"b64": "?"}, "amount": 1}]}', "no base64"),
        (TWO, '{"inputs": {"merchant": [["a"], ["a", "b"]], "amount": [1]}}', "Input merchant.*not of one shape"),
        (signature(n="DT_INT64"), '{"instances": [1.5]}', "Input n: int64"),
        (signature(n="DT_INT8"), '{"instances": [300]}', "out of the type's range"),
    ],
)
def test_a_wrong_request_is_told_by_the_name_of_its_input(called: Signature, body: str, text: str) -> None:
    with pytest.raises(RequestError, match=text) as caught:
        predict_call(parse_body(body.encode()), called)
    assert caught.value.code == "INVALID_ARGUMENT"


def array(*values: object, dtype: Any = np.float32) -> Any:
    return np.array(values, dtype)


def test_rows_are_answered_by_rows_and_columns_by_columns() -> None:
    outputs = {"label": array(b"a", b"b", dtype=object), "score": array(0.1, 0.25)}
    assert predict_response(outputs, "rows") == {"predictions": [{"label": "a", "score": 0.1}, {"label": "b", "score": 0.25}]}
    assert predict_response(outputs, "columns") == {"outputs": {"label": ["a", "b"], "score": [0.1, 0.25]}}


def test_a_single_output_is_answered_without_its_name() -> None:
    assert predict_response({"score": array(0.5)}, "rows") == {"predictions": [0.5]}
    assert predict_response({"score": array(0.5)}, "columns") == {"outputs": [0.5]}


def test_floats_are_written_as_short_as_they_are_exact() -> None:
    text = json.dumps(predict_response({"x": array(0.1, 1 / 3, np.nan, -np.inf, 2)}, "rows"))
    assert text == '{"predictions": [0.1, 0.33333334, NaN, -Infinity, 2.0]}'


def test_bytes_are_written_as_base64_where_the_name_says_so_or_text_is_impossible() -> None:
    assert predict_response({"photo_bytes": array(b"a", dtype=object)}, "rows") == {"predictions": [{"b64": "YQ=="}]}
    assert predict_response({"photo": array(b"\xff", dtype=object)}, "rows") == {"predictions": [{"b64": "/w=="}]}


def test_outputs_without_a_common_batch_size_make_no_rows() -> None:
    with pytest.raises(RequestError, match="Ask by columns"):
        predict_response({"a": array(1), "b": array(1, 2)}, "rows")
