"""A REST exchange as a `Call`: rows (`instances`), columns (`inputs`), and the examples of classify and regress.

JSON names neither the signature's types nor a single input or output, so the signature is needed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from mlserving.client.signature import Signature
from mlserving.predictions.call import DEFAULT_SIGNATURE, Call, Undecodable, unpacked


def read(method: str, request: bytes, response: bytes, signatures: Mapping[str, Signature]) -> Call:
    """The call.

    Raises:
        Undecodable: it is no JSON of this API, or of a signature that the model does not have.
    """
    asked, answered = _object(request), _object(response)
    if "error" in answered:
        raise Undecodable("the answer is an error")
    name = asked.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str) or name not in signatures:
        raise Undecodable("the signature is unknown")
    signature = signatures[name]
    if method == "predict":
        return Call(signature=name, inputs=_inputs(asked, signature), outputs=_outputs(answered, signature))
    if method in {"classify", "regress"}:
        return Call(signature=name, inputs=_features(asked), outputs=_results(method, answered), examples=True)
    raise Undecodable("the method makes no predictions")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(unpacked(body))
    except (ValueError, RecursionError) as error:
        raise Undecodable("the body is no JSON") from error
    if not isinstance(found, dict):
        raise Undecodable("the body is no JSON object")
    return found


def _inputs(asked: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    if "inputs" in asked:
        return _named(asked["inputs"], signature.inputs)
    return _columns(asked.get("instances"), signature.inputs)


def _outputs(answered: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    if "outputs" in answered:
        return _named(answered["outputs"], signature.outputs)
    return _columns(answered.get("predictions"), signature.outputs)


def _columns(rows: Any, specs: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not isinstance(rows, list) or not rows:
        raise Undecodable("there are no rows")
    named = [_named(row, specs) for row in rows]
    return {name: [row.get(name) for row in named] for name in dict.fromkeys(name for row in named for name in row)}


def _named(value: Any, specs: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each input or output. A single one may come without its name."""
    if isinstance(value, dict) and value.keys() != {"b64"}:
        return {name: _bytes(each) for name, each in value.items()}
    if len(specs) != 1:
        raise Undecodable("a value has no name")
    return {next(iter(specs)): _bytes(value)}


def _bytes(value: Any) -> Any:
    """`{"b64": …}` as bytes, at any depth."""
    if isinstance(value, list):
        return [_bytes(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"b64"}:
        raise Undecodable("a value is an object")
    try:
        return base64.b64decode(value["b64"])
    except (binascii.Error, ValueError, TypeError) as error:
        raise Undecodable("a value is no base64") from error


def _features(asked: Mapping[str, Any]) -> dict[str, list[Any]]:
    examples, context = asked.get("examples"), asked.get("context", {})
    if not isinstance(examples, list) or not all(isinstance(each, dict) for each in [*examples, context]):
        raise Undecodable("there are no examples")
    rows = [{name: _listed(_bytes(value)) for name, value in {**context, **example}.items()} for example in examples]
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _results(method: str, answered: Mapping[str, Any]) -> dict[str, list[Any]]:
    results = answered.get("results")
    if not isinstance(results, list):
        raise Undecodable("there are no results")
    if method == "regress":
        return {"value": results}
    try:
        return {"classes": [[label for label, _ in row] for row in results], "scores": [[score for _, score in row] for row in results]}
    except (TypeError, ValueError) as error:
        raise Undecodable("a result is no list of label and score") from error
