"""The periods of a budget: the day, week (from Monday) or month in which a moment lies, by UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Per = Literal["day", "week", "month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A span of time with a name, such as 2026-11, 2026-W47 or 2026-11-21."""

    name: str
    begin: float
    end: float


def period_of(per: Per, now: float) -> Period:
    """The period that `now`, in seconds since the epoch, lies in."""
    moment = datetime.fromtimestamp(now, UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return Period(name=f"{day:%Y-%m-%d}", begin=day.timestamp(), end=(day + timedelta(days=1)).timestamp())
    if per == "week":
        monday = day - timedelta(days=day.weekday())
        return Period(name=f"{monday:%G-W%V}", begin=monday.timestamp(), end=(monday + timedelta(days=7)).timestamp())
    first = day.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Period(name=f"{first:%Y-%m}", begin=first.timestamp(), end=following.timestamp())
