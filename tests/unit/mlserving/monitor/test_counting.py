"""What is counted of a column, whatever is in it, and that counting in parts is counting the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserving.monitor import counting
from mlserving.monitor.counting import ColumnCounter
from mlserving.statistics.columns import Column
from watched_model import column_of


def counted(reference: Column, *parts: pa.Array) -> ColumnCounter:
    counter = ColumnCounter(reference=reference)
    for part in parts:
        counter.add(part)
    return counter


NUMBERS, TEXTS = column_of(np.arange(1.0, 1001.0)), column_of(["a", "b", "b", "c"] * 100)


@pytest.mark.parametrize(
    ("reference", "values", "missing"),
    [
        (NUMBERS, pa.array([1.0, None, float("nan"), 4.0]), 2),
        (NUMBERS, pa.array([3, -1, None]), 2),
        (column_of([-1, 0, 1] * 50), pa.array([3, -1, None]), 1),
        (TEXTS, pa.array(["a", "", None]), 2),
        (column_of(["", "a"] * 50), pa.array(["a", "", None]), 1),
        (TEXTS, pa.array([["a", "b"], [], None, [""]]), 3),
        (NUMBERS, pa.array([[1.0, 2.0], [float("nan")], None]), 2),
        (TEXTS, pa.array([b"a", b"", None]), 2),
    ],
)
def test_missing_is_what_clients_send_for_it_unless_training_knew_it_as_a_value(reference: Column, values: pa.Array, missing: int) -> None:
    assert counted(reference, values).column().missing == missing


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=True)), max_size=80), st.integers(0, 80))
def test_numbers_counted_in_two_parts_are_the_numbers_counted_at_once(values: list[float | None], place: int) -> None:
    whole = pa.array(values, pa.float32())
    once, twice = counted(NUMBERS, whole).column(), counted(NUMBERS, whole.slice(0, place), whole.slice(place)).column()
    assert (once.missing, once.rows) == (twice.missing, twice.rows)
    if once.numbers is not None and twice.numbers is not None:
        assert once.numbers.buckets == twice.numbers.buckets
        assert once.numbers.total == once.present


@settings(deadline=None)
@given(st.lists(st.floats(-10, 1010, width=32), min_size=1, max_size=200))
def test_the_share_below_a_cut_is_exact(values: list[float]) -> None:
    numbers = counted(NUMBERS, pa.array(values, pa.float32())).column().numbers
    assert numbers is not None
    assert NUMBERS.numbers is not None
    from mlserving.statistics.distances import cut_points

    for cut in cut_points(NUMBERS.numbers)[::7]:
        assert numbers.share_up_to(cut) == pytest.approx(np.mean(np.array(values, np.float32) <= cut))
        assert numbers.share_below(cut) == pytest.approx(np.mean(np.array(values, np.float32) < cut))


def test_infinite_numbers_are_counted_at_the_ends() -> None:
    numbers = counted(NUMBERS, pa.array([float("inf"), float("-inf"), 5.0])).column().numbers
    assert numbers is not None
    assert (numbers.minimum, numbers.maximum, numbers.total) == (-np.inf, np.inf, 3)
    assert (numbers.buckets[0].count, numbers.buckets[-1].count) == (2, 1)


def test_many_text_values_take_bounded_memory_and_the_frequent_ones_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_VALUES", 100)
    parts = [pa.array([f"rare-{batch}-{number}" for number in range(60)] + ["often"] * 40) for batch in range(50)]
    counter = counted(TEXTS, *parts)
    texts = counter.column().texts
    assert texts is not None
    assert texts.counts["often"] == 2000
    assert texts.total == 5000
    assert len(texts.counts) <= 100
    assert not texts.complete
    assert counter.new_share == pytest.approx(1)


def test_new_values_are_those_that_training_did_not_have() -> None:
    assert counted(TEXTS, pa.array(["a", "b", "new", "newer"])).new_share == pytest.approx(0.5)
    assert counted(NUMBERS, pa.array([1.0])).new_share is None


@pytest.mark.parametrize(("reference", "values"), [(NUMBERS, pa.array(["12"])), (TEXTS, pa.array([12])), (NUMBERS, pa.array([{"a": 1}]))])
def test_another_type_than_training_s_is_told_and_not_compared(reference: Column, values: pa.Array) -> None:
    counter = counted(reference, values)
    assert counter.unreadable == str(values.type)
    assert counter.column().numbers is counter.column().texts is None


def test_text_that_is_no_utf8_and_dictionaries_are_counted() -> None:
    assert counted(TEXTS, pa.array([b"\xff", b"a"])).new_share == pytest.approx(0.5)
    encoded: Any = pa.array(["a", "b"]).dictionary_encode()
    texts = counted(TEXTS, encoded).column().texts
    assert texts is not None
    assert texts.counts == {"a": 1, "b": 1}
