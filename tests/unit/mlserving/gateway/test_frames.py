"""HTTP/2's frames and HPACK's literals, against hpack and against themselves."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving.gateway import frames as f
from mlserving.gateway.frames import ProtocolError


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=40_000))
def test_a_literal_is_read_by_hpack_and_changes_no_table(name: bytes, value: bytes) -> None:
    decoder = hpack.Decoder(max_header_list_size=100_000)
    assert [tuple(header) for header in decoder.decode(f.literal(name, value) * 2, raw=True)] == [(name, value)] * 2
    assert len(decoder.header_table.dynamic_entries) == 0


@given(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1))
def test_a_frame_s_head_comes_back_as_it_went(length: int, kind: int, flags: int, stream: int) -> None:
    high, low, *rest = f.read_head(b"xx" + f.head(length, kind, flags, stream), 2)
    assert (high << 8 | low, *rest) == (length, kind, flags, stream)


@given(st.binary(min_size=1, max_size=500), st.integers(1, 100), st.booleans())
def test_a_header_block_of_any_length_is_parted_into_frames_that_are_allowed(block: bytes, most: int, end: bool) -> None:
    data, found, at = f.headers(3, block, end=end, most=most), b"", 0
    kinds, flags = [], []
    while at < len(data):
        high, low, kind, flag, stream = f.read_head(data, at)
        length = high << 8 | low
        assert (stream, length <= most) == (3, True)
        found += data[at + 9 : at + 9 + length]
        kinds.append(kind)
        flags.append(flag)
        at += 9 + length
    assert found == block
    assert kinds == [f.HEADERS] + [f.CONTINUATION] * (len(kinds) - 1)
    assert [bool(flag & f.END_HEADERS) for flag in flags] == [False] * (len(flags) - 1) + [True]
    assert bool(flags[0] & f.END_STREAM) == end


@given(st.binary(max_size=50), st.integers(0, 255))
def test_padding_goes_and_nothing_else(payload: bytes, padding: int) -> None:
    assert f.without_padding(f.PADDED, bytes((padding,)) + payload + b"\x00" * padding) == payload
    if padding >= len(payload) + 1:
        with pytest.raises(ProtocolError):
            f.without_padding(f.PADDED, bytes((padding,)) + payload)
