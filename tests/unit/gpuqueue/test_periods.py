"""The days, weeks and months of budgets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.periods import Per, period_of

MOMENTS = st.floats(0, datetime(2199, 12, 1, tzinfo=UTC).timestamp())
PERS = st.sampled_from(get_args(Per))


@given(PERS, MOMENTS)
def test_a_moment_lies_in_its_period_and_the_next_begins_where_it_ends(per: Per, now: float) -> None:
    period = period_of(per, now)
    assert period.begin <= now < period.end
    assert period_of(per, period.begin) == period
    following = period_of(per, period.end)
    assert following.begin == period.end
    assert following.name > period.name


@pytest.mark.parametrize(
    ("per", "day", "name", "days"),
    [
        ("month", (2026, 2, 28), "2026-02", 28),
        ("month", (2028, 2, 29), "2028-02", 29),
        ("month", (2026, 12, 31), "2026-12", 31),
        ("week", (2027, 1, 1), "2026-W53", 7),
        ("week", (2026, 12, 28), "2026-W53", 7),
        ("week", (2024, 12, 30), "2025-W01", 7),
        ("day", (2026, 11, 21), "2026-11-21", 1),
    ],
)
def test_names_and_lengths(per: Per, day: tuple[int, int, int], name: str, days: int) -> None:
    period = period_of(per, datetime(*day, 23, 59, 59, tzinfo=UTC).timestamp())
    assert (period.name, period.end - period.begin) == (name, days * 86400)
