"""TensorFlow Serving's gRPC services over the library: PredictionService, ModelService, and gRPC's own health check.

Each method is a function from request message to response message. `_answering` is the one place where a refused request
becomes a gRPC status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from mlserving import wire
from mlserving.client.ask import DEFAULT_SIGNATURE
from mlserving.client.grpc_client import STATES
from mlserving.client.signature import ModelSpec
from mlserving.errors import ConfigError
from mlserving.server import answers, examples
from mlserving.server.answer_errors import RequestError, invalid
from mlserving.server.library import Library
from mlserving.server.model_config import from_message
from mlserving.server.servable import Servable
from mlserving.server.tensor_protos import fill, from_proto
from mlserving.server.watcher import Watcher

log = logging.getLogger(__name__)

Method = Callable[[Any], Any]

_STATE_NUMBERS = {name: number for number, name in STATES.items()}
_UNKNOWN_ERROR = 2
_HEALTHY = 1
_HEALTH_SERVICES = frozenset(
    {"", "PredictionService", "ModelService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}
)


class PredictionService:
    """Predict, Classify, Regress, MultiInference, GetModelMetadata."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def predict(self, request: Any) -> Any:
        """PredictRequest → PredictResponse."""
        feeds = {name: from_proto(name, proto) for name, proto in request.inputs.items()}
        with self._library.borrowed(_spec(request)) as servable:
            outputs = answers.predict(servable, request.model_spec.signature_name, feeds, request.output_filter)
            response = predict_pb2.PredictResponse()
            _sign(response, request, servable)
        for name, array in outputs.items():
            fill(response.outputs[name], array)
        return response

    def classify(self, request: Any) -> Any:
        """ClassificationRequest → ClassificationResponse."""
        response = classification_pb2.ClassificationResponse()
        with self._library.borrowed(_spec(request)) as servable:
            _classify(servable, request.model_spec.signature_name, examples.from_input(request.input), response.result)
            _sign(response, request, servable)
        return response

    def regress(self, request: Any) -> Any:
        """RegressionRequest → RegressionResponse."""
        response = regression_pb2.RegressionResponse()
        with self._library.borrowed(_spec(request)) as servable:
            _regress(servable, request.model_spec.signature_name, examples.from_input(request.input), response.result)
            _sign(response, request, servable)
        return response

    def multi_inference(self, request: Any) -> Any:
        """MultiInferenceRequest → MultiInferenceResponse: several classify and regress tasks over the same examples."""
        response = inference_pb2.MultiInferenceResponse()
        sent = examples.from_input(request.input)
        for task in request.tasks:
            with self._library.borrowed(_spec(task)) as servable:
                result = response.results.add()
                if task.method_name == "tensorflow/serving/classify":
                    _classify(servable, task.model_spec.signature_name, sent, result.classification_result)
                elif task.method_name == "tensorflow/serving/regress":
                    _regress(servable, task.model_spec.signature_name, sent, result.regression_result)
                else:
                    raise RequestError("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
                _sign(result, task, servable)
        return response

    def metadata(self, request: Any) -> Any:
        """GetModelMetadataRequest → GetModelMetadataResponse; `signature_def` is the only field there is."""
        unknown = [field for field in request.metadata_field if field != "signature_def"]
        if unknown or not request.metadata_field:
            raise invalid(f"Metadata field {unknown[0] if unknown else ''!r} is not supported; ask for 'signature_def'.")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._library.borrowed(_spec(request)) as servable:
            response.metadata["signature_def"].Pack(signature_map(servable))
            _sign(response, request, servable)
        response.model_spec.signature_name = ""
        return response


class ModelService:
    """GetModelStatus, HandleReloadConfigRequest."""

    def __init__(self, library: Library, watcher: Watcher) -> None:
        self._library = library
        self._watcher = watcher

    def status(self, request: Any) -> Any:
        """GetModelStatusRequest → GetModelStatusResponse."""
        return status_message(self._library, _spec(request))

    def reload(self, request: Any) -> Any:
        """ReloadConfigRequest → ReloadConfigResponse, once the models are loaded or have failed to load."""
        try:
            models = from_message(request.config, "The request's config")
        except ConfigError as error:
            raise invalid(str(error)) from error
        self._watcher.reload(models)
        return model_management_pb2.ReloadConfigResponse()


def status_message(library: Library, spec: ModelSpec) -> Any:
    """The GetModelStatusResponse for `spec`; REST gives it too, as JSON. Raises RequestError when there is no such model."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in library.status(spec):
        item = response.model_version_status.add(version=status.version, state=_STATE_NUMBERS[status.state])
        item.status.error_code = _UNKNOWN_ERROR if status.error else 0
        item.status.error_message = status.error
    return response


def signature_map(servable: Servable) -> Any:
    """The model's SignatureDefMap."""
    message = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.definitions.items():
        message.signature_def[name].CopyFrom(definition)
    return message


def build_server(library: Library, watcher: Watcher, threads: int) -> Any:
    """A grpc.Server with all services, not bound and not started. `threads` requests are answered at a time."""
    # without so_reuseport a second server on the same port is told so, instead of getting every other request
    options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))
    server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="grpc"), options=options)
    prediction, models = PredictionService(library), ModelService(library, watcher)
    server.add_generic_rpc_handlers((
        _service("tensorflow.serving.PredictionService", {
            "Predict": (prediction.predict, predict_pb2.PredictRequest),
            "Classify": (prediction.classify, classification_pb2.ClassificationRequest),
            "Regress": (prediction.regress, regression_pb2.RegressionRequest),
            "MultiInference": (prediction.multi_inference, inference_pb2.MultiInferenceRequest),
            "GetModelMetadata": (prediction.metadata, get_model_metadata_pb2.GetModelMetadataRequest),
        }),
        _service("tensorflow.serving.ModelService", {
            "GetModelStatus": (models.status, get_model_status_pb2.GetModelStatusRequest),
            "HandleReloadConfigRequest": (models.reload, model_management_pb2.ReloadConfigRequest),
        }),
        _service("grpc.health.v1.Health", {"Check": (_check_health, wire.HealthCheckRequest)}),
    ))  # fmt: skip
    return server


def _service(name: str, methods: dict[str, tuple[Method, Any]]) -> Any:
    return grpc.method_handlers_generic_handler(
        name,
        {
            method: grpc.unary_unary_rpc_method_handler(
                _answering(answer), request_deserializer=request.FromString, response_serializer=_serialised
            )
            for method, (answer, request) in methods.items()
        },
    )


def _answering(answer: Method) -> Callable[[Any, Any], Any]:
    def call(request: Any, context: Any) -> Any:
        try:
            return answer(request)
        except RequestError as error:
            context.abort(getattr(grpc.StatusCode, error.code), str(error))

    return call


def _serialised(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def _check_health(request: Any) -> Any:
    """The server answers only once its models are loaded, so whoever gets an answer gets SERVING."""
    if request.service not in _HEALTH_SERVICES:
        raise RequestError("NOT_FOUND", f"unknown service {request.service}")
    return wire.HealthCheckResponse(status=_HEALTHY)


def _spec(message: Any) -> ModelSpec:
    spec = message.model_spec
    if not spec.name:
        raise invalid("Missing ModelSpec: name the model.")
    version = spec.version.value if spec.HasField("version") else None
    return ModelSpec(name=spec.name, version=version, label=spec.version_label or None)


def _sign(response: Any, request: Any, servable: Servable) -> None:
    """Say who answered: every response has the model's name, its version and the signature."""
    response.model_spec.name = servable.model
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE


def _classify(servable: Servable, signature: str, sent: list[bytes], result: Any) -> None:
    for pairs in answers.classify(servable, signature, sent):
        row = result.classifications.add()
        for label, score in pairs:
            row.classes.add(label=label, score=score)


def _regress(servable: Servable, signature: str, sent: list[bytes], result: Any) -> None:
    for value in answers.regress(servable, signature, sent):
        result.regressions.add(value=value)
