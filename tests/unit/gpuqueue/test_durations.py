"""Durations as people write them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.durations import seconds_of, words_of

SCHEMA = Path(__file__).parents[3] / "helm" / "gpu-queue" / "crds" / "gpuqueues.yaml"


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("6h", 21600), ("1h30m15s", 5415), ("0h5m", 300), ("007s", 7)])
def test_hours_minutes_and_seconds_are_added_up(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "90", "1.5h", "-1h", "30m1h", "1h 30m", "1d", "1H", "٣m", "1m\n"])
def test_what_is_no_duration_above_zero_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("such as 90m, 6h or 1h30m")):
        seconds_of(text)


@given(st.integers(1, 10**8))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert seconds_of(words_of(seconds)) == seconds


@pytest.mark.parametrize(("seconds", "words"), [(0, "0s"), (-3, "0s"), (59.6, "1m"), (3600, "1h"), (90061, "25h1m1s")])
def test_words_are_to_the_second_and_never_negative(seconds: float, words: str) -> None:
    assert words_of(seconds) == words


@given(st.text(alphabet="0123456789hms", max_size=8))
def test_it_takes_what_the_queues_schema_takes(text: str) -> None:
    """The rule is read from the schema itself, so that the two cannot part."""
    found = re.search(r"self\.matches\('(\^\(\[0-9\]\+h\).*?\$)'\) && self\.matches\('(\[1-9\])'\)", SCHEMA.read_text(encoding="utf-8"))
    assert found is not None
    schema_takes = re.search(found[1], text) is not None and re.search(found[2], text) is not None
    try:
        taken = seconds_of(text) > 0
    except ValueError:
        taken = False
    assert taken == schema_takes
