"""How many rows of a set people can look at: `evaluation.capacity` over the time that the set spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlpipelines.project import Capacity, Project

SECONDS_A_DAY = 86_400
DAYS_A_WEEK = 7


def places_for(capacity: Capacity | None, seconds: pa.ChunkedArray | None) -> float | None:
    """How many rows of a set people look at: `cases` for every day or week that it spans, first and last day included."""
    if capacity is None or capacity.per == "set" or seconds is None:
        return None if capacity is None else float(capacity.cases)
    span = pc.min_max(seconds).as_py()
    days = float(span["max"] // SECONDS_A_DAY - span["min"] // SECONDS_A_DAY + 1)
    return capacity.cases * (days if capacity.per == "day" else max(1.0, days / DAYS_A_WEEK))


def share_of_rows(project: Project, files: Sequence[Path], rows: Mapping[str, int]) -> float | None:
    """The share of rows that people can look at, between 0 and 1; None without a capacity or without rows.

    Args:
        project: its capacity, time and split.
        files: the training rows.
        rows: how many rows each split has. `cases` of a `set` are so many of the test set; where rows are not split by time, the
            cases of a day are for the day's rows of all splits.
    """
    capacity = project.evaluation.capacity
    if capacity is None:
        return None
    if capacity.per == "set" or project.time is None:
        places: float | None = capacity.cases
        among = rows.get("test", 0)
    else:
        seconds = [chunk for file in files for chunk in pq.read_table(file, columns=[project.time])[project.time].chunks]
        places = places_for(capacity, pa.chunked_array(seconds, pa.int64())) if seconds else 0.0
        among = rows.get("train", 0) if project.split.by == "time" else sum(rows.values())
    return min(1.0, places / among) if among and places else None
