"""The gRPC client: our light messages (`mlserving.wire`) over one channel."""

from __future__ import annotations

import struct
from types import TracebackType
from typing import Any, Self

import grpc

from mlserving import wire
from mlserving.client.ask import PredictRequest, PredictResponse, VersionStatus
from mlserving.client.signature import DTYPES, ModelSpec, Signature, Tensor, TensorSpec
from mlserving.errors import ConfigError, NotServed, ServingError, Unavailable

STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
"""gRPC refuses messages above 4 MB by default; a batch of images is larger, and TensorFlow Serving takes any size."""

_NAMES = {number: name for name, number in DTYPES.items()}
_SMALL_INTEGERS = ("DT_INT32", "DT_UINT8", "DT_INT16", "DT_INT8")
_FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_STRING": "string_val",
    "DT_INT64": "int64_val",
    "DT_BOOL": "bool_val",
    "DT_HALF": "half_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
} | dict.fromkeys(_SMALL_INTEGERS, "int_val")
_STRUCT_CODES = {
    "DT_FLOAT": "f", "DT_DOUBLE": "d", "DT_INT32": "i", "DT_UINT8": "B", "DT_INT16": "h", "DT_INT8": "b",
    "DT_INT64": "q", "DT_BOOL": "?", "DT_HALF": "e", "DT_UINT32": "I", "DT_UINT64": "Q",
}  # fmt: skip


class GrpcClient:
    """One channel to a server's gRPC port; may be shared by threads."""

    def __init__(self, address: str, *, timeout: float = 30.0) -> None:
        self.address = address
        self._timeout = timeout
        self._channel = grpc.insecure_channel(address, options=UNLIMITED)
        self._predict = self._method("PredictionService", "Predict", wire.PredictRequest, wire.PredictResponse)
        self._metadata = self._method("PredictionService", "GetModelMetadata", wire.GetModelMetadataRequest, wire.GetModelMetadataResponse)
        self._status = self._method("ModelService", "GetModelStatus", wire.GetModelStatusRequest, wire.GetModelStatusResponse)

    def predict(self, request: PredictRequest) -> PredictResponse:
        """See `Client`."""
        message = wire.PredictRequest(model_spec=_spec(request.model, request.signature), output_filter=request.outputs)
        for name, tensor in request.inputs.items():
            message.inputs[name].CopyFrom(tensor_to_wire(tensor))
        answer = self._call(self._predict, message)
        outputs = {name: tensor_from_wire(proto) for name, proto in sorted(answer.outputs.items())}
        version = answer.model_spec.version.value if answer.model_spec.HasField("version") else None
        return PredictResponse(outputs=outputs, version=version)

    def signatures(self, model: ModelSpec) -> dict[str, Signature]:
        """See `Client`."""
        request = wire.GetModelMetadataRequest(model_spec=_spec(model), metadata_field=["signature_def"])
        packed = self._call(self._metadata, request).metadata["signature_def"].value
        definitions = wire.SignatureDefMap.FromString(packed).signature_def
        return {
            name: Signature(name=name, method=item.method_name, inputs=_specs(item.inputs), outputs=_specs(item.outputs))
            for name, item in sorted(definitions.items())
            if not name.startswith("__")  # the loader's own, not to be called
        }

    def status(self, model: ModelSpec) -> list[VersionStatus]:
        """See `Client`."""
        answer = self._call(self._status, wire.GetModelStatusRequest(model_spec=_spec(model)))
        return [
            VersionStatus(version=item.version, state=STATES.get(item.state, "UNKNOWN"), error=item.status.error_message)
            for item in answer.model_version_status
        ]

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _method(self, service: str, method: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def _call(self, method: Any, message: Any) -> Any:
        try:
            return method(message, timeout=self._timeout)
        except grpc.RpcError as error:
            raise _translated(error, self.address, message.model_spec.name, self._timeout) from error


def tensor_to_wire(tensor: Tensor) -> Any:
    """`tensor` as a TensorProto of `mlserving.wire`.

    Raises:
        ConfigError: a value is not of the tensor's type.
    """
    proto = wire.TensorProto(dtype=DTYPES[tensor.dtype])
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    try:
        if tensor.dtype == "DT_HALF":
            proto.tensor_content = _pack(tensor)
        else:
            getattr(proto, _FIELDS[tensor.dtype]).extend(tensor.values)
    except (TypeError, ValueError, struct.error) as error:
        raise ConfigError(f"A value does not fit {tensor.dtype}: {error}.") from error
    return proto


def tensor_from_wire(proto: Any) -> Tensor:
    """A TensorProto in any of its spellings: typed values, one value repeated, or packed little-endian content."""
    dtype = _NAMES.get(proto.dtype)
    if dtype is None:
        raise ConfigError(f"The server sent a tensor of type number {proto.dtype}, which this client cannot read. Try --rest.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = 1
    for size in shape:
        count *= size
    if proto.tensor_content:
        values = struct.unpack(f"<{count}{_STRUCT_CODES[dtype]}", proto.tensor_content)
    else:
        values = tuple(getattr(proto, _FIELDS[dtype]))
        if dtype == "DT_HALF":
            values = struct.unpack(f"<{len(values)}e", struct.pack(f"<{len(values)}H", *values))
        if values and len(values) < count:  # TensorProto may leave out the repetitions of the last value
            values += values[-1:] * (count - len(values))
    return Tensor(dtype=dtype, shape=shape, values=values)


def _pack(tensor: Tensor) -> bytes:
    return struct.pack(f"<{len(tensor.values)}{_STRUCT_CODES[tensor.dtype]}", *tensor.values)


def _spec(model: ModelSpec, signature: str = "") -> Any:
    spec = wire.ModelSpec(name=model.name, signature_name=signature)
    if model.version is not None:
        spec.version.value = model.version
    elif model.label:
        spec.version_label = model.label
    return spec


def _specs(infos: Any) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(name, info) for name, info in sorted(infos.items())}


def _tensor_spec(name: str, info: Any) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name=name, dtype=_NAMES.get(info.dtype, f"DT_{info.dtype}"), shape=shape)


def _translated(error: Any, address: str, model: str, timeout: float) -> ServingError:
    code, details = error.code(), error.details()
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"No model server answers gRPC at {address} ({details}). Start one: millrace serve {model}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"The model server at {address} did not answer within {timeout:g} s. Is it still loading? Try again.")
    if code == grpc.StatusCode.NOT_FOUND:
        return NotServed(details)
    if code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION}:
        return ConfigError(details)
    return Unavailable(f"The model server at {address} failed: {code.name}: {details}")
