"""What every source answers to, and what they share: the window, and the error for a column that is not there."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol

import pyarrow as pa

from mlpipelines.errors import DataRejected

_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Rows with `since` ≤ time < `until`, in whole seconds since 1970, the resolution of canonical times. None: open."""

    since: int | None = None
    until: int | None = None

    @classmethod
    def between(cls, since: datetime | None, until: datetime | None) -> Window:
        """The window of two moments; naive ones are UTC. A fraction of a second is rounded up, which loses no row twice."""
        return cls(since=_seconds(since), until=_seconds(until))

    @property
    def is_open(self) -> bool:
        """Whether every row is inside."""
        return self.since is None and self.until is None

    def bounds(self, like: Any) -> tuple[Any, Any]:
        """Both ends as values of the kind of `like`, an example of the column.

        Text cannot be compared exactly, since its format and offset may vary: its bounds are days, one more on each side, and
        the caller filters again once the text is parsed. None stands for an open end.
        """
        return self._bound(self.since, like, slack=-_DAY), self._bound(self.until, like, slack=2 * _DAY)

    def _bound(self, second: int | None, like: Any, *, slack: int) -> Any:
        if second is None:
            return None
        if isinstance(like, datetime):
            moment = datetime.fromtimestamp(second, UTC)
            return moment if like.tzinfo is not None else moment.replace(tzinfo=None)
        if isinstance(like, date):  # a date is its midnight, so a bound inside a day begins with the next
            return datetime.fromtimestamp(-(-second // _DAY) * _DAY, UTC).date()
        if isinstance(like, (str, bytes)):
            return datetime.fromtimestamp(second + slack, UTC).strftime("%Y-%m-%d")
        return second

    def as_datetimes(self) -> tuple[datetime | None, datetime | None]:
        """Both ends as aware datetimes."""
        since = None if self.since is None else datetime.fromtimestamp(self.since, UTC)
        return since, None if self.until is None else datetime.fromtimestamp(self.until, UTC)


def _seconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return math.ceil((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows of one origin."""

    origin: str
    """The file, table or function, as an error names it."""
    first_row: int
    """How many rows of the origin were read before these."""
    rows: pa.RecordBatch
    """Under the source's own column names."""


class RowSource(Protocol):
    """One source of rows."""

    def describe(self) -> dict[str, Any]:
        """Kind and place for the manifest, without secrets."""

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:
        """Rows of the window, as they come.

        Args:
            columns: our name → the source's name; no other column is read.
            time: our name of the column that `window` is about.
            window: rows outside it may still come where the source cannot filter; the caller filters again.

        Raises:
            DataRejected: a column is missing, or a file is damaged.
            ConfigError: the source as configured does not exist or refuses.
            Unavailable: it did not answer.
        """

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """As `chunks` for the time column alone; as few rows as the source can manage, the newest of the window among them."""


def numbered(origin: str, batches: Iterable[pa.RecordBatch]) -> Iterator[Chunk]:
    """`batches` of one origin as chunks; empty ones are left out."""
    first_row = 0
    for rows in batches:
        if rows.num_rows:
            yield Chunk(origin=origin, first_row=first_row, rows=rows)
            first_row += rows.num_rows


def require_columns(columns: Mapping[str, str], existing: Iterable[str], origin: str) -> None:
    """Refuse a source that lacks one of `columns` (ours → theirs).

    Raises:
        DataRejected: naming each missing column and the existing names that look most like it.
    """
    there = list(existing)
    missing = {ours: theirs for ours, theirs in columns.items() if theirs not in there}
    if not missing:
        return
    rows = [{"column": ours, "rule": "exists", "example": theirs, "closest": closest(theirs, there)} for ours, theirs in missing.items()]
    named = "; ".join(
        f"{row['column']!r}" + (f" (looked for as {row['example']!r})" if row["example"] != row["column"] else "")
        + (f", closest: {', '.join(map(repr, row['closest']))}" if row["closest"] else "")
        for row in rows
    )  # fmt: skip
    raise DataRejected(
        f"{origin} lacks {'a column' if len(rows) == 1 else f'{len(rows)} columns'} that project.yaml names: {named}. "
        f"It has: {', '.join(map(repr, there[:30]))}{' …' if len(there) > 30 else ''}. "  # noqa: PLR2004 - a line, not a page
        "If a column was renamed, write it under `rename:` in project.yaml (ours: theirs).",
        report=[{**row, "origin": origin} for row in rows],
    )


def closest(name: str, there: list[str]) -> list[str]:
    """The names that look most like `name`, the closest first."""
    by_lower = {existing.lower(): existing for existing in reversed(there)}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
