"""The spool's format: whatever prefix of a segment is on the disk reads as a prefix of what was written."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges import an_exchange
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.segment import MAGIC, Torn, pack, records

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
EXCHANGES = st.builds(
    Exchange,
    prediction_id=NAMES, time_us=NUMBERS, model=NAMES, version=NUMBERS, track=NAMES, protocol=st.sampled_from(["grpc", "rest"]),
    method=NAMES, latency_us=NUMBERS, request=st.binary(max_size=300), response=st.binary(max_size=300),
)  # fmt: skip


def a_segment(exchanges: list[Exchange]) -> bytes:
    return MAGIC + b"".join(map(pack, exchanges))


def whole(segment: bytes) -> list[Exchange]:
    found: list[Exchange] = []
    with contextlib.suppress(Torn):
        for _, exchange in records(segment):
            found.append(exchange)
    return found


@given(st.lists(EXCHANGES, max_size=4))
def test_what_is_written_is_what_is_read(exchanges: list[Exchange]) -> None:
    assert [exchange for _, exchange in records(a_segment(exchanges))] == exchanges


@given(st.lists(EXCHANGES, min_size=1, max_size=4), st.data())
def test_any_prefix_of_a_segment_reads_as_a_prefix_of_the_records(exchanges: list[Exchange], data: st.DataObject) -> None:
    segment = a_segment(exchanges)
    cut = data.draw(st.integers(0, len(segment)))
    found = whole(segment[:cut])
    assert found == exchanges[: len(found)]
    assert len(a_segment(exchanges[: len(found) + 1])) > cut or len(found) == len(exchanges), "a whole record was not read"


@given(st.lists(EXCHANGES, min_size=1, max_size=3), st.data())
def test_a_flipped_bit_costs_its_record_and_what_follows_and_nothing_before(exchanges: list[Exchange], data: st.DataObject) -> None:
    segment = bytearray(a_segment(exchanges))
    place = data.draw(st.integers(len(MAGIC), len(segment) - 1))
    segment[place] ^= 1 << data.draw(st.integers(0, 7))
    found = whole(bytes(segment))
    assert found == exchanges[: len(found)]
    assert len(found) < len(exchanges)
    assert len(a_segment(exchanges[: len(found) + 1])) > place, "a record before the damage was lost"


@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_no_records_and_no_crash(garbage: bytes) -> None:
    whole(garbage)
    whole(MAGIC + garbage)


def test_reading_goes_on_where_it_stopped() -> None:
    exchanges = [an_exchange(number) for number in range(3)]
    offsets = [end for end, _ in records(a_segment(exchanges))]
    assert [exchange for _, exchange in records(a_segment(exchanges), offsets[0])] == exchanges[1:]


def test_what_no_record_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack(an_exchange(prediction_id="x" * 256))
