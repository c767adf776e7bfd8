"""What an incremental source has read so far.

Every run adds at most one Parquet part, then names it in `watermark.json`, which is replaced in one rename: whoever is killed
in between leaves the old state and a part that nobody names. Parts are never changed; of a row that was read again with
other content, the later part counts.

Times have whole seconds, so the watermark's own second is read again: a row of that second that came late is then not missed,
and one that was there is known by its key.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.artifacts import KEY
from mlpipelines.ingestion.parquet_files import read_rows, write_rows
from mlpipelines.ingestion.row_keys import content_hashes, hexadecimal
from mlpipelines.workspace import read_json, write_json

_STATE = "watermark.json"
_ABANDONED_AFTER = 86_400  # seconds; a younger part may belong to a run that is still writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Rows of earlier runs, and up to where the source was read."""

    rows: pa.Table | None = None
    watermark: int | None = None
    """Seconds since 1970."""
    since: int | None = None
    """Where the first reading began; None: at the beginning."""
    parts: tuple[str, ...] = ()
    started_over: str | None = None
    """Why earlier rows do not count, where they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Kept and new rows together."""

    rows: pa.Table
    fresh: pa.Table
    """The rows that were not kept before, or with other content."""
    replaced: int


def load_kept(folder: Path, *, mark: Mapping[str, Any], since: int | None) -> Kept:
    """Read what earlier runs kept.

    Args:
        folder: `ProjectState.rows`.
        mark: what the rows depend on (source, columns); rows kept under another mark do not count.
        since: where this run's window begins; rows kept from later on only do not count either.
    """
    file = folder / _STATE
    if not file.is_file():
        return Kept()
    state = read_json(file)
    if state["mark"] != mark:
        changed = sorted(name for name in mark if state["mark"].get(name) != mark[name])
        return Kept(
            started_over=f"{' and '.join(changed) or 'the source'} changed since the last run, so the source was read from its beginning again"
        )
    if state["since"] is not None and (since is None or since < state["since"]):
        return Kept(started_over="the window begins earlier than what was kept, so the source was read from there again")
    parts = tuple(state["parts"])
    tables = [read_rows(folder / part) for part in parts]
    rows = _latest(pa.concat_tables(tables)) if tables else None
    return Kept(rows=rows, watermark=state["watermark"], since=state["since"], parts=parts)


def merge(kept: pa.Table | None, new: pa.Table) -> Merged:
    """Add `new` to `kept`; of a key that both have, the new row counts. Pure."""
    if kept is None:
        return Merged(rows=new, fresh=new, replaced=0)
    again = pc.is_in(kept[KEY], value_set=new[KEY].combine_chunks())
    before = kept.filter(again)
    unchanged = pc.is_in(_with_content(new), value_set=_with_content(before))
    fresh = new.filter(pc.invert(unchanged))
    replaced = pc.sum(pc.is_in(fresh[KEY], value_set=before[KEY].combine_chunks())).as_py() or 0
    return Merged(rows=pa.concat_tables([kept.filter(pc.invert(again)), new]), fresh=fresh, replaced=replaced)


def save_kept(folder: Path, kept: Kept, fresh: pa.Table, *, watermark: int, mark: Mapping[str, Any], since: int | None) -> None:
    """Write `fresh` as a new part and move the watermark, in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(kept.parts)
    if fresh.num_rows:
        part = f"part-{len(parts) + 1:06d}-{uuid.uuid4().hex[:8]}.parquet"
        write_rows(folder / f".{part}", fresh)
        (folder / f".{part}").rename(folder / part)
        parts.append(part)
    started = since if kept.watermark is None else kept.since
    write_json(folder / _STATE, {"watermark": watermark, "since": started, "parts": parts, "mark": dict(mark)})
    _remove_abandoned(folder, set(parts))


def _remove_abandoned(folder: Path, named: set[str]) -> None:
    limit = time.time() - _ABANDONED_AFTER
    for file in folder.glob("*part-*.parquet"):
        if file.name not in named and file.stat().st_mtime < limit:
            file.unlink(missing_ok=True)


def _with_content(rows: pa.Table) -> pa.Array:
    content = hexadecimal(content_hashes(rows.drop_columns([KEY])))
    return pc.binary_join_element_wise(rows[KEY].combine_chunks(), content, "/")


def _latest(rows: pa.Table) -> pa.Table:
    """The last row of each key."""
    if pc.count_distinct(rows[KEY]).as_py() == rows.num_rows:
        return rows
    numbered = pa.table({KEY: rows[KEY], "at": pa.array(np.arange(rows.num_rows))})
    last = numbered.group_by(KEY).aggregate([("at", "max")])["at_max"]
    return rows.take(pa.array(np.sort(np.asarray(last))))
