"""Traces from files, for `gpuq plan` and `gpuq what-if`: what the queue itself has recorded, or what another system knows.

`.csv` has a first line with the columns' names, in any order; every other file has a line of `history` for each job. A trace
with a line that cannot be read is refused: what is planned by should be all that happened, unlike what an estimate is made of.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from gpuqueue.durations import seconds_of
from gpuqueue.errors import ConfigError
from gpuqueue.history import Past, past_of

NEEDED = ("queue", "lane", "gpus", "since", "at", "ended")
OPTIONAL = ("namespace", "name", "family", "limit")
_YEAR_10000 = 253402300800


def read_trace(file: Path, again: str) -> tuple[Past, ...]:
    """All jobs of a trace.

    Args:
        file: CSV if its name ends so, else lines of a history.
        again: the command to type once it is put right.

    Raises:
        ConfigError: the text names file, line and column.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            pasts = _from_csv(csv.DictReader(lines, strict=True)) if file.suffix == ".csv" else _from_lines(lines.read())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Name another file: {again}") from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise ConfigError(f"{file}, {error}. Put it right and run again: {again}") from error
    if not pasts:
        raise ConfigError(f"{file} holds no job. Name another file: {again}")
    return pasts


def _from_lines(text: str) -> tuple[Past, ...]:
    pasts = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                pasts.append(past_of(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return tuple(pasts)


def _from_csv(rows: csv.DictReader[str]) -> tuple[Past, ...]:
    columns = rows.fieldnames or []
    if missing := [name for name in NEEDED if name not in columns]:
        raise ValueError(f"line 1: no column {missing[0]!r}; it needs {', '.join(NEEDED)} and may have {', '.join(OPTIONAL)}")
    pasts = []
    for row in rows:
        try:
            pasts.append(_past(row))
        except ValueError as error:
            raise ValueError(f"line {rows.line_num}, {error}") from error
    return tuple(pasts)


def _past(row: Mapping[str, str | None]) -> Past:
    since, at, ended = (_moment(row, name) for name in ("since", "at", "ended"))
    if not since <= at <= ended:
        raise ValueError("columns since, at, ended: a job comes, is granted, and ends, in this order")
    return Past(
        queue=_text(row, "queue"),
        lane=_text(row, "lane"),
        namespace=row.get("namespace") or "",
        name=row.get("name") or "",
        family=row.get("family") or "",
        gpus=_gpus(row),
        since=since,
        at=at,
        ended=ended,
        limit=_limit(row),
    )


def _text(row: Mapping[str, str | None], name: str) -> str:
    value = (row.get(name) or "").strip()
    if not value:
        raise ValueError(f"column {name}: it is empty")
    return value


def _gpus(row: Mapping[str, str | None]) -> int:
    value = _text(row, "gpus")
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"column gpus: {value!r} is no whole number of GPUs")
    return int(value)


def _moment(row: Mapping[str, str | None], name: str) -> float:
    value = _text(row, name)
    try:
        found = float(value)
    except ValueError:
        found = _by_the_calendar(value, name)
    if not 0 <= found < _YEAR_10000:
        raise ValueError(f"column {name}: {value!r} is no moment; write seconds since 1970, not milliseconds")
    return found


def _by_the_calendar(value: str, name: str) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"column {name}: {value!r} is no moment; write seconds since 1970 or such as 2026-03-02T20:00:00Z") from error
    if moment.tzinfo is None:
        raise ValueError(f"column {name}: {value!r} has no time zone; write such as 2026-03-02T20:00:00Z")
    return moment.timestamp()


def _limit(row: Mapping[str, str | None]) -> float | None:
    value = (row.get("limit") or "").strip()
    if not value:
        return None
    try:
        return seconds_of(value if value[-1].isalpha() else f"{value}s")
    except ValueError as error:
        raise ValueError(f"column limit: {error}") from error
