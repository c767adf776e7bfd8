"""HTTP/2's frames: numbers, and bytes to and from them. Pure; `http2` keeps the state of a connection.

Names and numbers are those of RFC 9113. Our header blocks are literals without indexing (RFC 7541, 6.2.2): they read the
same on every connection, so one that was encoded once is sent many times.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = (
    range(9)
)
COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = 9, 10, 11

HEAD_SIZE: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME: Final = 16_384
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_FRAME: Final = 2**24 - 1

_HEAD: Final = Struct(">HBBBL")
read_head = _HEAD.unpack_from
"""(length >> 8, length & 255, kind, flags, stream) of the nine bytes at an offset."""
_pack_head = _HEAD.pack
_SETTING: Final = Struct(">HL")
_NUMBER: Final = Struct(">L")
_SHORT: Final = 127  # a length that fits HPACK's seven bits with prefix all ones left over


class ProtocolError(Exception):
    """The other side broke the rules of HTTP/2; the connection ends with `code`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """A frame's nine bytes before its payload."""
    return _pack_head(length >> 8, length & 255, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    length = len(payload)
    return _pack_head(length >> 8, length & 255, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Names and values of a SETTINGS frame.

    Raises:
        ProtocolError: its length is no multiple of six, or a value is out of range.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError(FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
    found = list(_SETTING.iter_unpack(payload))
    for name, value in found:
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError(FLOW_CONTROL_ERROR, "an initial window above 2^31-1")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= LARGEST_FRAME:
            raise ProtocolError(PROTOCOL_ERROR, "a frame size that is not allowed")
        if name == ENABLE_PUSH and value > 1:
            raise ProtocolError(PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
    return found


def window_update(stream: int, size: int) -> bytes:
    """Let the other side send `size` bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def reset(stream: int, code: int) -> bytes:
    """End one stream."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """Say that no stream after `last_stream` is looked at."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last_stream) + _NUMBER.pack(code) + text.encode())


def number(payload: bytes, at: int = 0) -> int:
    """The 32 bits at `at`, without the reserved first one.

    Raises:
        ProtocolError: the payload is too short.
    """
    if len(payload) < at + 4:
        raise ProtocolError(FRAME_SIZE_ERROR, "a frame that is too short")
    value: int = _NUMBER.unpack_from(payload, at)[0]
    return value & LARGEST_WINDOW


def headers(stream: int, block: bytes, *, end: bool, most: int) -> bytes:
    """HEADERS with `block`, and CONTINUATION frames where it is longer than `most`."""
    flags = END_STREAM if end else 0
    length = len(block)
    if length <= most:
        return _pack_head(length >> 8, length & 255, HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[at : at + most] for at in range(0, length, most)]
    frames = [frame(HEADERS, flags, stream, parts[0]), *(frame(CONTINUATION, 0, stream, part) for part in parts[1:-1])]
    return b"".join([*frames, frame(CONTINUATION, END_HEADERS, stream, parts[-1])])


def without_padding(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding and, for HEADERS, without its priority.

    Raises:
        ProtocolError: there is more padding than payload.
    """
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ProtocolError(PROTOCOL_ERROR, "more padding than payload")
        payload = payload[1 : len(payload) - payload[0]]
    return payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header as HPACK spells it without indexing and without Huffman's code."""
    if len(name) < _SHORT and len(value) < _SHORT:
        return b"\x00%c%b%c%b" % (len(name), name, len(value), value)
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(size: int) -> bytes:
    if size < _SHORT:
        return bytes((size,))
    digits, rest = [_SHORT], size - _SHORT
    while rest >= 128:  # noqa: PLR2004  seven bits a byte
        digits.append(rest % 128 + 128)
        rest //= 128
    return bytes([*digits, rest])
