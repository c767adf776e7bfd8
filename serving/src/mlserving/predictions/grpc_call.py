"""A gRPC exchange as a `Call`, by the light messages of `mlserving.wire`. Tensors say their types themselves."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from mlserving import wire
from mlserving.client.grpc_client import tensor_from_wire
from mlserving.client.signature import DTYPES, TensorSpec
from mlserving.errors import ConfigError
from mlserving.predictions.call import DEFAULT_SIGNATURE, Call, Undecodable, unpacked

MOST_ELEMENTS = 1 << 22
"""A tensor of more is left out: a few bytes can say "this number, a billion times"."""
_NAMES = {number: name for name, number in DTYPES.items()}
_KINDS = ("bytes_list", "float_list", "int64_list")


def read(method: str, request: bytes, response: bytes, features: Collection[str]) -> Call:
    """The call; of the inputs only `features` are read.

    Raises:
        Undecodable: the bytes are no messages of this method.
    """
    reader = _METHODS.get(method)
    if reader is None:
        raise Undecodable("the method makes no predictions")
    try:
        return reader(unpacked(request), unpacked(response), features)
    except (DecodeError, ConfigError, struct.error, LookupError, ValueError, TypeError, OverflowError) as error:
        raise Undecodable("the bytes are no message of this method") from error


def _predict(request: bytes, response: bytes, features: Collection[str]) -> Call:
    asked, answered = wire.PredictRequest.FromString(request), wire.PredictResponse.FromString(response)
    if not answered.outputs:
        raise Undecodable("the answer has no outputs")
    inputs = {name: asked.inputs[name] for name in features if name in asked.inputs}
    outputs = dict(answered.outputs)
    return Call(
        signature=asked.model_spec.signature_name or DEFAULT_SIGNATURE,
        inputs=_tensors(inputs), outputs=_tensors(outputs), specs=_specs(inputs) | _specs(outputs),
    )  # fmt: skip


def _tensors(protos: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor_from_wire(proto).nested() for name, proto in protos.items() if _is_bounded(proto)}


def _specs(protos: Mapping[str, Any]) -> dict[str, TensorSpec]:
    """Each tensor's type; a dimension is open, as a signature's would be."""
    return {
        name: TensorSpec(name=name, dtype=_NAMES.get(proto.dtype, ""), shape=(-1,) * len(proto.tensor_shape.dim))
        for name, proto in protos.items()
    }


def _is_bounded(proto: Any) -> bool:
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    return all(0 <= size <= MOST_ELEMENTS for size in sizes) and math.prod(sizes) <= MOST_ELEMENTS and proto.dtype in _NAMES


def _classify(request: bytes, response: bytes, features: Collection[str]) -> Call:
    asked, answered = wire.ClassificationRequest.FromString(request), wire.ClassificationResponse.FromString(response)
    rows = [row.classes for row in answered.result.classifications]
    outputs = {"classes": [[each.label for each in row] for row in rows], "scores": [[each.score for each in row] for row in rows]}
    return _of_examples(asked, outputs, features)


def _regress(request: bytes, response: bytes, features: Collection[str]) -> Call:
    asked, answered = wire.RegressionRequest.FromString(request), wire.RegressionResponse.FromString(response)
    return _of_examples(asked, {"value": [each.value for each in answered.result.regressions]}, features)


def _of_examples(asked: Any, outputs: dict[str, list[Any]], features: Collection[str]) -> Call:
    name = asked.model_spec.signature_name or DEFAULT_SIGNATURE
    shared = asked.input.example_list_with_context
    examples, context = shared.examples, shared.context.features.feature
    if not asked.input.HasField("example_list_with_context"):
        examples, context = asked.input.example_list.examples, {}
    rows = [_features(example.features.feature, context, features) for example in examples]
    inputs = {feature: [row.get(feature) for row in rows] for feature in features if any(feature in row for row in rows)}
    return Call(signature=name, inputs=inputs, outputs=outputs, examples=True)


def _features(own: Any, context: Any, wanted: Collection[str]) -> dict[str, list[Any]]:
    found = {}
    for name in wanted:
        for source in (own, context):
            if name in source:
                found[name] = [value for kind in _KINDS for value in getattr(source[name], kind).value]
                break
    return found


_METHODS: dict[str, Callable[[bytes, bytes, Collection[str]], Call]] = {"Predict": _predict, "Classify": _classify, "Regress": _regress}
