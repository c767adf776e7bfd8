"""The local server answers as TensorFlow Serving does, asked with the official messages, with plain HTTP and with our clients."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from mlserving import wire
from mlserving.client.ask import Client, PredictRequest, connect
from mlserving.client.grpc_client import tensor_from_wire
from mlserving.client.signature import ModelSpec, Tensor
from mlserving.errors import ConfigError, NotServed

pytestmark = pytest.mark.slow

DEMO = ModelSpec(name="demo")
TOOLS = {"merchant": Tensor.of("DT_STRING", ["tools"]), "amount": Tensor.of("DT_FLOAT", [0.0])}


@pytest.fixture(scope="module")
def prediction(server: Any) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(server: Any) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(params=["grpc", "rest"])
def client(server: Any, request: pytest.FixtureRequest) -> Iterator[Client]:
    with connect(getattr(server, request.param), grpc=request.param == "grpc") as opened:
        yield opened


def call(server: Any, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(f"http://{server.rest}{path}", data, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def predict_request(**spec: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.get("name", "demo")
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.inputs["merchant"].CopyFrom(tf.make_tensor_proto(["tools", "travel"]))
    request.inputs["amount"].CopyFrom(tf.make_tensor_proto([0.0, 0.0], dtype=tf.float32))
    return request


def fill_examples(request: Any, signature: str) -> Any:
    request.model_spec.name = "demo"
    request.model_spec.signature_name = signature
    for merchant, amount in (("tools", 0.0), ("travel", 1.5)):
        example = request.input.example_list.examples.add()
        example.features.feature["merchant"].bytes_list.value.append(merchant.encode())
        example.features.feature["amount"].float_list.value.append(amount)
    return request


def test_predict_answers_with_typed_values_and_says_which_version_answered(prediction: Any) -> None:
    response = prediction.Predict(predict_request(), timeout=30)
    assert list(response.outputs["label"].string_val) == [b"tools", b"travel"]
    assert list(response.outputs["scores"].float_val) == [0.875, 0.125, 0.125, 0.125, 0.875, 0.125]
    assert tf.make_ndarray(response.outputs["scores"]).shape == (2, 3)
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(("spec", "version"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2), ({}, 2)])
def test_version_and_label_choose_who_answers(prediction: Any, spec: dict[str, Any], version: int) -> None:
    response = prediction.Predict(predict_request(**spec), timeout=30)
    assert response.model_spec.version.value == version
    assert list(response.outputs["version"].int64_val) == [version, version]


def test_the_output_filter_leaves_the_rest_out(prediction: Any) -> None:
    request = predict_request()
    request.output_filter.append("label")
    assert list(prediction.Predict(request, timeout=30).outputs) == ["label"]


def test_classify_gives_labels_with_scores(prediction: Any) -> None:
    response = prediction.Classify(fill_examples(classification_pb2.ClassificationRequest(), "classify"), timeout=30)
    rows = [[(item.label, item.score) for item in row.classes] for row in response.result.classifications]
    assert rows[0] == [("tools", 0.875), ("travel", 0.125), ("other", 0.125)]
    assert [label for label, _ in rows[1]] == ["tools", "travel", "other"]


def test_regress_gives_one_value_for_each_example_and_takes_a_shared_context(prediction: Any) -> None:
    request = fill_examples(regression_pb2.RegressionRequest(), "regress")
    assert [item.value for item in prediction.Regress(request, timeout=30).result.regressions] == [0.0, 3.0]
    request.input.Clear()
    request.input.example_list_with_context.context.features.feature["amount"].float_list.value.append(4)
    request.input.example_list_with_context.examples.add()
    assert [item.value for item in prediction.Regress(request, timeout=30).result.regressions] == [8.0]


def test_multi_inference_answers_each_task(prediction: Any) -> None:
    request = inference_pb2.MultiInferenceRequest()
    request.input.CopyFrom(fill_examples(regression_pb2.RegressionRequest(), "regress").input)
    for method in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "demo", method
    first, second = prediction.MultiInference(request, timeout=30).results
    assert first.classification_result.classifications[0].classes[0].label == "tools"
    assert second.regression_result.regressions[1].value == 3.0


def test_metadata_holds_the_signatures(prediction: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "demo"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert prediction.GetModelMetadata(request, timeout=30).metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "classify", "regress"} <= set(signatures.signature_def)


def test_status_lists_every_version_newest_first(models: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "demo"
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(item.version, item.state) for item in models.GetModelStatus(request, timeout=30).model_version_status] == [
        (2, available),
        (1, available),
    ]


@pytest.mark.parametrize("service", ["", "PredictionService", "tensorflow.serving.ModelService"])
def test_the_health_check_says_serving(server: Any, service: str) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=wire.HealthCheckRequest.SerializeToString,
            response_deserializer=wire.HealthCheckResponse.FromString,
        )
        assert check(wire.HealthCheckRequest(service=service), timeout=30).status == 1


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"name": "demx"}, "NOT_FOUND", "Models served here: demo, types"),
        ({"version": 7}, "NOT_FOUND", "Served versions of demo: 1, 2"),
        ({"label": "nope"}, "INVALID_ARGUMENT", "Labels of demo: canary, stable"),
        ({"name": ""}, "INVALID_ARGUMENT", "Missing ModelSpec"),
    ],
)
def test_a_model_that_is_not_served_is_told_with_what_is(prediction: Any, change: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(predict_request(**change), timeout=30)
    assert caught.value.code().name == code
    assert text in caught.value.details()


def test_wrong_inputs_are_told_with_the_expected_ones(prediction: Any) -> None:
    request = predict_request()
    request.inputs["amont"].CopyFrom(request.inputs.pop("amount"))
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=30)
    assert "missing: amount; unknown: amont. Expected inputs: amount: float [batch]; merchant: string [batch]." in caught.value.details()
    request = predict_request()
    request.inputs["amount"].CopyFrom(tf.make_tensor_proto([1, 2]))
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=30)
    assert "Input amount has type int32, but signature serving_default expects amount: float [batch]." in caught.value.details()
    request.inputs["amount"].CopyFrom(tf.make_tensor_proto([[1.0], [2.0]]))
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=30)
    assert "Input amount has shape [2, 1]" in caught.value.details()


def test_inputs_of_different_batch_sizes_are_refused_and_the_server_goes_on(prediction: Any) -> None:
    request = predict_request()
    request.inputs["amount"].CopyFrom(tf.make_tensor_proto([1.0, 2.0, 3.0]))
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=30)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert prediction.Predict(predict_request(), timeout=30)


def test_rest_predicts_rows_and_columns(server: Any) -> None:
    rows = {"instances": [{"merchant": "tools", "amount": 0.0}, {"merchant": "travel", "amount": 0.0}]}
    status, answer = call(server, "/v1/models/demo/versions/1:predict", rows)
    assert status == 200
    assert answer["predictions"][1] == {"label": "travel", "scores": [0.125, 0.875, 0.125], "version": 1}
    columns = {"signature_name": "serving_default", "inputs": {"merchant": ["tools"], "amount": [0]}}
    assert call(server, "/v1/models/demo/labels/canary:predict", columns) == (
        200,
        {"outputs": {"label": ["tools"], "scores": [[0.875, 0.125, 0.125]], "version": [2]}},
    )


def test_rest_takes_and_gives_nan(server: Any) -> None:
    status, answer = call(server, "/v1/models/demo:predict", b'{"instances": [{"merchant": "tools", "amount": NaN}]}')
    assert status == 200
    assert all(math.isnan(score) for score in answer["predictions"][0]["scores"])


def test_rest_classifies_and_regresses(server: Any) -> None:
    examples = {"signature_name": "classify", "context": {"amount": 0.0}, "examples": [{"merchant": "tools"}]}
    assert call(server, "/v1/models/demo:classify", examples) == (
        200,
        {"results": [[["tools", 0.875], ["travel", 0.125], ["other", 0.125]]]},
    )
    examples = {"signature_name": "regress", "examples": [{"amount": 1.25}, {"amount": [2.0]}]}
    assert call(server, "/v1/models/demo:regress", examples) == (200, {"results": [2.5, 4.0]})


def test_rest_tells_status_and_metadata(server: Any) -> None:
    fine = {"error_code": "OK", "error_message": ""}
    assert call(server, "/v1/models/demo/labels/stable") == (
        200,
        {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": fine}]},
    )
    status, answer = call(server, "/v1/models/demo/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "demo", "signature_name": "", "version": "2"}
    amount = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["amount"]
    assert amount["dtype"] == "DT_FLOAT"
    assert amount["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/v1/models/demx:predict", {"instances": [1]}, 404, "Models served here: demo, types"),
        ("/v1/models/demx", None, 404, "Models served here"),
        ("/v1/models/demo/versions/9/metadata", None, 404, "Served versions of demo: 1, 2"),
        ("/v1/models/demo/labels/nope:predict", {"instances": [1]}, 400, "Labels of demo"),
        ("/v1/models/demo:predict", b"{", 400, "JSON Parse error"),
        ("/v1/models/demo:predict", {"instances": [{"merchant": "a"}]}, 400, "missing: amount"),
        ("/v1/models/demo:predict", {"signature_name": "x", "instances": [1]}, 400, "classify, regress, serving_default"),
        ("/v1/models/demo:classify", {"examples": [{"amount": 1.0}]}, 400, "signature_name classify"),
        ("/v1/models/demo:regress", {"signature_name": "regress", "examples": []}, 400, "at least one example"),
        ("/v1/models/demo:regress", {"signature_name": "regress", "examples": [{"amount": [1, "a"]}]}, 400, "mixes types"),
        ("/v1/models/demo:regress", {"signature_name": "regress", "examples": [{}]}, 400, "amount"),
        ("/v1/models/demo:frobnicate", {}, 400, "Malformed request: POST"),
        ("/v1/models", None, 400, "Malformed request: GET"),
    ],
)
def test_rest_errors_have_a_status_and_a_text(server: Any, path: str, body: Any, status: int, text: str) -> None:
    code, answer = call(server, path, body)
    assert code == status
    assert text in answer["error"]


def test_both_clients_get_the_same_answer(client: Client) -> None:
    response = client.predict(PredictRequest(model=DEMO, inputs=TOOLS))
    assert response.outputs["label"].nested() == [b"tools"]
    assert response.outputs["scores"].nested() == [[0.875, 0.125, 0.125]]
    assert response.version in {2, None}
    chosen = client.predict(PredictRequest(model=ModelSpec(name="demo", label="stable"), inputs=TOOLS, outputs=["version"]))
    assert {name: tensor.nested() for name, tensor in chosen.outputs.items()} == {"version": [1]}


def test_both_clients_carry_every_type(client: Client) -> None:
    signature = client.signatures(ModelSpec(name="types"))["serving_default"]
    assert str(signature.inputs["pair"]) == "pair: int64 [batch, 2]"
    sent = {
        "flag": [True, False],
        "small": [1, 2],
        "exact": [1.0, 2.0],
        "tags": [["a", ""], ["ü", "d"]],
        "pair": [[1, 2], [3, -(2**60)]],
        "half": [0.5, 1.0],
    }
    inputs = {name: Tensor.of(signature.inputs[name].dtype, value) for name, value in sent.items()}
    outputs = client.predict(PredictRequest(model=ModelSpec(name="types"), inputs=inputs)).outputs
    assert {name: tensor.nested() for name, tensor in outputs.items()} == {
        "flag": [False, True],
        "small": [2, 3],
        "exact": [1 / 3, 2 / 3],
        "tags": [[b"a", b""], ["ü".encode(), b"d"]],
        "pair": [[2, 4], [6, -(2**61)]],
        "half": [1.0, 2.0],
        "raw_bytes": [b"\xff\xef", b"\xff\xef"],
    }


def test_both_clients_see_the_same_status_and_signatures(server: Any) -> None:
    with connect(server.grpc, grpc=True) as first, connect(server.rest, grpc=False) as second:
        assert first.status(DEMO) == second.status(DEMO)
        assert first.signatures(DEMO) == second.signatures(DEMO)
        sent = PredictRequest(model=ModelSpec(name="demo", version=1), inputs=TOOLS)
        assert first.predict(sent) == second.predict(sent)


def test_both_clients_translate_refusals(client: Client) -> None:
    with pytest.raises(NotServed, match="Models served here: demo, types"):
        client.predict(PredictRequest(model=ModelSpec(name="demx"), inputs=TOOLS))
    with pytest.raises(ConfigError, match="Expected inputs: amount: float"):
        client.predict(PredictRequest(model=DEMO, inputs={}))
    with pytest.raises(NotServed):
        client.status(ModelSpec(name="demo", version=9))


def test_a_request_above_grpcs_default_limit_is_answered(server: Any) -> None:
    many = 400_000
    inputs = {"merchant": Tensor.of("DT_STRING", ["x" * 10] * many), "amount": Tensor.of("DT_FLOAT", [0.0] * many)}
    with connect(server.grpc, grpc=True) as opened:
        assert opened.predict(PredictRequest(model=DEMO, inputs=inputs, outputs=["label"])).outputs["label"].shape == (many,)


def test_our_messages_have_the_official_field_numbers_and_types() -> None:
    official = {
        "TensorProto": "tensorflow.TensorProto", "TensorShapeProto": "tensorflow.TensorShapeProto", "Dim": "tensorflow.TensorShapeProto.Dim",
        "TensorInfo": "tensorflow.TensorInfo", "SignatureDef": "tensorflow.SignatureDef",
        "SignatureDefMap": "tensorflow.serving.SignatureDefMap", "Any": "google.protobuf.Any", "Int64Value": "google.protobuf.Int64Value",
        "BytesList": "tensorflow.BytesList", "FloatList": "tensorflow.FloatList", "Int64List": "tensorflow.Int64List",
        "Feature": "tensorflow.Feature", "Features": "tensorflow.Features", "Example": "tensorflow.Example",
    }  # fmt: skip
    from google.protobuf import descriptor_pool

    for name, fields in wire.MESSAGES.items():
        if name.startswith("HealthCheck"):  # the official health messages are not installed
            continue
        real = descriptor_pool.Default().FindMessageTypeByName(official.get(name, f"tensorflow.serving.{name}"))
        for field, (number, kind) in fields.items():
            other = real.fields_by_name[field]
            assert other.number == number, f"{name}.{field}"
            assert other.is_repeated == kind.startswith(("repeated", "map")), f"{name}.{field}"
            scalar = kind.removeprefix("repeated ")
            if scalar in wire._SCALARS:
                same = other.type == wire._SCALARS[scalar] or (scalar == "int32" and other.type == other.TYPE_ENUM)
                assert same, f"{name}.{field}"


@pytest.mark.parametrize("value", [[1.5, 2.5], [7, 7, 7], [[True, False]], [b"a", b""], [[]], 2.5])
def test_every_spelling_of_a_tensor_is_read(value: Any) -> None:
    array = tf.constant(value).numpy()
    proto = wire.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    assert tensor_from_wire(proto).nested() == array.tolist()
