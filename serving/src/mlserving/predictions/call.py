"""One call to a model, read from its bytes: what went in and what came out, by name, as nested lists.

`grpc_call` and `rest_call` read the two protocols, `decode` types the values by the model's signature and makes rows of them.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlserving.client.signature import TensorSpec

DEFAULT_SIGNATURE = "serving_default"
MOST_BYTES = 256 << 20
"""No body is unpacked to more; a few kilobytes of gzip can hold gigabytes."""


class Undecodable(Exception):
    """The exchange is no prediction that can be read. The text says why, without a value of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was asked and answered."""

    signature: str
    inputs: Mapping[str, Any]
    """By name: a list with one element for each instance, or a scalar that holds for all."""
    outputs: Mapping[str, Any]
    specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    """What the message itself says of the types of inputs and outputs (`<name>`); gRPC tensors do, JSON does not."""
    examples: bool = False
    """Whether the inputs are features of examples: each a list of values, whatever the model makes of it."""


def unpacked(body: bytes) -> bytes:
    """The body without its compression. Neither JSON nor any of our messages begins as gzip does.

    Raises:
        Undecodable: it is cut, damaged or too large.
    """
    if body[:2] != b"\x1f\x8b":
        return body
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            found = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Undecodable("the body is damaged gzip") from error
    if len(found) > MOST_BYTES:
        raise Undecodable("the body is too large unpacked")
    return found
