"""What a person may type for `--since` and `--until`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.moments import moments


def test_a_time_without_an_offset_is_utc() -> None:
    assert moments("2025-01-31", "2025-01-31T06:00+02:00") == (datetime(2025, 1, 31, tzinfo=UTC), datetime(2025, 1, 31, 4, tzinfo=UTC))


def test_an_end_that_is_not_given_is_open() -> None:
    assert moments("", "") == (None, None)


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        ("yesterday", "", r"--since 'yesterday' is not a time\. Type ISO 8601"),
        ("", "2025-02-30", r"--until '2025-02-30' is not a time"),
        ("2025-02-01", "2025-01-01", r"--since 2025-02-01 is not before --until 2025-01-01"),
        ("2025-01-01T02:00+02:00", "2025-01-01", r"no row can lie between them"),
    ],
)
def test_what_is_no_window_is_a_mistake_in_the_command(since: str, until: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        moments(since, until)
