"""Which model, version and label a message names: found by skipping fields, not by decoding tensors.

All requests and answers of TensorFlow Serving that pass here hold a ModelSpec one or two levels deep. What stands twice is merged as
protobuf merges it (the last one counts), so a message cannot name one model to us and another to the model server.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from mlserving.errors import ConfigError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DIGITS = 10
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # tells the two apart by their first bytes

PREDICT_REQUEST = ((1,),)
"""Where the ModelSpec lies: field numbers from the outside in. Predict, Classify, Regress and the two that ask about a model."""
MULTI_INFERENCE = ((1, 1),)
"""In each task, and in each result of the answer."""
ANSWER = ((2,),)
"""In the answers to Predict, Classify and Regress."""


class Malformed(ConfigError):
    """The bytes are no such message."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A ModelSpec. `version` is 0 where none is named."""

    name: str = ""
    version: int = 0
    label: str = ""


def read_spec(message: bytes, paths: tuple[tuple[int, ...], ...] = PREDICT_REQUEST) -> Spec:
    """The ModelSpec of a message.

    Raises:
        Malformed: the bytes are not protobuf.
    """
    found: dict[int, bytes] = {}
    for path in paths:
        _collect(message, 0, len(message), path, found)
    try:
        name, label = found.get(1, b"").decode(), found.get(4, b"").decode()
    except UnicodeDecodeError as error:
        raise Malformed("a model's name is UTF-8") from error
    return Spec(name, _wrapped_integer(found[2]) if 2 in found else 0, label)  # noqa: PLR2004  the field's number


def first_field(message: bytes) -> bytes:
    """The bytes of field 1, empty where it is not there.

    Raises:
        Malformed: the bytes are not protobuf.
    """
    found: dict[int, bytes] = {}
    _collect(message, 0, len(message), (), found)
    return found.get(1, b"")


def _collect(data: bytes, at: int, end: int, path: tuple[int, ...], found: dict[int, bytes]) -> None:
    """Walk the fields of data[at:end]; go into `path`, at whose end the bytes of each field are kept by its number."""
    wanted = path[0] if path else 0
    while at < end:
        key = data[at]
        at += 1
        if key > 127:  # noqa: PLR2004  a varint of several bytes
            key, at = _varint(data, at - 1)
        kind = key & 7
        if kind == _BYTES:
            size, at = (data[at], at + 1) if at < end and data[at] < 128 else _varint(data, at)  # noqa: PLR2004
            stop = at + size
            if stop > end:
                raise Malformed("a field is longer than the message")
            if not path:
                found[key >> 3] = data[at:stop] if key >> 3 != 2 else found.get(2, b"") + data[at:stop]  # noqa: PLR2004
            elif key >> 3 == wanted:
                _collect(data, at, stop, path[1:], found)
            at = stop
        else:
            at = _after_scalar(data, at, kind)
    if at != end:
        raise Malformed("a field ends after the message")


def _after_scalar(data: bytes, at: int, kind: int) -> int:
    if kind == _VARINT:
        return _varint(data, at)[1]
    if kind == _FIXED32:
        return at + 4
    if kind == _FIXED64:
        return at + 8
    raise Malformed(f"there is no wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + _MOST_DIGITS]:
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:  # noqa: PLR2004  the last byte of a varint
            return value & (2**64 - 1), at
        shift += 7
    raise Malformed("a number is cut off")


def _wrapped_integer(message: bytes) -> int:
    """The value of an Int64Value."""
    at, value = 0, 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >> 3 == 1 and key & 7 == _VARINT:
            value, at = _varint(message, at)
        elif key & 7 == _BYTES:
            size, at = _varint(message, at)
            at += size
        else:
            at = _after_scalar(message, at, key & 7)
    return value - 2**64 if value >= 2**63 else value


def message_of(data: bytes, encoding: str, most: int) -> bytes:
    """The message of one length-prefixed gRPC message, decompressed where its flag says so.

    Raises:
        Malformed: not exactly one message, not the encoding that was named, or more than `most` bytes once decompressed.
    """
    if len(data) < 5 or int.from_bytes(data[1:5], "big") != len(data) - 5 or data[0] > 1:  # noqa: PLR2004  the prefix
        raise Malformed("exactly one message is expected")
    if not data[0]:
        return data[5:]
    if encoding not in {"gzip", "deflate"}:
        raise Malformed(f"a message is compressed, but grpc-encoding is {encoding or 'not named'}; gzip and deflate are understood")
    return inflated(data[5:], most)


def inflated(data: bytes, most: int) -> bytes:
    """What gzip or zlib made small.

    Raises:
        Malformed: it is neither, or larger than `most`.
    """
    machine = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        content = machine.decompress(data, most + 1)
    except zlib.error as error:
        raise Malformed(f"what was compressed cannot be read: {error}") from error
    if not machine.eof or len(content) > most:
        raise Malformed("what was compressed is cut off, or too large")
    return content
