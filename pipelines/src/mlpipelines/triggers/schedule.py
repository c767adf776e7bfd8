"""When a schedule fires: five-field cron in a time zone, as a wall clock on the office wall would have it.

Clocks that are put forward or back follow the rule of cron(8) on Debian. Where the hours are named (`30 2 * * *`), a time that the clock leaps over
fires at the first minute after the leap, and a time that comes twice fires the first time. Where every hour is meant (`*/15 * * * *`), the schedule goes
by time that passes: nothing is made up for, and what comes twice fires twice. Pure: no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gpuqueue.calendar import parse
from mlpipelines.errors import ConfigError
from mlpipelines.project import Schedule

_FARTHEST = timedelta(days=5 * 366)
"""29 February is at most eight years away, but a date that comes in five is no schedule."""
_MINUTE = timedelta(minutes=1)


def check(schedule: Schedule, origin: str) -> None:
    """Look whether a schedule can be followed.

    Raises:
        ConfigError: the expression or the zone cannot be read, or it never fires; the text names `origin` and the field.
    """
    try:
        _zone(schedule.time_zone)
        if next(firings(schedule, datetime(2026, 1, 1, tzinfo=UTC).timestamp()), None) is None:
            raise ValueError(f"cron {schedule.cron!r} names no date within five years")
    except ValueError as error:
        raise ConfigError(f"{origin}: schedule: {error}. See what a schedule means: millrace schedules PROJECT_DIR") from error


def firings(schedule: Schedule, after: float) -> Iterator[float]:
    """The moments after `after` at which a schedule fires, in seconds since 1970, in order.

    Raises:
        ValueError: the expression or the zone cannot be read.
    """
    expression, zone = parse(schedule.cron), _zone(schedule.time_zone)
    minutes, hours, *_ = expression.fields
    every_hour = schedule.cron.split()[1].startswith("*")
    day = datetime.fromtimestamp(after, zone).date()
    last = day + _FARTHEST
    while day <= last:
        found: set[float] = set()
        if expression.names(datetime(day.year, day.month, day.day, min(hours), min(minutes))):  # noqa: DTZ001  a wall clock has no zone
            for hour in hours:
                for minute in minutes:
                    found.update(_moments(day, hour, minute, zone, every_hour=every_hour))
        yield from sorted(moment for moment in found if moment > after)
        day += timedelta(days=1)


def next_firings(schedule: Schedule, after: float, count: int) -> list[float]:
    """The first `count` of them. Raises as `firings` does."""
    return list(islice(firings(schedule, after), count))


def last_firing(schedule: Schedule, after: float, until: float) -> float | None:
    """The last firing after `after` up to `until`, that moment included; None where there is none. Raises as `firings` does."""
    last = None
    for moment in firings(schedule, after):
        if moment > until:
            break
        last = moment
    return last


def _moments(day: date, hour: int, minute: int, zone: ZoneInfo, *, every_hour: bool) -> Iterator[float]:
    """The moments at which a wall clock shows a time: one, two, or none."""
    wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    first, second = wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
    if first == second:
        yield first.timestamp()
    elif first < second:  # the clock is put back over it
        yield first.timestamp()
        if every_hour:
            yield second.timestamp()
    elif not every_hour:  # the clock leaps over it: `second` is before the leap and `first` after it
        moment, offset = second, second.astimezone(zone).utcoffset()
        while moment.astimezone(zone).utcoffset() == offset:
            moment += _MINUTE
        yield moment.timestamp()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"time_zone {name!r} is not one of the IANA names, such as Europe/London") from error
