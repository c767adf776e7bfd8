"""What the server's arrays are: NumPy's, with strings as object arrays of bytes. `mlserving.server.tensor_protos` puts them on the wire."""

from __future__ import annotations

from typing import Any

import numpy as np

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


def type_name(array: Array) -> str:
    """For people: `string`, `float32`, `int64` …"""
    return "string" if array.dtype == object else str(array.dtype)


def short_floats(array: Array) -> Any:
    """Nested lists of floats that print as the shortest text which is still the same number.

    A float32 0.1 is 0.10000000149011612 as a double: three times as long, and no truer.
    """
    return array.tolist() if array.dtype == np.float64 else array.astype("U32").astype(np.float64).tolist()
