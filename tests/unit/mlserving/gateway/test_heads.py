"""Header blocks: remembered, they mean what a decoder that remembers nothing reads."""

from __future__ import annotations

import re

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving.gateway import heads
from mlserving.gateway.frames import ProtocolError
from mlserving.gateway.heads import Blocks, answer_head, request_head, timeout_header

_HEADERS = st.lists(
    st.tuples(st.sampled_from([b"a", b"b", b"x-long-name"]), st.sampled_from([b"1", b"2", b"v" * 100, b"w" * 1500])), max_size=5
)


@given(st.lists(st.tuples(_HEADERS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=25))
def test_a_block_that_is_remembered_means_what_it_says_now(requests: list[tuple[list[tuple[bytes, bytes]], bool, int | None]]) -> None:
    """The encoder is hpack's, with its table, so equal blocks may mean other headers later, and equal headers come as other blocks."""
    encoder, remembering = hpack.Encoder(), Blocks(lambda headers: headers)
    for headers, huffman, size in requests:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(headers, huffman=huffman)
        assert remembering.read(block) == headers


def test_headers_that_grow_without_end_are_refused() -> None:
    block = hpack.Encoder().encode([(b"x", b"y" * 4000)]) + b"\xbe" * 30  # one entry of the table, thirty times
    with pytest.raises(ProtocolError):
        Blocks(answer_head).read(block)


def headers(*more: tuple[bytes, bytes], path: bytes = b"/s/M", method: bytes = b"POST") -> list[tuple[bytes, bytes]]:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"h"),
        (b"content-type", b"application/grpc+proto"),
        *more,
    ]


def test_what_goes_on_is_what_came_but_the_timeout_the_id_and_the_authority() -> None:
    head = request_head(
        headers((b"x-user", b"u1"), (b"grpc-timeout", b"250m"), (b"x-prediction-id", b"p"), (b"user-agent", b"ua"), (b"te", b"trailers"))
    )
    assert (head.path, head.timeout, head.prediction_id, head.wrong, head.fields["x-user"]) == ("/s/M", 0.25, "p", "", "u1")
    sent = dict(tuple(each) for each in hpack.Decoder().decode(head.start + head.rest, raw=True))
    assert sent == {
        b":method": b"POST", b":scheme": b"http", b":path": b"/s/M", b"content-type": b"application/grpc+proto", b"x-user": b"u1", b"user-agent": b"ua",
        b"te": b"trailers",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (headers(method=b"GET"), "POST"),
        (headers((b"grpc-timeout", b"1s")), "grpc-timeout"),
        (headers((b"grpc-timeout", b"123456789S")), "grpc-timeout"),
        (headers((b"x-prediction-id", b"a b")), "x-prediction-id"),
        (headers((b"x", b"a\nb")), "'x'"),
        (headers((b"X", b"a")), "'X'"),
        (headers((b"transfer-encoding", b"chunked")), "transfer-encoding"),
        (headers((b":path", b"/other")), "pseudo"),
        ([(b":method", b"POST"), (b":path", b"/s/M")], "content-type"),
        ([], "POST"),
    ],
)
def test_headers_that_cannot_be_meant_are_told(found: list[tuple[bytes, bytes]], told: str) -> None:
    assert told in request_head(found).wrong


@given(st.floats(1e-9, 1e6))
def test_the_time_that_is_left_is_never_told_as_more(seconds: float) -> None:
    [(name, value)] = [tuple(each) for each in hpack.Decoder().decode(timeout_header(seconds), raw=True)]
    assert (name, bool(re.fullmatch(rb"\d{1,8}[um]", value))) == (b"grpc-timeout", True)
    told = int(value[:-1]) * {b"u": 1e-6, b"m": 1e-3}[value[-1:]]
    assert told <= max(seconds, 1e-6) * (1 + 1e-9)
    assert told >= seconds * 0.98 - 1e-5 or seconds > 99_999


@given(st.text(max_size=200))
def test_a_message_with_any_character_is_sent_as_ascii_that_reads_back(text: str) -> None:
    from urllib.parse import unquote_to_bytes

    fields = dict(tuple(each) for each in hpack.Decoder().decode(heads.status_trailers(3, text), raw=True))
    assert fields[b"grpc-status"] == b"3"
    message = fields.get(b"grpc-message", b"")
    assert message.isascii()
    assert not re.search(rb"[\x00-\x1f]", message)
    assert unquote_to_bytes(message) == text.encode()[:1024]
