"""What rows an exchange becomes, by protocol, method and signature; and that no bytes of anybody break the recorder."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchanges import an_exchange
from mlserving import wire
from mlserving.client.grpc_client import tensor_to_wire
from mlserving.client.signature import Signature, Tensor, TensorSpec
from mlserving.gateway.settings import Log, Outputs
from mlserving.predictions import call
from mlserving.predictions.call import Undecodable
from mlserving.predictions.decode import Decoded, decode
from mlserving.predictions.records import bytes_of, text_of

MOST = 1000


def specs(**types: tuple[str, tuple[int, ...] | None]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in types.items()}


def a_signature(inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], name: str = "serving_default") -> dict[str, Signature]:
    return {name: Signature(name=name, method="tensorflow/serving/predict", inputs=inputs, outputs=outputs)}


INPUTS = specs(amount=("DT_FLOAT", (-1,)), merchant=("DT_STRING", (-1,)), tags=("DT_STRING", (-1, -1)), owner=("DT_STRING", (-1,)))
OUTPUTS = specs(label=("DT_STRING", (-1,)), confidence=("DT_FLOAT", (-1,)), scores=("DT_FLOAT", (-1, 3)))
CARDS = a_signature(INPUTS, OUTPUTS)
LOG = Log(features=("amount", "merchant", "tags"))
ANSWER = {"label": ["food", "rent"], "confidence": [0.5, 1], "scores": [[0.5, 0.25, 0.25], [1, 0, 0]]}
ASKED = {"amount": [1, 2.5], "merchant": ["ACME", "é"], "tags": [["a", "b"], ["c", ""]], "owner": ["Jane Roe", "Jim Roe"]}


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def by_rest(request: Any, response: Any, *, log: Log = LOG, signatures: dict[str, Signature] = CARDS, method: str = "predict") -> Decoded:
    exchange = an_exchange(method=method, request=json.dumps(request).encode(), response=json.dumps(response).encode())
    return decode(exchange, log, signatures, MOST)


def by_grpc(
    inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], *, log: Log = LOG, signatures: dict[str, Signature] = CARDS
) -> Decoded:
    asked, answered = wire.PredictRequest(), wire.PredictResponse()
    for message, tensors in ((asked.inputs, inputs), (answered.outputs, outputs)):
        for name, tensor in tensors.items():
            message[name].CopyFrom(tensor_to_wire(tensor))
    exchange = an_exchange(
        protocol="grpc", method="Predict", request=asked.SerializeToString(), response=answered.SerializeToString(deterministic=True)
    )
    return decode(exchange, log, signatures, MOST)


def values(decoded: Decoded) -> dict[str, list[Any]]:
    for column in decoded.columns.values():
        assert len(column.values) == decoded.rows
        pa.array(column.values, column.type)  # fits Arrow
    return {name: list(column.values) for name, column in decoded.columns.items()}


EXPECTED = {
    "feature/amount": [1.0, 2.5], "feature/merchant": ["ACME", "é"], "feature/tags": [["a", "b"], ["c", ""]],
    "output/label": ["food", "rent"], "output/confidence": [0.5, 1.0], "output/scores": [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        ({"instances": rows_of(ASKED)}, {"predictions": rows_of(ANSWER)}),
        ({"inputs": ASKED}, {"outputs": ANSWER}),
        ({"inputs": ASKED, "signature_name": "serving_default"}, {"outputs": ANSWER}),
    ],
    ids=["rows", "columns", "columns of a named signature"],
)
def test_rest_becomes_one_row_for_each_instance(request_: Any, response: Any) -> None:
    decoded = by_rest(request_, response)
    assert values(decoded) == EXPECTED
    assert (decoded.labels, decoded.confidences) == (["food", "rent"], [0.5, 1.0])
    assert decoded.columns["feature/tags"].type == pa.list_(pa.string())
    assert decoded.columns["output/confidence"].type == pa.float32()


@pytest.mark.parametrize("signatures", [CARDS, {}], ids=["signature", "no signature"])
def test_grpc_becomes_the_same_rows_with_and_without_a_signature(signatures: dict[str, Signature]) -> None:
    inputs = {name: Tensor.of(INPUTS[name].dtype, value) for name, value in ASKED.items()}
    outputs = {name: Tensor.of(OUTPUTS[name].dtype, value) for name, value in ANSWER.items()}
    decoded = by_grpc(inputs, outputs, signatures=signatures)
    assert values(decoded) == EXPECTED
    assert decoded.columns["feature/amount"].type == pa.float32()


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_compressed_bodies_are_read(protocol: str) -> None:
    one, answer = {"amount": [1.0]}, {"label": ["food"]}
    if protocol == "rest":
        request, response = json.dumps({"inputs": one}).encode(), json.dumps({"outputs": {"label": ["food"]}}).encode()
    else:
        asked, answered = wire.PredictRequest(), wire.PredictResponse()
        asked.inputs["amount"].CopyFrom(tensor_to_wire(Tensor.of("DT_FLOAT", one["amount"])))
        answered.outputs["label"].CopyFrom(tensor_to_wire(Tensor.of("DT_STRING", answer["label"])))
        request, response = asked.SerializeToString(), answered.SerializeToString()
    method = {"rest": "predict", "grpc": "Predict"}[protocol]
    exchange = an_exchange(protocol=protocol, method=method, request=gzip.compress(request), response=gzip.compress(response))
    decoded = decode(exchange, LOG, CARDS, MOST)
    assert values(decoded) == {"feature/amount": [1.0], "output/label": ["food"]}


def test_an_input_that_is_not_named_is_in_no_column() -> None:
    decoded = by_rest({"inputs": ASKED}, {"outputs": ANSWER}, log=Log(features=("amount",)))
    assert [name for name in decoded.columns if name.startswith("feature/")] == ["feature/amount"]
    assert "Roe" not in repr(decoded)


def test_an_output_that_repeats_an_input_is_left_out_unless_the_input_is_named() -> None:
    outputs = OUTPUTS | specs(owner=("DT_STRING", (-1,)), merchant=("DT_STRING", (-1,)))
    echo = {**ANSWER, "owner": ASKED["owner"], "merchant": ASKED["merchant"]}
    decoded = by_rest({"inputs": ASKED}, {"outputs": echo}, signatures=a_signature(INPUTS, outputs))
    assert "output/merchant" in decoded.columns
    assert "Roe" not in repr(decoded)


def test_a_single_input_and_output_may_come_without_their_names() -> None:
    signatures = a_signature(specs(text=("DT_STRING", (-1,))), specs(score=("DT_FLOAT", (-1, 1))))
    log = Log(features=("text",), outputs=Outputs(confidence="score"))
    for request, response in (
        ({"instances": ["a", "b"]}, {"predictions": [[0.5], [0.75]]}),
        ({"inputs": ["a", "b"]}, {"outputs": [[0.5], [0.75]]}),
    ):
        decoded = by_rest(request, response, log=log, signatures=signatures)
        assert values(decoded) == {"feature/text": ["a", "b"], "output/score": [[0.5], [0.75]]}
        assert decoded.confidences == [0.5, 0.75]


def test_a_scalar_input_holds_for_each_row() -> None:
    signatures = a_signature(specs(text=("DT_STRING", (-1,)), beam=("DT_INT32", ())), OUTPUTS)
    decoded = by_rest(
        {"inputs": {"text": ["a", "b"], "beam": 4}}, {"outputs": ANSWER}, log=Log(features=("text", "beam")), signatures=signatures
    )
    assert values(decoded)["feature/beam"] == [4, 4]


def test_bytes_that_are_no_text_become_a_data_url_and_text_stays_as_it_is() -> None:
    assert text_of("data:;base64,é") == "data:;base64,é"
    assert text_of(b"\xff\xfe") == "data:;base64,//4="

    signatures = a_signature(specs(image=("DT_STRING", (-1,))), OUTPUTS)
    decoded = by_rest(
        {"instances": [{"image": {"b64": "//4="}}, {"image": "text"}]}, {"predictions": rows_of(ANSWER)}, log=Log(features=("image",)),
        signatures=signatures,
    )  # fmt: skip
    assert values(decoded)["feature/image"] == ["data:;base64,//4=", "text"]


@given(st.binary())
def test_bytes_come_back_from_text(content: bytes) -> None:
    assert bytes_of(text_of(content)) == content or content.startswith(b"data:;base64,")


def test_what_only_looks_like_a_data_url_stays_text() -> None:
    assert bytes_of("data:;base64,é") == "data:;base64,é".encode()


def test_a_value_that_is_too_large_is_left_out_and_counted() -> None:
    asked = {"amount": [1, 2], "merchant": ["x" * (MOST + 1), "y" * MOST], "tags": [["z" * 600, "z" * 600], ["z"]]}
    decoded = by_rest({"instances": rows_of(asked)}, {"predictions": rows_of(ANSWER)})
    assert values(decoded)["feature/merchant"] == [None, "y" * MOST]
    assert values(decoded)["feature/tags"] == [None, ["z"]]
    assert decoded.left_out == 2


def test_examples_are_typed_by_an_input_of_their_name_and_classes_are_the_label() -> None:
    signatures = CARDS | a_signature(specs(inputs=("DT_STRING", (-1,))), {}, "classify")
    request = {
        "signature_name": "classify",
        "context": {"merchant": "ACME"},
        "examples": [{"amount": 1}, {"amount": [2.5], "owner": "Roe"}],
    }
    response = {"results": [[["food", 0.25], ["rent", 0.75]], [["food", 1.0], ["rent", 0.0]]]}
    decoded = by_rest(request, response, signatures=signatures, method="classify")
    assert values(decoded) == {
        "feature/amount": [1.0, 2.5], "feature/merchant": ["ACME", "ACME"],
        "output/classes": [["food", "rent"], ["food", "rent"]], "output/scores": [[0.25, 0.75], [1.0, 0.0]],
    }  # fmt: skip
    assert (decoded.labels, decoded.confidences) == (["rent", "food"], [0.75, 1.0])


def test_regressions_have_a_value() -> None:
    signatures = a_signature(specs(inputs=("DT_STRING", (-1,))), {})
    decoded = by_rest({"examples": [{"amount": 1}, {}]}, {"results": [1.5, 2]}, signatures=signatures, method="regress")
    assert values(decoded) == {"feature/amount": [[1], None], "output/value": [1.5, 2.0]}


def test_grpc_examples_are_read_with_their_context() -> None:
    asked, answered = wire.ClassificationRequest(), wire.ClassificationResponse()
    bundle = asked.input.example_list_with_context
    bundle.context.features.feature["merchant"].bytes_list.value.append(b"ACME")
    for amount in (1.0, 2.5):
        bundle.examples.add().features.feature["amount"].float_list.value.append(amount)
        classes = answered.result.classifications.add().classes
        classes.add(label="food", score=0.25)
        classes.add(label="rent", score=0.75)
    exchange = an_exchange(protocol="grpc", method="Classify", request=asked.SerializeToString(), response=answered.SerializeToString())
    decoded = decode(exchange, LOG, CARDS, MOST)
    assert values(decoded)["feature/amount"] == [1.0, 2.5]
    assert values(decoded)["feature/merchant"] == ["ACME", "ACME"]
    assert decoded.labels == ["rent", "rent"]


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        ({"inputs": ASKED}, {"error": "no"}),
        ({"inputs": ASKED, "signature_name": "another"}, {"outputs": ANSWER}),
        ({"inputs": {**ASKED, "amount": ["1", 2]}}, {"outputs": ANSWER}),
        ({"inputs": {**ASKED, "amount": [True, 2]}}, {"outputs": ANSWER}),
        ({"inputs": {**ASKED, "amount": [1]}}, {"outputs": ANSWER}),
        ({"inputs": ASKED}, {"outputs": {**ANSWER, "label": ["food"]}}),
        ({"instances": []}, {"predictions": []}),
        ([], {}),
        ({"inputs": {**ASKED, "merchant": [{"b64": "é"}, {}]}}, {"outputs": ANSWER}),
    ],
    ids=["error", "signature", "text for a number", "bool for a number", "batch size", "output batch size", "no rows", "list", "object"],
)
def test_what_no_model_would_answer_is_undecodable(request_: Any, response: Any) -> None:
    with pytest.raises(Undecodable):
        by_rest(request_, response)


def test_the_reason_tells_no_value() -> None:
    with pytest.raises(Undecodable) as caught:
        by_rest({"inputs": {**ASKED, "amount": ["Jane Roe", 2]}}, {"outputs": ANSWER})
    assert "Roe" not in str(caught.value)


def test_a_few_bytes_that_stand_for_a_billion_numbers_cost_nothing() -> None:
    asked, answered = wire.PredictRequest(), wire.PredictResponse()
    proto = asked.inputs["amount"]
    proto.dtype, proto.float_val[:] = 1, [1.0]
    for _ in range(3):
        proto.tensor_shape.dim.add(size=10**6)
    answered.outputs["label"].CopyFrom(tensor_to_wire(Tensor.of("DT_STRING", ["food"])))
    exchange = an_exchange(protocol="grpc", method="Predict", request=asked.SerializeToString(), response=answered.SerializeToString())
    assert values(decode(exchange, LOG, CARDS, MOST)) == {"output/label": ["food"]}


def test_a_few_bytes_of_gzip_that_hold_gigabytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "MOST_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(2 << 20))
    with pytest.raises(Undecodable, match="too large"):
        decode(an_exchange(request=bomb), LOG, CARDS, MOST)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"b64": "//4="}),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["amount", "merchant", "tags", "label", "b64"]), inner, max_size=3)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(
    st.sampled_from(["instances", "inputs", "examples", "context", "signature_name", "predictions", "outputs", "results", "error"]),
    JSON,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(BODIES, BODIES, st.sampled_from(["predict", "classify", "regress"]))
def test_any_json_is_rows_or_undecodable(request: Any, response: Any, method: str) -> None:
    with contextlib.suppress(Undecodable):
        values(by_rest(request, response, method=method))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.sampled_from(["Predict", "Classify", "Regress", "predict", "", "Nonsense"]),
    st.data(),
)
def test_any_bytes_are_rows_or_undecodable(request: bytes, response: bytes, method: str, data: st.DataObject) -> None:
    if data.draw(st.booleans()):  # near misses go deeper than noise
        inputs = wire.PredictRequest()
        inputs.inputs["amount"].CopyFrom(tensor_to_wire(Tensor.of("DT_FLOAT", [1.0, 2.0])))
        whole = inputs.SerializeToString()
        place = data.draw(st.integers(0, len(whole) - 1))
        request = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + 1 :]
    protocol = data.draw(st.sampled_from(["grpc", "rest"]))
    with contextlib.suppress(Undecodable):
        values(decode(an_exchange(protocol=protocol, method=method, request=request, response=response), LOG, CARDS, MOST))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_tensors_are_rows_or_undecodable(data: st.DataObject) -> None:
    kinds = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 9, 10, 19, 22, 23, 101])
    asked, answered = wire.PredictRequest(), wire.PredictResponse()
    for message, names in ((asked.inputs, ["amount", "merchant", "tags"]), (answered.outputs, ["label", "confidence", "extra"])):
        for name in data.draw(st.lists(st.sampled_from(names), unique=True)):
            proto = message[name]
            proto.dtype = data.draw(kinds)
            for size in data.draw(st.lists(st.integers(-1, 3) | st.just(2**40), max_size=3)):
                proto.tensor_shape.dim.add(size=size)
            proto.tensor_content = data.draw(st.binary(max_size=16))
            proto.float_val.extend(data.draw(st.lists(st.floats(width=32), max_size=4)))
            proto.string_val.extend(data.draw(st.lists(st.binary(max_size=4), max_size=4)))
            proto.int_val.extend(data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    exchange = an_exchange(protocol="grpc", method="Predict", request=asked.SerializeToString(), response=answered.SerializeToString())
    with contextlib.suppress(Undecodable):
        values(decode(exchange, LOG, data.draw(st.sampled_from([CARDS, {}])), MOST))
