"""When schedules fire, on the days above all on which clocks are changed."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.calendar import parse
from mlpipelines.errors import ConfigError
from mlpipelines.project import Schedule
from mlpipelines.triggers.schedule import check, firings, last_firing, next_firings


def shown(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next firings as the clock on the wall shows them, with its offset."""
    place = ZoneInfo(zone)
    start = datetime.fromisoformat(after).replace(tzinfo=place).timestamp()
    moments = next_firings(Schedule(cron=cron, time_zone=zone), start, count)
    return [datetime.fromtimestamp(moment, place).strftime("%a %m-%d %H:%M%z") for moment in moments]


def test_a_weekly_schedule_keeps_its_hour_when_clocks_change() -> None:
    assert shown("0 5 * * 1", "Europe/London", "2026-03-20T00:00", 2) == ["Mon 03-23 05:00+0000", "Mon 03-30 05:00+0100"]


def test_an_hour_that_the_clock_leaps_over_fires_right_after_the_leap() -> None:
    assert shown("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", 3) == [
        "Sat 03-28 02:30+0100",
        "Sun 03-29 03:00+0200",
        "Mon 03-30 02:30+0200",
    ]


def test_an_hour_that_comes_twice_fires_the_first_time() -> None:
    assert shown("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == ["Sun 10-25 02:30+0200", "Mon 10-26 02:30+0100"]


def test_what_is_meant_every_hour_goes_by_time_that_passes() -> None:
    assert shown("30 * * * *", "Europe/Berlin", "2026-10-25T01:00", 4) == [
        "Sun 10-25 01:30+0200",
        "Sun 10-25 02:30+0200",
        "Sun 10-25 02:30+0100",
        "Sun 10-25 03:30+0100",
    ]
    assert shown("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", 2) == ["Sun 03-29 01:30+0100", "Sun 03-29 03:30+0200"]


def test_either_day_field_is_enough_as_crontab_has_it() -> None:
    assert shown("0 0 13 * fri", "UTC", "2026-02-01T00:00", 3) == ["Fri 02-06 00:00+0000", "Fri 02-13 00:00+0000", "Fri 02-20 00:00+0000"]


def test_the_last_firing_of_a_time_is_found() -> None:
    hourly = Schedule(cron="0 * * * *")
    assert last_firing(hourly, 0.0, 7300.0) == 7200.0
    assert last_firing(hourly, 0.0, 3600.0) == 3600.0
    assert last_firing(hourly, 3600.0, 3700.0) is None


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (Schedule(cron="0 25 * * *"), "no hour"),
        (Schedule(cron="0 0 30 2 *"), "no date within five years"),
        (Schedule(cron="0 0 * * *", time_zone="Mars/Olympus"), "IANA"),
        (Schedule(cron="0 0 * * *", time_zone="../etc/passwd"), "IANA"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused_with_its_field(schedule: Schedule, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(schedule, "churn/project.yaml")


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo", "Africa/Cairo"]
CRONS = ["0 3 * * *", "30 2 * * *", "*/15 * * * *", "0 0 * * 0", "59 23 * * *", "0 0 1 * *", "5 0-4 * * 1-5"]


@given(st.sampled_from(CRONS), st.sampled_from(ZONES), st.integers(1_600_000_000, 1_900_000_000))
def test_firings_come_in_order_once_and_where_the_wall_clock_shows_them_or_right_after_a_leap(cron: str, zone: str, start: int) -> None:
    moments = next_firings(Schedule(cron=cron, time_zone=zone), float(start), 20)
    assert len(moments) == 20
    assert moments == sorted(set(moments))
    assert moments[0] > start
    for moment in moments:
        wall = datetime.fromtimestamp(moment, ZoneInfo(zone))
        before = datetime.fromtimestamp(moment - 60, ZoneInfo(zone))
        leapt = wall.utcoffset() != before.utcoffset()
        assert parse(cron).names(wall.replace(tzinfo=None)) or leapt


@given(st.sampled_from(CRONS), st.sampled_from(ZONES), st.integers(1_600_000_000, 1_900_000_000), st.integers(1, 400_000))
def test_wherever_one_starts_to_look_the_same_moments_are_found(cron: str, zone: str, start: int, later: int) -> None:
    schedule = Schedule(cron=cron, time_zone=zone)
    from_start = [moment for moment in next_firings(schedule, float(start), 40) if moment > start + later]
    assert next_firings(schedule, float(start + later), len(from_start)) == from_start
    assert next(firings(schedule, float(start)))
