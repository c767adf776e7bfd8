"""What a served model takes and gives: the signatures that its metadata tell, and dense tensors to send and receive.

Plain Python on purpose. The client, the `predict` command and the gateway read these without importing TensorFlow or NumPy,
which cost seconds. The local server uses its own arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlserving.errors import ConfigError

DTYPES: dict[str, int] = {
    "DT_FLOAT": 1,
    "DT_DOUBLE": 2,
    "DT_INT32": 3,
    "DT_UINT8": 4,
    "DT_INT16": 5,
    "DT_INT8": 6,
    "DT_STRING": 7,
    "DT_INT64": 9,
    "DT_BOOL": 10,
    "DT_HALF": 19,
    "DT_UINT32": 22,
    "DT_UINT64": 23,
}
"""The dense types that can be sent, with their numbers in TensorFlow's `DataType`."""

FLOATS = frozenset({"DT_FLOAT", "DT_DOUBLE", "DT_HALF"})
INTEGERS = frozenset({"DT_INT32", "DT_UINT8", "DT_INT16", "DT_INT8", "DT_INT64", "DT_UINT32", "DT_UINT64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, type and shape of one input or output. -1 is a dimension of any size; `shape` None is any rank."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        """For people: `amount: float [batch]`."""
        dimensions = "any shape" if self.shape is None else ", ".join(_dimension(i, size) for i, size in enumerate(self.shape))
        return f"{self.name}: {self.dtype.removeprefix('DT_').lower()} [{dimensions}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One way to call a model. `method` is TensorFlow's name of the call, for example `tensorflow/serving/predict`."""

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def describe_inputs(self) -> str:
        """The inputs with their types, on one line, for error texts."""
        return "; ".join(str(spec) for spec in self.inputs.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model is meant: the version, else the version that bears the label, else the newest one that is served."""

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        """For people: `cards version 7`."""
        if self.version is not None:
            return f"{self.name} version {self.version}"
        return f"{self.name} label {self.label}" if self.label else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A dense tensor: `values` flat in row-major order; strings are bytes, numbers are Python's."""

    dtype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if math.prod(self.shape) != len(self.values):
            raise ConfigError(f"A tensor of shape {list(self.shape)} cannot have {len(self.values)} values.")

    @classmethod
    def of(cls, dtype: str, nested: Any) -> Tensor:
        """A tensor from a scalar or nested lists. Strings are encoded as UTF-8.

        Raises:
            ConfigError: the lists have different lengths at one depth.
        """
        shape: tuple[int, ...] = ()
        level = nested
        while isinstance(level, list):
            shape = (*shape, len(level))
            level = level[0] if level else None
        values = tuple(_encoded(dtype, value) for value in _flat(nested, len(shape)))
        return cls(dtype=dtype, shape=shape, values=values)

    def nested(self) -> Any:
        """Nested lists of `shape`; a scalar for shape []."""
        level: list[Any] = list(self.values)
        for size in reversed(self.shape[1:]):
            level = [level[start : start + size] for start in range(0, len(level), size)] if size else [[] for _ in range(self.shape[0])]
        return level if self.shape else level[0]


def _flat(nested: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        yield nested
        return
    if not isinstance(nested, list):
        raise ConfigError(f"Expected a list of values and found {nested!r}.")
    for element in nested:
        yield from _flat(element, depth - 1)


def _encoded(dtype: str, value: Any) -> Any:
    if isinstance(value, list):
        raise ConfigError("The lists have different lengths or depths; a dense tensor needs them equal.")
    return value.encode() if dtype == "DT_STRING" and isinstance(value, str) else value


def _dimension(index: int, size: int) -> str:
    if size >= 0:
        return str(size)
    return "batch" if index == 0 else "any"
