"""NumPy arrays and the TensorProto messages that carry them over gRPC.

Strings are object arrays of bytes. What goes out uses the typed fields (`float_val`, `string_val` …), as TensorFlow Serving
does: many clients read those and never look at `tensor_content`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.core.framework import tensor_pb2

from mlserving.answer_errors import invalid
from mlserving.signature import DTYPES

Array = np.ndarray[Any, Any]

NUMPY: dict[str, np.dtype[Any]] = {
    "DT_FLOAT": np.dtype(np.float32),
    "DT_DOUBLE": np.dtype(np.float64),
    "DT_INT32": np.dtype(np.int32),
    "DT_UINT8": np.dtype(np.uint8),
    "DT_INT16": np.dtype(np.int16),
    "DT_INT8": np.dtype(np.int8),
    "DT_STRING": np.dtype(object),
    "DT_INT64": np.dtype(np.int64),
    "DT_BOOL": np.dtype(np.bool_),
    "DT_HALF": np.dtype(np.float16),
    "DT_UINT32": np.dtype(np.uint32),
    "DT_UINT64": np.dtype(np.uint64),
}

_BY_NUMBER = {number: NUMPY[name] for name, number in DTYPES.items()}
_NUMBERS = {dtype: DTYPES[name] for name, dtype in NUMPY.items()}
_FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_INT32": "int_val",
    "DT_UINT8": "int_val",
    "DT_INT16": "int_val",
    "DT_INT8": "int_val",
    "DT_STRING": "string_val",
    "DT_INT64": "int64_val",
    "DT_BOOL": "bool_val",
    "DT_HALF": "half_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
}
_FIELD_OF = {dtype: _FIELDS[name] for name, dtype in NUMPY.items()}


def type_name(array: Array) -> str:
    """For people: `string`, `float32`, `int64` …"""
    return "string" if array.dtype == object else str(array.dtype)


def from_proto(name: str, proto: Any) -> Array:
    """The array in a TensorProto: packed content, typed values, or fewer values than elements, the last one repeated.

    Raises:
        RequestError: the type is not dense, or the values do not fill the shape. `name` is named.
    """
    dtype = _BY_NUMBER.get(proto.dtype)
    if dtype is None:
        raise invalid(f"Input {name} has a type (number {proto.dtype}) that is not served here; send a dense tensor.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = 1
    for size in shape:
        count *= size
    values = _values(proto, dtype)
    if 0 < len(values) < count:
        values = np.concatenate([values, np.repeat(values[-1:], count - len(values))])
    if len(values) != count:
        raise invalid(f"Input {name} has {len(values)} values, which do not fill its shape {list(shape)}.")
    return values.reshape(shape)


def _values(proto: Any, dtype: np.dtype[Any]) -> Array:
    if proto.tensor_content and dtype.kind != "O":
        content = proto.tensor_content
        return np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
    values = getattr(proto, _FIELD_OF[dtype])
    if dtype == np.float16:
        return np.array(values, np.uint16).view(np.float16)
    array = np.empty(len(values), dtype)
    array[:] = values
    return array


def to_proto(array: Array) -> Any:
    """`array` as a TensorProto."""
    dtype = array.dtype
    proto = tensor_pb2.TensorProto(dtype=_NUMBERS[dtype])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.ravel().view(np.uint16) if dtype == np.float16 else array.ravel()
    getattr(proto, _FIELD_OF[dtype]).extend(flat.tolist())
    return proto


def short_floats(array: Array) -> Any:
    """Nested lists of floats that print as the shortest text which is still the same number.

    A float32 0.1 is 0.10000000149011612 as a double: three times as long, and no truer.
    """
    return array.tolist() if array.dtype == np.float64 else array.astype("U32").astype(np.float64).tolist()
