"""Calendar spans: the folders in which rows are kept, so that a month that did not change is not analysed again. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

SpanKind = Literal["day", "week", "month", "none"]
Codes = npt.NDArray[np.int64]
WHOLE = "all"
"""The one span of rows without a time."""
_DAY = 86_400
_FIRST_MONDAY = 3  # 1970-01-01 was a Thursday: days since then, plus 3, make whole weeks from Monday


def span_codes(seconds: npt.NDArray[np.int64] | None, kind: SpanKind, rows: int) -> Codes:
    """A number for each row's span (UTC), growing with time; equal numbers, equal span."""
    if seconds is None or kind == "none":
        return np.zeros(rows, dtype=np.int64)
    days = seconds // _DAY
    if kind == "day":
        return days
    if kind == "week":
        return (days + _FIRST_MONDAY) // 7
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def span_name(code: int, kind: SpanKind, *, timed: bool = True) -> str:
    """The folder's name: `2016-04-01`, `2016-W14` (ISO week) or `2016-04`; names sort as time does."""
    if kind == "none" or not timed:
        return WHOLE
    if kind == "month":
        return f"{1970 + code // 12:04d}-{code % 12 + 1:02d}"
    if kind == "week":
        year, week, _ = datetime.fromtimestamp((7 * code - _FIRST_MONDAY) * _DAY, UTC).isocalendar()
        return f"{year:04d}-W{week:02d}"
    return datetime.fromtimestamp(code * _DAY, UTC).strftime("%Y-%m-%d")
