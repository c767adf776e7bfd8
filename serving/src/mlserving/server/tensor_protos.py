"""NumPy arrays and the TensorProto messages that carry them over gRPC.

What goes out uses the typed fields (`float_val`, `string_val` …), as TensorFlow Serving does: many clients read those and never
look at `tensor_content`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlserving.client.signature import DTYPES
from mlserving.server.answer_errors import invalid
from mlserving.server.arrays import NUMPY, Array

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


def fill(proto: Any, array: Array) -> None:
    """Write `array` into an empty TensorProto."""
    dtype = array.dtype
    proto.dtype = _NUMBERS[dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.ravel().view(np.uint16) if dtype == np.float16 else array.ravel()
    getattr(proto, _FIELD_OF[dtype]).extend(flat.tolist())
