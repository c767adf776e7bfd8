"""From the bytes of an exchange to rows of the log: pure, and driven by the model's signatures.

Only inputs that the settings name are kept, and an output that bears an input's name only if that input may be kept. What is
kept has the type that the signature says. A text is kept as it is; bytes that are no UTF-8 become `data:;base64,…` (RFC 2397), so a
column of strings stays one and the bytes can be had back. A value of more than so many bytes, an image, is left out: null, and counted.

`call` reads the two protocols. `recorder` collects the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlserving.client.signature import FLOATS, Signature, TensorSpec
from mlserving.gateway.settings import Log
from mlserving.predictions import grpc_call, rest_call
from mlserving.predictions.call import Call, Undecodable
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.records import FEATURE, OUTPUT, text_of

ARROW: dict[str, pa.DataType] = {
    "DT_FLOAT": pa.float32(), "DT_DOUBLE": pa.float64(), "DT_HALF": pa.float32(), "DT_BOOL": pa.bool_(), "DT_STRING": pa.string(),
    "DT_INT8": pa.int8(), "DT_INT16": pa.int16(), "DT_INT32": pa.int32(), "DT_INT64": pa.int64(),
    "DT_UINT8": pa.uint8(), "DT_UINT32": pa.uint32(), "DT_UINT64": pa.uint64(),
}  # fmt: skip
"""Half floats are kept as float32: few readers of Parquet know them."""
_RANGES = {
    name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in (("DT_INT8", 8), ("DT_INT16", 16), ("DT_INT32", 32), ("DT_INT64", 64))
} | {name: (0, 2**bits - 1) for name, bits in (("DT_UINT8", 8), ("DT_UINT32", 32), ("DT_UINT64", 64))}
_CLASSIFIED = {
    "classes": TensorSpec(name="classes", dtype="DT_STRING", shape=(-1, -1)),
    "scores": TensorSpec(name="scores", dtype="DT_FLOAT", shape=(-1, -1)),
    "value": TensorSpec(name="value", dtype="DT_FLOAT", shape=(-1,)),
}
_NUMBER_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One feature or output of an exchange: a value for each row, as `type` has it."""

    type: pa.DataType
    values: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The rows of one exchange."""

    signature: str
    rows: int
    columns: Mapping[str, Column]
    """By the name in the log: `feature/…`, `output/…`."""
    labels: Sequence[str | None]
    confidences: Sequence[float | None]
    left_out: int
    """Values that were too large."""


def decode(exchange: Exchange, log: Log, signatures: Mapping[str, Signature], most_bytes: int) -> Decoded:
    """The rows of an exchange. `signatures` are those of the version that answered; gRPC can be read without.

    Raises:
        Undecodable: it is an error, or not what this protocol and signature would carry.
    """
    if exchange.protocol == "grpc":
        call = grpc_call.read(exchange.method, exchange.request, exchange.response, log.features)
    else:
        call = rest_call.read(exchange.method, exchange.request, exchange.response, signatures)
    if signatures and call.signature not in signatures:
        raise Undecodable("the signature is unknown")
    return _Rows(call, log, signatures, most_bytes).decoded()


class _Rows:
    """The work on one call."""

    def __init__(self, call: Call, log: Log, signatures: Mapping[str, Signature], most_bytes: int) -> None:
        self._call, self._log, self._most_bytes = call, log, most_bytes
        self._signatures = signatures
        self._signature = signatures.get(call.signature)
        self._left_out = 0

    def decoded(self) -> Decoded:
        rows = self._count()
        try:
            columns = {f"{FEATURE}{name}": self._column(self._call.inputs[name], self._input(name), rows) for name in self._kept_inputs()}
            outputs = {name: self._column(self._call.outputs[name], self._output(name), rows) for name in self._kept_outputs()}
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Undecodable("a value is not of its type") from error
        columns |= {f"{OUTPUT}{name}": column for name, column in outputs.items()}
        labels, confidences = self._verdicts(outputs, rows)
        return Decoded(
            signature=self._call.signature, rows=rows, columns=columns, labels=labels, confidences=confidences, left_out=self._left_out
        )

    def _count(self) -> int:
        """How many instances there were: the length on which the outputs agree, else the inputs."""
        for side in (self._call.outputs, self._call.inputs):
            lengths = {len(value) for value in side.values() if isinstance(value, list)}
            if len(lengths) == 1 and (rows := lengths.pop()):
                return rows
        if any(isinstance(value, list) for value in self._call.outputs.values()):
            raise Undecodable("the outputs have no common batch size")
        return 1

    def _kept_inputs(self) -> list[str]:
        return [name for name in self._log.features if name in self._call.inputs]

    def _kept_outputs(self) -> Iterator[str]:
        """An output that repeats an input tells what the input told."""
        inputs = self._signature.inputs if self._signature is not None else self._call.inputs
        spoken = {self._log.outputs.label, self._log.outputs.confidence, *self._log.features}
        return (name for name in self._call.outputs if name not in inputs or name in spoken)

    def _input(self, name: str) -> TensorSpec | None:
        if not self._call.examples:
            return self._signature.inputs.get(name) if self._signature is not None else self._call.specs.get(name)
        return next((each.inputs[name] for each in self._signatures.values() if name in each.inputs), None)

    def _output(self, name: str) -> TensorSpec | None:
        if self._call.examples:
            return _CLASSIFIED[name]
        return self._signature.outputs.get(name) if self._signature is not None else self._call.specs.get(name)

    def _column(self, values: Any, spec: TensorSpec | None, rows: int) -> Column:
        spec = _of_values(values) if spec is None else spec
        if spec.dtype not in ARROW:
            raise Undecodable("a type is not dense")
        if not isinstance(values, list):
            values = [values] * rows
        if len(values) != rows:
            raise Undecodable("an input or output has another batch size")
        convert = _CONVERT[spec.dtype](spec.dtype)
        if _is_list(spec, values):
            return Column(type=pa.list_(ARROW[spec.dtype]), values=[self._list(value, convert) for value in values])
        return Column(type=ARROW[spec.dtype], values=[self._scalar(value, convert) for value in values])

    def _scalar(self, value: Any, convert: Callable[[Any], Any]) -> Any:
        if isinstance(value, list) and self._call.examples and len(value) <= 1:
            value = value[0] if value else None
        if value is None:
            return None
        return convert(value) if self._fits(_size(value)) else None

    def _list(self, value: Any, convert: Callable[[Any], Any]) -> list[Any] | None:
        if value is None:
            return None
        flat = list(_flat(value))
        return [convert(each) for each in flat] if self._fits(sum(map(_size, flat))) else None

    def _fits(self, size: int) -> bool:
        if size > self._most_bytes:
            self._left_out += 1
        return size <= self._most_bytes

    def _verdicts(self, outputs: Mapping[str, Column], rows: int) -> tuple[list[str | None], list[float | None]]:
        """The predicted class of each row and how sure the model is, by the outputs that the settings name."""
        if "classes" in outputs and self._call.examples:
            pairs = [_surest(*each) for each in zip(outputs["classes"].values, outputs["scores"].values, strict=True)]
            return [label for label, _ in pairs], [score for _, score in pairs]
        nothing = [None] * rows
        label, confidence = outputs.get(self._log.outputs.label), outputs.get(self._log.outputs.confidence)
        labels = map(_as_label, label.values if label is not None else nothing)
        return list(labels), list(map(_as_confidence, confidence.values if confidence is not None else nothing))


def _of_values(values: Any) -> TensorSpec:
    """A type for what no signature knows: an example's feature, or an output that came without its signature."""
    flat = [value for value in _flat(values) if value is not None]
    kinds = {type(value) for value in flat}
    dtype = "DT_STRING" if kinds & {str, bytes} else "DT_BOOL" if kinds == {bool} else "DT_INT64" if kinds == {int} else "DT_FLOAT"
    return TensorSpec(name="", dtype=dtype, shape=None)


def _is_list(spec: TensorSpec, values: list[Any]) -> bool:
    if spec.shape is not None:
        return len(spec.shape) > 1
    return any(isinstance(value, list) for value in values)


def _flat(value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        yield value
        return
    for each in value:
        yield from _flat(each)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else _NUMBER_BYTES


def _to_text(_: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> str:
        if not isinstance(value, str | bytes):
            raise TypeError
        return text_of(value)

    return convert


def _to_number(dtype: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> float:
        if type(value) not in {int, float}:
            raise TypeError
        return float(value)

    def whole(value: Any) -> int:
        least, most = _RANGES[dtype]
        if type(value) is not int or not least <= value <= most:
            raise TypeError
        return value

    return convert if dtype in FLOATS else whole


def _to_bool(_: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> bool:
        if type(value) is not bool:
            raise TypeError
        return value

    return convert


_CONVERT = dict.fromkeys(ARROW, _to_number) | {"DT_STRING": _to_text, "DT_BOOL": _to_bool}


def _surest(classes: Sequence[str | None] | None, scores: Sequence[float] | None) -> tuple[str | None, float | None]:
    if not classes or not scores or len(classes) != len(scores):
        return None, None
    place = max(range(len(scores)), key=scores.__getitem__)
    return classes[place], scores[place]


def _as_label(value: Any) -> str | None:
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _as_confidence(value: Any) -> float | None:
    """A list is the classes' scores: the model is as sure as the highest says."""
    numbers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int | float)]
    return float(max(numbers)) if numbers else None
