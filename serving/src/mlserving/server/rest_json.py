"""TensorFlow Serving's JSON: requests into arrays, arrays into responses. Pure; `mlserving.server.rest_server` does the talking.

A request gives rows (`instances`: a list with one element for each example) or columns (`inputs`: for each input one array over
the whole batch), and the response answers in kind (`predictions` or `outputs`). Where there is only one input or output its name
may be left out, and is. Bytes are `{"b64": "…"}`. NaN, Infinity and -Infinity are allowed, as TensorFlow Serving allows them.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mlserving.client.signature import Signature, TensorSpec
from mlserving.server.answer_errors import invalid
from mlserving.server.arrays import NUMPY, Array, short_floats

Layout = Literal["rows", "columns"]
_KINDS = {"DT_BOOL": "b"} | dict.fromkeys(("DT_FLOAT", "DT_DOUBLE", "DT_HALF"), "iuf")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictCall:
    """A parsed predict request."""

    feeds: dict[str, Array]
    layout: Layout


def parse_body(body: bytes) -> dict[str, Any]:
    """The request as a JSON object. Raises RequestError when it is none."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid("The request must be a JSON object with 'instances' (rows) or 'inputs' (columns).")
    return request


def predict_call(request: Mapping[str, Any], signature: Signature) -> PredictCall:
    """The arrays that a predict request feeds into `signature`.

    Raises:
        RequestError: neither or both of `instances` and `inputs`, or a value that does not fit its input. The input is named.
    """
    if ("instances" in request) == ("inputs" in request):
        raise invalid("Give either 'instances' (a list of rows) or 'inputs' (columns), and not both.")
    if "instances" in request:
        columns = _columns_of_rows(request["instances"], signature)
        layout: Layout = "rows"
    else:
        columns = _named(request["inputs"], signature)
        layout = "columns"
    return PredictCall(feeds={name: _array(value, signature.inputs[name]) for name, value in columns.items()}, layout=layout)


def predict_response(outputs: Mapping[str, Array], layout: Layout) -> dict[str, Any]:
    """The response in the layout of the request.

    Raises:
        RequestError: rows were asked for, and the outputs have no common batch dimension.
    """
    values = {name: _jsonable(name, array) for name, array in outputs.items()}
    if layout == "columns":
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    lengths = {name: len(array) if array.ndim else None for name, array in outputs.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise invalid(f"The outputs have no common batch size ({lengths}), so they make no rows. Ask by columns: 'inputs'.")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _columns_of_rows(instances: Any, signature: Signature) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise invalid("'instances' must be a list with at least one row.")
    rows = [_named(instance, signature) for instance in instances]
    for index, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise invalid(
                f"Row {index} of 'instances' has the inputs {', '.join(row) or 'none'}, row 0 has {', '.join(rows[0]) or 'none'}."
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _named(value: Any, signature: Signature) -> dict[str, Any]:
    """The value of each input. A single input may come without its name."""
    if isinstance(value, dict) and not _is_base64(value):
        unknown = sorted(value.keys() - signature.inputs.keys())
        missing = sorted(signature.inputs.keys() - value.keys())
        if unknown or missing:
            raise invalid(
                f"The inputs do not match signature {signature.name}: missing: {', '.join(missing) or 'none'};"
                f" unknown: {', '.join(unknown) or 'none'}. Expected inputs: {signature.describe_inputs()}."
            )
        return value
    if len(signature.inputs) != 1:
        raise invalid(f"Signature {signature.name} has several inputs, so name them. Expected inputs: {signature.describe_inputs()}.")
    return {next(iter(signature.inputs)): value}


def _array(value: Any, spec: TensorSpec) -> Array:
    dtype = NUMPY.get(spec.dtype)
    if dtype is None:
        raise invalid(f"Input {spec} cannot be sent as JSON.")
    if spec.dtype == "DT_STRING":
        return _strings(value, spec)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise invalid(f"Input {spec}: the values are not of one shape; pad them to equal lengths.") from error
    if array.size and array.dtype.kind not in _KINDS.get(spec.dtype, "iu"):
        raise invalid(f"Input {spec}: got {_found(value)}{_hint(value)}.")
    result: Array = array.astype(dtype)
    if dtype.kind in "iu" and array.size and not np.array_equal(result, array):
        raise invalid(f"Input {spec}: a value is out of the type's range.")
    return result


def _strings(value: Any, spec: TensorSpec) -> Array:
    array = np.array(_encoded(value, spec), dtype=object)
    if not all(type(element) is bytes for element in array.flat):
        raise invalid(f"Input {spec}: the values are not of one shape; pad them to equal lengths.")
    return array


def _encoded(value: Any, spec: TensorSpec) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogatepass")
        case list():
            return [_encoded(element, spec) for element in value]
        case dict() if _is_base64(value):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise invalid(f"Input {spec}: {value['b64']!r} is no base64.") from error
        case _:
            raise invalid(f"Input {spec}: got {json.dumps(value)}; expected a string{_hint(value)}.")


def _is_base64(value: dict[str, Any]) -> bool:
    return value.keys() == {"b64"}


def _found(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"  # noqa: PLR2004  as much as fits on a line


def _hint(value: Any) -> str:
    return '; write a missing value as NaN (number) or "" (string)' if "null" in json.dumps(value) else ""


def _jsonable(name: str, array: Array) -> Any:
    if array.dtype == object:
        return _texts(array.tolist(), always_base64=name.endswith("_bytes"))
    if array.dtype.kind == "f":
        return short_floats(array)
    return array.tolist()


def _texts(value: Any, *, always_base64: bool) -> Any:
    if isinstance(value, list):
        return [_texts(element, always_base64=always_base64) for element in value]
    if not always_base64:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass  # JSON can carry it no other way
    return {"b64": base64.b64encode(value).decode()}
