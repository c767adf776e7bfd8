"""Who is looked at: scored rows ranked by one output and cut at what reviewers can bear. Pure: tables in, a table out.

The rule is the one that `evaluate` judges models by (`evaluation.capacity`: so many cases a day). The highest score comes first; rows that
tie are ordered by their prediction ids, a lot that falls the same way whenever it is drawn. With a `once_per` column nobody is delivered
twice: not in one run, not in a later one. `delivery.py` reads the rows and writes the cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlpipelines.errors import ConfigError
from mlpipelines.project import Project

Per = Literal["day", "week", "run"]
CANDIDATES = pa.schema(
    [
        pa.field("period", pa.int64()),
        pa.field("score", pa.float64()),
        pa.field("id", pa.string()),
        pa.field("file", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("once", pa.string()),
    ]
)
"""What ranking needs of a scored row: its period's number, its score, its prediction id, where it lies, and whom it is about."""
_ORDER = [("period", "ascending"), ("score", "descending"), ("id", "ascending"), ("file", "ascending"), ("row", "ascending")]
_EPOCH = date(1970, 1, 1)
_MONDAY = 3  # 1 January 1970 was a Thursday
_AT_ONCE = 4096
_WEEK = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How many of whom."""

    output: str
    """The model's output that decides."""
    cases: int
    per: Per
    once_per: str | None = None
    """A column whose values are delivered once and never again."""


def rule_of(project: Project, *, rank_by: str, top: int | None, per: Per | None, once_per: str | None) -> Rule:
    """The rule that was asked for; what was not said is project.yaml's `evaluation.capacity`.

    Raises:
        ConfigError: nobody says how many, or a day is asked for without `time`.
    """
    capacity = project.evaluation.capacity
    cases = top if top is not None else capacity.cases if capacity else None
    if cases is None:
        raise ConfigError(
            "--rank-by needs a number of cases: --top N, or evaluation.capacity in project.yaml, for example {cases: 50, per: day}."
        )
    if cases < 1:
        raise ConfigError(f"--top {cases}: reviewers look at one case or more.")
    stated: Per = "run" if capacity is None or capacity.per == "set" else capacity.per
    chosen = per or stated
    if chosen != "run" and project.time is None:
        raise ConfigError(f"--per {chosen} needs `time` in project.yaml. Name the column there, or type --per run.")
    return Rule(output=rank_by, cases=cases, per=chosen, once_per=once_per)


def period_numbers(per: Per, seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of each time's period, in order of time: days since 1970 (UTC), weeks from Monday on, 0 for a run."""
    if per == "run":
        return np.zeros(len(seconds), dtype=np.int64)
    days = seconds // 86_400
    return days if per == "day" else (days + _MONDAY) // _WEEK


def period_name(per: Per, number: int) -> str:
    """A period for people: `2025-03-01`, `2025-W09`, `run`."""
    if per == "run":
        return "run"
    if per == "day":
        return (_EPOCH + timedelta(days=number)).isoformat()
    year, week, _ = (_EPOCH + timedelta(days=number * _WEEK - _MONDAY)).isocalendar()
    return f"{year}-W{week:02d}"


def compact(candidates: pa.Table, rule: Rule) -> pa.Table:
    """Leave out what can never be selected: below the capacity of its period or, where people are delivered once, below their own best row."""
    ordered = candidates.sort_by(_ORDER)
    frame = ordered.select(["period", "once"]).to_pandas()
    keep = frame.groupby("period").cumcount() < rule.cases if rule.once_per is None else ~frame.duplicated() | frame["once"].isna()
    return ordered.filter(pa.array(keep.to_numpy(dtype=bool)))


def select(candidates: pa.Table, rule: Rule, delivered: Collection[str], used: Counter[int]) -> pa.Table:
    """The candidates that are delivered, with their `rank` in their period.

    Args:
        candidates: `CANDIDATES`, in any order.
        rule: how many of whom.
        delivered: whom earlier runs delivered; they are passed over.
        used: how many cases earlier runs delivered of each period. What is left is filled, and ranks go on from there.
    """
    ordered = candidates.sort_by(_ORDER)
    seen, counts = set(delivered), Counter(used)
    places, ranks = [], []
    for place, period, once in _walk(ordered, rule, counts):
        if once is not None and once in seen:
            continue
        if once is not None:
            seen.add(once)
        counts[period] += 1
        places.append(place)
        ranks.append(counts[period])
    return ordered.take(pa.array(places, pa.int64())).append_column("rank", pa.array(ranks, pa.int32()))


def _walk(ordered: pa.Table, rule: Rule, counts: Counter[int]) -> Iterator[tuple[int, int, str | None]]:
    """Place, period and person of each row, as long as its period has room: a period that is full is left at once."""
    periods = np.asarray(ordered["period"])
    starts = np.flatnonzero(np.concatenate([[True], periods[1:] != periods[:-1]])) if len(periods) else np.zeros(0, np.int64)
    for start, end in pairwise([*starts.tolist(), len(periods)]):
        period = int(periods[start])
        for at in range(start, end, _AT_ONCE):
            for place, once in enumerate(ordered["once"].slice(at, min(_AT_ONCE, end - at)).to_pylist(), start=at):
                if counts[period] >= rule.cases:
                    break
                yield place, period, once
            if counts[period] >= rule.cases:
                break
