"""The rows of a window: from the source alone, or from what earlier runs kept and the source's newer rows.

An incremental source is read from the watermark on, less `source.lateness_hours`. The watermark itself moves last of all, when
the run's rows have passed `ingest`'s checks and its outputs are written: see `kept_rows.py` for how that survives a kill.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlpipelines.ingestion.kept_rows import Kept, load_kept, merge, save_kept
from mlpipelines.ingestion.reading import Reading, bounds_of, inside, last_days, newest_time, read_source, utc
from mlpipelines.ingestion.sources import RowSource, Window
from mlpipelines.project import SOURCE_PLACE, Project
from mlpipelines.workspace import ProjectState

_HOUR = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What becomes the next run's state of an incremental source, once this run is through."""

    kept: Kept
    fresh: pa.Table
    replaced: int
    watermark: int
    since: int | None
    mark: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "watermark_before": utc(self.kept.watermark),
            "watermark": utc(self.watermark),
            "kept": 0 if self.kept.rows is None else self.kept.rows.num_rows,
            "new": self.fresh.num_rows - self.replaced,
            "replaced": self.replaced,
        }

    def save(self, state: ProjectState) -> None:
        """Keep the new rows and move the watermark."""
        save_kept(state.rows, self.kept, self.fresh, watermark=self.watermark, mark=self.mark, since=self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRows:
    """All rows of the window, and how they came."""

    rows: pa.Table
    reading: Reading
    pending: Pending | None = None


def read_window(source: RowSource, project: Project, state: ProjectState, asked: Window) -> WindowRows:
    """Read what the window `asked` for and `source.window_days` leave.

    Raises:
        DataRejected: as `read_source`.
    """
    days = project.source.window_days
    if project.source.incremental:
        return _read_on(source, project, state, asked)
    newest = newest_time(source, project, asked) if days else None
    reading = read_source(source, project, last_days(asked, days, newest))
    return WindowRows(rows=reading.rows, reading=reading)


def _read_on(source: RowSource, project: Project, state: ProjectState, asked: Window) -> WindowRows:
    mark = _mark(project)
    kept = load_kept(state.rows, mark=mark, since=asked.since)
    start = asked.since if kept.watermark is None else kept.watermark - _HOUR * project.source.lateness_hours
    reading = read_source(source, project, Window(since=start, until=asked.until))
    merged = merge(kept.rows, reading.rows)
    newest = bounds_of(merged.rows, project.time)[1]
    newest = None if newest is None else min(newest, int(time.time()))  # a row from the future must not end all reading
    rows = inside(merged.rows, project.time, last_days(asked, project.source.window_days, newest))
    watermark = max((second for second in (kept.watermark, newest) if second is not None), default=None)
    if watermark is None:
        return WindowRows(rows=rows, reading=reading)
    pending = Pending(kept=kept, fresh=merged.fresh, replaced=merged.replaced, watermark=watermark, since=asked.since, mark=mark)
    return WindowRows(rows=rows, reading=reading, pending=pending)


def _mark(project: Project) -> dict[str, Any]:
    """What kept rows depend on: other values, and they are read anew."""
    place = project.source.model_dump(mode="json", include={"kind", *SOURCE_PLACE})
    mark = {"source": place, "columns": project.column_types, "key": project.key, "rename": project.rename}
    found: dict[str, Any] = json.loads(json.dumps(mark, default=str))  # as it will be read back
    return found
