"""Quotas that a calendar changes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.calendar import HORIZON, Window, lane_of, parse


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def told(quota: int, *windows: Window, now: str) -> list[tuple[str, int]]:
    found = lane_of("l4", quota, windows, at(now)).quota
    return [(datetime.fromtimestamp(moment, UTC).isoformat()[:16], value) for moment, value in found]


NIGHT = Window(cron="0 20 * * mon-fri", seconds=10 * 3600, quota=16)


def test_without_windows_the_quota_stays() -> None:
    assert told(8, now="2026-03-02T12:00") == [("2026-03-02T12:00", 8)]


def test_a_night_shift_on_weekdays() -> None:
    found = told(8, NIGHT, now="2026-03-06T21:30")  # a Friday, within the window
    assert found[:4] == [
        ("2026-03-06T21:30", 16),
        ("2026-03-07T06:00", 8),
        ("2026-03-09T20:00", 16),
        ("2026-03-10T06:00", 8),
    ]


def test_of_two_windows_the_last_one_counts_and_zones_are_heeded() -> None:
    cut = Window(cron="30 1 * * *", seconds=3600, quota=0, zone="Asia/Kolkata")  # 20:00 UTC
    assert told(8, NIGHT, cut, now="2026-03-02T19:00")[:3] == [("2026-03-02T19:00", 8), ("2026-03-02T20:00", 0), ("2026-03-02T21:00", 16)]


def test_when_clocks_change_the_window_follows_the_wall() -> None:
    london = Window(cron="0 20 * * *", seconds=3600, quota=16, zone="Europe/London")
    openings = [moment for moment, quota in told(8, london, now="2026-03-28T12:00") if quota == 16]
    assert openings[:2] == ["2026-03-28T20:00", "2026-03-29T19:00"]


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 20 * *", "has 4 fields; it needs five"),
        ("60 * * * *", "'60' is no minute; write numbers from 0 to 59"),
        ("* * * * fry", "'fry' is no day of week"),
        ("*/0 * * * *", "'\\*/0' is no minute"),
        ("5-2 * * * *", "'5-2' is no minute"),
        ("0 0 0 * *", "'0' is no day of month"),
    ],
)
def test_a_wrong_expression_says_which_field(cron: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(cron)


def test_a_zone_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="'Mars/Olympus' is not a time zone"):
        lane_of("l4", 8, [Window(cron="* * * * *", seconds=60, quota=1, zone="Mars/Olympus")], 0.0)


def test_two_restricted_days_are_alternatives() -> None:
    either = parse("0 0 13 * fri")
    assert either.names(datetime(2026, 3, 13))  # noqa: DTZ001 (a wall clock)
    assert either.names(datetime(2026, 3, 20))  # noqa: DTZ001
    assert not either.names(datetime(2026, 3, 21))  # noqa: DTZ001


FIELD = {
    "minute": st.sampled_from(["*", "0", "30", "*/20", "5-10"]),
    "hour": st.sampled_from(["*", "0", "1-3", "*/6", "23"]),
    "day": st.sampled_from(["*", "1", "*/7"]),
    "month": st.sampled_from(["*", "3", "jan-jun"]),
    "weekday": st.sampled_from(["*", "0", "7", "mon,thu"]),
}


@given(
    st.tuples(*FIELD.values()).map(" ".join),
    st.sampled_from(["UTC", "Europe/London", "Asia/Kathmandu", "America/St_Johns"]),
    st.integers(1, 30 * 3600),
    st.integers(0, 3 * 365 * 24 * 60),
)
@settings(max_examples=40, deadline=None)
def test_it_agrees_with_looking_at_every_minute(cron: str, zone: str, seconds: int, minute: int) -> None:
    now = at("2025-01-01T00:00") + 60.0 * minute
    lane = lane_of("l4", 1, [Window(cron=cron, seconds=float(seconds), quota=2, zone=zone)], now)
    expression, local = parse(cron), ZoneInfo(zone)
    opened = [
        now + 60 * step
        for step in range(-seconds // 60 - 1, 24 * 60)
        if expression.names(datetime.fromtimestamp(now + 60 * step, UTC).astimezone(local))
    ]
    for step in range(0, 24 * 60, 7):
        moment = now + 60 * step
        is_open = any(start <= moment < start + seconds for start in opened)
        assert lane.at(moment) == (2 if is_open else 1)
    assert lane.quota[-1][0] <= now + HORIZON.total_seconds() + timedelta(hours=30).total_seconds()
