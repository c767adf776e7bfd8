"""Labels as they arrive: checked, on the disk before anybody is told that they are kept, and then Parquet.

`LabelStore.answer` is what the gateway's `POST /v1/labels` calls, in a thread: it waits for the disk. `LabelStore.store` is the same for
callers that have no HTTP (the review page, `millrace labels import`). The labels go into a journal (`label_journal`) and from
there, some seconds later, into Parquet by `collect`, which the recorder calls and anybody may. `reading` sees them in both.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from mlserving.errors import ConfigError, Unavailable
from mlserving.predictions import files, label_journal
from mlserving.predictions.commit import Commits, locked
from mlserving.predictions.label_request import MOST_BYTES, parsed
from mlserving.predictions.records import label_folder

_MOST_AT_ONCE = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of a request's labels."""

    stored: int
    refused: tuple[tuple[int, str], ...]
    """Index and reason of each label that was not kept."""


class LabelStore:
    """Takes labels. One for each process; may be shared by threads. Close it, so that the last ones become Parquet soon."""

    def __init__(self, predictions: Path, *, source: str = "api", now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._source, self._now = source, now
        self._journal = label_journal.Journal(label_journal.folder_of(predictions))

    def store(self, document: Any) -> Stored:
        """Keep the labels of `{"model": …, "labels": […]}`. They are on the disk when this returns.

        Raises:
            ConfigError: the request as a whole is wrong.
            Unavailable: the disk did not take them; none is kept.
        """
        kept, refused = parsed(document, self._source, self._now())
        try:
            if kept:
                self._journal.append(kept)
        except OSError as error:
            raise Unavailable(f"The labels could not be kept: {error.strerror or error}. Send them again later.") from error
        return Stored(stored=len(kept), refused=tuple(refused))

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to `POST /v1/labels`. It waits for the disk, so call it in a thread.

        200: at least one label is kept, and `refused` lists the others. 400: none is. 413: too large. 503: the disk is full; try again.
        """
        if len(body) > MOST_BYTES:
            return 413, _json(error=f"the request has {len(body)} bytes and may have {MOST_BYTES}. Send fewer labels at a time.")
        try:
            stored = self.store(json.loads(body))
        except (ValueError, RecursionError) as error:
            return 400, _json(error=f"the body is no JSON: {error}")
        except ConfigError as error:
            return 400, _json(error=str(error))
        except Unavailable as error:
            return 503, _json(error=str(error))
        refused = [{"index": index, "error": reason} for index, reason in stored.refused]
        return (200 if stored.stored else 400), _json(stored=stored.stored, refused=refused)

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def collect(predictions: Path, *, wait: bool = False) -> Counter[tuple[str, str]]:
    """Make Parquet of the journals that are finished, each label once. Returns how many, by model and source.

    Where another process is at it, it does nothing, or with `wait` looks again until that one has let go.

    Raises:
        OSError: the disk is full; the journals stay.
    """
    folder = label_journal.folder_of(predictions)
    counted: Counter[tuple[str, str]] = Counter()
    if not folder.exists():
        return counted
    while True:
        with locked(folder) as ours:
            if ours:
                return _collected(Commits(folder, predictions), predictions, counted)
        if not wait:
            return counted
        time.sleep(0.05)


def _collected(commits: Commits, predictions: Path, counted: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    commits.recover()
    while taken := _some(label_journal.finished(commits.sources)):
        table = label_journal.read(taken)
        staged = [_stage(commits, predictions, part) for part in _parts(table)]
        commits.commit(staged, taken)
        counted.update(zip(table["model"].to_pylist(), table["source"].to_pylist(), strict=True))
    return counted


def _some(journals: list[Path]) -> list[Path]:
    """The oldest ones, as many as fit in memory."""
    found, size = [], 0
    for path in journals:
        if size < _MOST_AT_ONCE:
            found.append(path)
            size += path.stat().st_size
    return found


def _parts(table: pa.Table) -> list[pa.Table]:
    """By model and by the UTC day on which they were received."""
    days = pc.floor_temporal(table["received_at"], unit="day")
    keys = table.select(["model"]).append_column("day", days)
    return [
        table.filter(pc.and_(pc.equal(table["model"], key["model"]), pc.equal(days, pa.scalar(key["day"], days.type))))
        for key in keys.group_by(["model", "day"]).aggregate([]).to_pylist()
    ]


def _stage(commits: Commits, predictions: Path, table: pa.Table) -> tuple[Path, Path]:
    name = f"{commits.name}-{time.time_ns()}-{uuid.uuid4().hex[:6]}.parquet"
    staged = commits.staging / name
    files.write(files.sliced(table), table.schema, staged)
    return staged, label_folder(predictions, table["model"][0].as_py(), table["received_at"][0].as_py()) / name


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()
