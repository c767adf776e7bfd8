"""`tf.Example`s, from the JSON and from the gRPC form of classify and regress requests."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from tensorflow.core.example import example_pb2

from mlserving.server.answer_errors import invalid


def from_json(request: Mapping[str, Any]) -> list[bytes]:
    """The serialised examples of `{"examples": [{feature: value or list}], "context": {…}}`.

    Whole numbers become int64, others float, texts and `{"b64": …}` bytes. The context's features are added to each example.

    Raises:
        RequestError: no list of objects, or a feature of mixed or unknown type.
    """
    examples = request.get("examples")
    context = request.get("context", {})
    if not isinstance(examples, list) or not all(isinstance(example, dict) for example in [*examples, context]):
        raise invalid("Give 'examples': a list of objects {feature: value or list of values}.")
    return [_serialised({**context, **example}) for example in examples]


def from_input(message: Any) -> list[bytes]:
    """The serialised examples of a `tensorflow.serving.Input`."""
    if message.HasField("example_list_with_context"):
        bundle = message.example_list_with_context
        shared = bundle.context.SerializeToString()  # two serialised messages in a row are one, merged
        return [shared + example.SerializeToString() for example in bundle.examples]
    return [example.SerializeToString() for example in message.example_list.examples]


def _serialised(features: Mapping[str, Any]) -> bytes:
    example = example_pb2.Example()
    for name, value in features.items():
        _fill(example.features.feature[name], name, value if isinstance(value, list) else [value])
    content: bytes = example.SerializeToString()
    return content


def _fill(feature: Any, name: str, values: list[Any]) -> None:
    kinds = {type(value) for value in values}
    try:
        if kinds <= {int, bool}:
            feature.int64_list.value.extend(map(int, values))
        elif kinds <= {int, float}:
            feature.float_list.value.extend(values)
        elif kinds <= {str, dict}:
            feature.bytes_list.value.extend(_bytes(value) for value in values)
        else:
            raise invalid(f"Feature {name} mixes types or has null: {values!r}. Leave a missing feature out.")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise invalid(f"Feature {name} has a value that is no number, text or {{'b64': …}}: {values!r}.") from error


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value["b64"], validate=True)
