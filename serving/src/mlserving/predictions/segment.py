"""One exchange as a record on disk, and a file of them: the format of the spool, pure.

A segment begins with eight bytes that name the format. A record is its length and a CRC-32 of what follows, a fixed head, four short
texts, and the two bodies as they were. A writer that is killed leaves at most one torn record, the last: whatever
prefix of a segment is on the disk reads as a prefix of the records.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from mlserving.predictions.exchange import Exchange

MAGIC = b"MRSPOOL1"
_FRAME = struct.Struct("<II")
_HEAD = struct.Struct("<qqqBBBBHII")
_PROTOCOLS: tuple[Literal["grpc", "rest"], ...] = ("grpc", "rest")
OVERHEAD = _FRAME.size + _HEAD.size
"""Bytes of a record beyond its texts and bodies."""


class Torn(Exception):
    """From here on the segment holds no whole record: it is still being written, or its writer died."""


def pack(exchange: Exchange) -> bytes:
    """The record.

    Raises:
        ValueError: a text or number is longer than the format allows (255 bytes for a name, 4 GiB for a body).
    """
    texts = [text.encode() for text in (exchange.prediction_id, exchange.model, exchange.track, exchange.method)]
    try:
        head = _HEAD.pack(
            exchange.time_us, exchange.version, exchange.latency_us,
            _PROTOCOLS.index(exchange.protocol), len(texts[0]), len(texts[2]), len(texts[3]), len(texts[1]),
            len(exchange.request), len(exchange.response),
        )  # fmt: skip
    except struct.error as error:
        raise ValueError(f"the exchange does not fit a record: {error}") from error
    payload = b"".join((head, *texts, exchange.request, exchange.response))
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def records(segment: bytes, offset: int = 0) -> Iterator[tuple[int, Exchange]]:
    """Each exchange from `offset` (0, or where a record ended) with the offset behind it.

    Raises:
        Torn: after the last whole record, where bytes are left that are none.
    """
    if offset == 0:
        if segment[: len(MAGIC)] != MAGIC:
            raise Torn("no segment of this format")
        offset = len(MAGIC)
    while offset < len(segment):
        end, payload = _payload(segment, offset)
        yield end, _unpacked(payload)
        offset = end


def _payload(segment: bytes, offset: int) -> tuple[int, bytes]:
    start = offset + _FRAME.size
    if start > len(segment):
        raise Torn("the record's frame is cut")
    length, checksum = _FRAME.unpack_from(segment, offset)
    payload = segment[start : start + length]
    if len(payload) < max(length, _HEAD.size):
        raise Torn("the record is cut")
    if zlib.crc32(payload) != checksum:
        raise Torn("the record's checksum does not fit")
    return start + length, payload


def _unpacked(payload: bytes) -> Exchange:
    time_us, version, latency_us, protocol, of_id, of_track, of_method, of_model, of_request, of_response = _HEAD.unpack_from(payload)
    cut, parts = _HEAD.size, []
    for length in (of_id, of_model, of_track, of_method, of_request, of_response):
        parts.append(payload[cut : cut + length])
        cut += length
    if cut != len(payload) or protocol >= len(_PROTOCOLS):
        raise Torn("the record's head does not fit its body")
    return Exchange(
        prediction_id=parts[0].decode(), model=parts[1].decode(), track=parts[2].decode(), method=parts[3].decode(),
        time_us=time_us, version=version, latency_us=latency_us, protocol=_PROTOCOLS[protocol],
        request=parts[4], response=parts[5],
    )  # fmt: skip
