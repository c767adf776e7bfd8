"""How many rows of a set people can look at: `evaluation.capacity` over the time that the set spans. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.project import Capacity

SECONDS_A_DAY = 86_400
DAYS_A_WEEK = 7


def places_for(capacity: Capacity | None, seconds: pa.ChunkedArray | None) -> float | None:
    """How many rows of a set people look at: `cases` for every day or week that it spans, first and last day included."""
    if capacity is None or capacity.per == "set" or seconds is None:
        return None if capacity is None else float(capacity.cases)
    span = pc.min_max(seconds).as_py()
    days = float(span["max"] // SECONDS_A_DAY - span["min"] // SECONDS_A_DAY + 1)
    return capacity.cases * (days if capacity.per == "day" else max(1.0, days / DAYS_A_WEEK))
