"""How many calls may be cancelled: good clients never meet the limit, and one that only cancels meets it soon."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlserving.gateway.resets import SECONDS, Resets


@given(st.integers(1, 200))
def test_who_only_cancels_is_stopped_at_the_first_call_beyond_the_limit(most: int) -> None:
    resets = Resets(100.0)
    assert [resets.cancelled(100.0, most) for _ in range(most + 1)] == [True] * most + [False]


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 20))
def test_who_never_cancelled_more_beyond_the_answers_than_is_allowed_is_never_stopped(answered: list[bool], most: int) -> None:
    resets, beyond = Resets(0.0), 0
    for answer in answered:
        if answer:
            resets.answered()
            beyond = max(beyond - 1, 0)
        else:
            beyond += 1
            assert resets.cancelled(0.0, most) is (beyond <= most)
            if beyond > most:
                return


def test_time_makes_up_for_the_whole_limit_in_half_a_minute() -> None:
    resets = Resets(0.0)
    assert all(resets.cancelled(0.0, 10) for _ in range(10))
    assert not resets.cancelled(0.0, 10)
    assert all(resets.cancelled(SECONDS * 1.1, 10) for _ in range(10))


def test_a_steady_trickle_below_the_rate_is_never_stopped() -> None:
    resets = Resets(0.0)
    assert all(resets.cancelled(n * SECONDS / 10, 10) for n in range(10_000))
