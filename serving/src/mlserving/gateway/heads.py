"""Header blocks of gRPC: read with `hpack`, remembered while nothing about them can have changed, and written again for the other side.

A client that repeats itself sends the same few bytes for each request once HPACK's table holds its headers. Such a block means the
same until the table changes, so it is decoded once; what is derived from it (who is asked, the block to send on) is kept with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import hpack

from mlserving.gateway import frames as f
from mlserving.gateway.frames import ProtocolError, literal
from mlserving.gateway.http2 import HEADER_LIST

T = TypeVar("T")

PREDICTION_ID: Final = "x-prediction-id"
MODEL_VERSION: Final = "x-model-version"
TRACK: Final = "x-track"
OURS: Final = frozenset({PREDICTION_ID, MODEL_VERSION, TRACK})

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CONNECTION_HEADERS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_REMEMBERED = 256
_MOST_MICROSECONDS = 99_999_999  # eight digits


def valid_id(text: str) -> bool:
    """Whether a caller may name its prediction so."""
    return _ID.fullmatch(text) is not None


class Blocks(Generic[T]):
    """Header blocks of one connection's one direction, as `meaning` understands them."""

    def __init__(self, meaning: Callable[[list[tuple[bytes, bytes]]], T]) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=HEADER_LIST)
        self._meaning = meaning
        self._known: dict[bytes, T] = {}

    def read(self, block: bytes) -> T:
        """What the block says.

        Raises:
            ProtocolError: it is no header block, or too much; the connection cannot go on, since the table is lost.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._state()
        try:
            found = self._decoder.decode(block, raw=True)
        except hpack.OversizedHeaderListError as error:
            raise ProtocolError(f.ENHANCE_YOUR_CALM, "headers above 16 KiB") from error
        except (hpack.HPACKError, IndexError, ValueError, OverflowError) as error:
            raise ProtocolError(f.COMPRESSION_ERROR, "headers that HPACK cannot read") from error
        meaning = self._meaning([(header[0], header[1]) for header in found])
        after = self._state()
        unchanged = before[:2] == after[:2] and before[2] is after[2]
        if not unchanged or len(self._known) >= _REMEMBERED:
            self._known.clear()
        if unchanged:
            self._known[block] = meaning
        return meaning

    def _state(self) -> tuple[int, int, object]:
        """Differs once the table has: an entry that was added is first, and is no other object."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return (table.maxsize, len(entries), entries[0] if entries else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """The headers of a gRPC request."""

    path: str
    fields: dict[str, str]
    """Metadata, for the sticky key."""
    timeout: float | None
    """Seconds; None where the caller named none."""
    prediction_id: str
    encoding: str
    start: bytes
    """The block to send on, up to `:authority`."""
    rest: bytes
    """The block to send on, from after `:authority`, without the timeout and the id."""
    wrong: str = ""
    """Why the request cannot be answered."""


def request_head(headers: list[tuple[bytes, bytes]]) -> RequestHead:
    """The headers of a request that a client sent, and what of them is sent on."""
    pseudo, fields, wrong = _parted(headers)
    path = pseudo.get(b":path", b"")
    if not wrong:
        wrong = _what_is_wrong(pseudo, fields)
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}
    timeout, bad_timeout = _timeout(texts.get("grpc-timeout"))
    identity = texts.get(PREDICTION_ID, "")
    if PREDICTION_ID in texts and not _ID.fullmatch(identity):
        wrong = wrong or f"{PREDICTION_ID} is at most 64 of A-Z, a-z, 0-9, _ and -"
    kept = [(name, value) for name, value in fields if name not in {b"grpc-timeout", b"x-prediction-id"}]
    return RequestHead(
        path=path.decode("latin-1"),
        fields=texts,
        timeout=timeout,
        prediction_id=identity,
        encoding=texts.get("grpc-encoding", "identity"),
        start=b"\x83\x86" + literal(b":path", path),  # :method POST and :scheme http stand in HPACK's own table
        rest=b"".join(literal(name, value) for name, value in kept),
        wrong=wrong or bad_timeout,
    )


def _parted(headers: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]], str]:
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    wrong = ""
    for name, value in headers:
        if name.startswith(b":"):
            if fields or name in pseudo or name not in {b":method", b":scheme", b":path", b":authority"}:
                wrong = "pseudo-headers are out of order"
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or _BAD_VALUE.search(value) or name in _CONNECTION_HEADERS:
            wrong = f"the header {name[:40].decode('latin-1')!r} is not allowed"
        else:
            fields.append((name, value))
    return pseudo, fields, wrong


def _what_is_wrong(pseudo: dict[bytes, bytes], fields: list[tuple[bytes, bytes]]) -> str:
    if pseudo.get(b":method") != b"POST":
        return "gRPC calls are POSTs"
    if any(_BAD_VALUE.search(value) for value in pseudo.values()):
        return "a pseudo-header holds what it may not"
    kinds = [value for name, value in fields if name == b"content-type"]
    if not kinds or not kinds[0].startswith(b"application/grpc"):
        return "content-type is not application/grpc"
    return ""


def _timeout(text: str | None) -> tuple[float | None, str]:
    if text is None:
        return None, ""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        return None, "grpc-timeout is a number of at most eight digits and one of H, M, S, m, u, n"
    return int(match[1]) * _UNITS[match[2]], ""


def timeout_header(seconds: float) -> bytes:
    """`grpc-timeout`, for the time that is left."""
    left = max(int(seconds * 1e6), 1)
    text = b"%du" % left if left <= _MOST_MICROSECONDS else b"%dm" % min(left // 1000, _MOST_MICROSECONDS)
    return literal(b"grpc-timeout", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """The headers or the trailers of a gRPC answer."""

    block: bytes
    """To send on; without `:status` and without the headers that are ours."""
    http: int
    """`:status`; 0 in trailers."""
    code: int | None
    """`grpc-status`, where it is there."""
    encoding: str = "identity"


def answer_head(headers: list[tuple[bytes, bytes]]) -> AnswerHead:
    """What a model server answered, and what of it is sent on."""
    http, code, encoding = 0, None, "identity"
    parts = []
    for name, value in headers:
        if name == b":status":
            http = int(value) if value.isdigit() else 0
            continue
        if name == b"grpc-status":
            code = int(value) if value.isdigit() and len(value) < 3 else 2  # noqa: PLR2004  two digits; 2 is UNKNOWN
        elif name == b"grpc-encoding":
            encoding = value.decode("latin-1")
        if name.decode("latin-1") not in OURS and _NAME.fullmatch(name) and not _BAD_VALUE.search(value):
            parts.append(literal(name, value))
    return AnswerHead(block=b"".join(parts), http=http, code=code, encoding=encoding)


def our_headers(prediction_id: str, version: int, track: str) -> bytes:
    """`x-prediction-id`, `x-model-version` and `x-track` as a part of a header block."""
    number = b"%d" % version
    return b"\x00\x0fx-prediction-id%c%b\x00\x0fx-model-version%c%b\x00\x07x-track%c%b" % (
        len(prediction_id), prediction_id.encode(), len(number), number, len(track), track.encode()
    )  # fmt: skip


def trailers_only(code: int, message: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """The block of an answer that is nothing but a status."""
    parts = [b"\x88", literal(b"content-type", b"application/grpc"), status_trailers(code, message)]
    return b"".join([*parts, *(literal(name.encode(), value.encode()) for name, value in extra)])


def status_trailers(code: int, message: str) -> bytes:
    """`grpc-status` and `grpc-message`, percent-encoded as gRPC asks."""
    encoded = "".join(chr(byte) if 32 <= byte <= 126 and byte != 37 else f"%{byte:02X}" for byte in message.encode()[:1024])  # noqa: PLR2004  printable ASCII but %
    return literal(b"grpc-status", str(code).encode()) + (literal(b"grpc-message", encoded.encode()) if encoded else b"")
