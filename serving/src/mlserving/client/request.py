"""Building a predict request from what a person types or a file holds: pure, and driven by the model's signature.

The signature tells each value's type, so `amount=12` becomes a float and `code=007` stays a string. Bytes that cannot be typed come
from a file, `image@photo.jpg`, or in JSON as TensorFlow Serving has them, `{"b64": …}`. What is left out counts as missing, spelled as the models of this platform expect it: "" for a string, NaN for a float, -1 for an integer, no for a bool.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlserving.client.signature import FLOATS, INTEGERS, Signature, Tensor, TensorSpec
from mlserving.errors import ConfigError

_TRUE = frozenset({"true", "yes", "1"})
_FALSE = frozenset({"false", "no", "0"})
_LIST_RANK = 2


def row_of_arguments(arguments: Sequence[str], signature: Signature, read: Callable[[str], bytes]) -> dict[str, Any]:
    """One row from `name=value` and `name@file` arguments. A list is written as JSON: `tags=["a", "b"]`.

    Args:
        arguments: as typed.
        signature: of the model.
        read: gives the bytes of a file that is named.

    Raises:
        ConfigError: neither `=` nor `@`, an unknown name, or a value that is not of its input's type; and what `read` raises.
    """
    row: dict[str, Any] = {}
    for argument in arguments:
        name, sign, text = _taken_apart(argument)
        if not sign:
            raise ConfigError(f"{argument!r} is not name=value. {_expected(signature)}")
        spec = _known(name, signature)
        row[name] = _parsed(text, spec) if sign == "=" else _from_file(text, spec, read)
    return row


def _taken_apart(argument: str) -> tuple[str, str, str]:
    """Name, `=` or `@` (whichever comes first; empty where there is neither), and the rest."""
    signs = [sign for sign in "=@" if sign in argument]
    return argument.partition(min(signs, key=argument.index)) if signs else (argument, "", "")


def _from_file(path: str, spec: TensorSpec, read: Callable[[str], bytes]) -> bytes:
    if spec.dtype != "DT_STRING" or _is_list(spec):
        raise ConfigError(f"Input {spec} takes no file: write {spec.name}={json.dumps(_sample(spec))}.")
    return read(path)


def rows_of_lines(lines: Sequence[str], signature: Signature, where: str) -> list[dict[str, Any]]:
    """One row from each line, a JSON object of name and value. Empty lines are skipped.

    Raises:
        ConfigError: names the line.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(
                f"{where}, line {number} is no JSON: {error}. Write one object a line, such as {example_line(signature)}"
            ) from error
        if not isinstance(row, dict):
            raise ConfigError(f"{where}, line {number} is no object. Write one object a line, such as {example_line(signature)}")
        for name in row:
            _known(name, signature)
        rows.append(row)
    return rows


def tensors(rows: Sequence[Mapping[str, Any]], signature: Signature) -> dict[str, Tensor]:
    """Every input of the signature as one tensor over all rows, [batch] or [batch, n] with lists padded to the longest.

    Raises:
        ConfigError: a value is not of its input's type or shape.
    """
    return {name: _column(spec, [row.get(name) for row in rows]) for name, spec in signature.inputs.items()}


def example_row(signature: Signature) -> dict[str, Any]:
    """A made-up row of the right types, for examples in help texts."""
    return {name: [_sample(spec)] if _is_list(spec) else _sample(spec) for name, spec in signature.inputs.items()}


def example_line(signature: Signature) -> str:
    """`example_row` as JSON."""
    return json.dumps(example_row(signature))


def _column(spec: TensorSpec, values: list[Any]) -> Tensor:
    if not _is_list(spec):
        column = [_checked(value, spec) for value in values]
        return Tensor.of(spec.dtype, column if spec.shape != () else column[0])
    rows = [[_checked(value, spec) for value in _as_list(row, spec)] for row in values]
    fixed = spec.shape[1] if spec.shape else -1
    width = fixed if fixed >= 0 else max(1, *map(len, rows))
    longest = max(map(len, rows))
    if longest > width:
        raise ConfigError(f"Input {spec} takes lists of {width}; one has {longest} values.")
    return Tensor.of(spec.dtype, [row + [_missing(spec)] * (width - len(row)) for row in rows])


def _as_list(value: Any, spec: TensorSpec) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(f"Input {spec} takes lists; write {spec.name}=[…] and not {value!r}.")
    return value


def _checked(value: Any, spec: TensorSpec) -> Any:
    if value is None:
        return _missing(spec)
    if spec.dtype == "DT_STRING" and isinstance(value, str | bytes):
        return value
    if spec.dtype == "DT_STRING" and isinstance(value, dict) and value.keys() == {"b64"}:
        return _decoded(value["b64"], spec)
    if spec.dtype in FLOATS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if spec.dtype in INTEGERS and isinstance(value, int) and not isinstance(value, bool):
        return value
    if spec.dtype == "DT_BOOL" and isinstance(value, bool):
        return value
    raise ConfigError(f"Input {spec} cannot be {value!r}.")


def _decoded(text: Any, spec: TensorSpec) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ConfigError(f"Input {spec}: what stands under b64 is no base64 ({error}).") from error


def _missing(spec: TensorSpec) -> Any:
    if spec.dtype == "DT_STRING":
        return ""
    if spec.dtype == "DT_BOOL":
        return False
    return math.nan if spec.dtype in FLOATS else -1


def _parsed(text: str, spec: TensorSpec) -> Any:
    if _is_list(spec):
        return _parsed_list(text, spec)
    try:
        if spec.dtype in FLOATS:
            return float(text) if text else None
        if spec.dtype in INTEGERS:
            return int(text) if text else None
    except ValueError as error:
        raise ConfigError(f"Input {spec} cannot be {text!r}.") from error
    if spec.dtype == "DT_BOOL":
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"Input {spec} cannot be {text!r}; write true or false.")
        return text.lower() in _TRUE
    return text


def _parsed_list(text: str, spec: TensorSpec) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"Input {spec} takes a JSON list, such as {spec.name}='{json.dumps([_sample(spec)])}', and not {text!r}."
        ) from error
    return _as_list(value, spec)


def _known(name: str, signature: Signature) -> TensorSpec:
    spec = signature.inputs.get(name)
    if spec is None:
        close = difflib.get_close_matches(name, signature.inputs, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"The model has no input {name!r}.{hint} {_expected(signature)}")
    return spec


def _expected(signature: Signature) -> str:
    return f"Expected inputs: {signature.describe_inputs()}."


def _is_list(spec: TensorSpec) -> bool:
    return spec.shape is not None and len(spec.shape) == _LIST_RANK


def _sample(spec: TensorSpec) -> Any:
    if spec.dtype == "DT_STRING":
        return "text"
    if spec.dtype == "DT_BOOL":
        return True
    return 1.5 if spec.dtype in FLOATS else 1
