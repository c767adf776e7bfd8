"""The log and the labels as they grow old: the small files of a day that is over are merged, and days that are too old are deleted.

A merged file says which ones it replaces, and appears before those are deleted, so a reader sees each row once at any time and a
process that is killed in between leaves work, not harm (`files.in_day`). One process at a time keeps a folder up.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlserving.predictions import files
from mlserving.predictions.commit import locked
from mlserving.predictions.files import STAGING, ParquetFile

KINDS = ("log", "labels")
SETTLED = timedelta(hours=2)
"""A day is merged so long after it is over: by then a recorder that was behind has caught up."""
_LARGEST = 512 << 20
_BATCH_ROWS = 16_384
UPKEEP = "upkeep"


def keep_up(predictions: Path, now: datetime, keep_days: int | None = None) -> tuple[int, int]:
    """Merge days that are over and delete those older than `keep_days`. Returns how many files were merged, and days deleted.

    Where another process is at it, nothing is done.

    Raises:
        OSError: the disk is full. No row is lost.
    """
    with locked(predictions / STAGING / UPKEEP) as ours:
        if not ours:
            return 0, 0
        clear_staging(predictions)
        deleted = 0 if keep_days is None else _delete(predictions, now.astimezone(UTC).date() - timedelta(days=keep_days))
        return _merge_all(predictions, (now.astimezone(UTC) - SETTLED).date()), deleted


def _delete(predictions: Path, first_kept: date) -> int:
    deleted = 0
    for _, day, folder in list(_days(predictions)):
        if day < first_kept:
            hidden = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:6]}")
            folder.rename(hidden)
            shutil.rmtree(hidden)
            deleted += 1
    return deleted


def _merge_all(predictions: Path, today: date) -> int:
    merged = 0
    for kind, day, folder in list(_days(predictions)):
        if day < today:
            finish(folder)
            for group in _groups(files.in_day(folder)):
                merged += len(group)
                _merge(group, predictions / STAGING / UPKEEP, f"merged-{kind}-{_name_of(group)}.parquet")
    return merged


def _days(predictions: Path) -> Iterator[tuple[str, date, Path]]:
    for kind in KINDS:
        for model in files.models(predictions / kind):
            for day, folder in files.days(predictions / kind, model).items():
                yield kind, day, folder


def clear_staging(predictions: Path) -> None:
    """Delete what a killed predecessor was writing. Hold the lock."""
    for path in (predictions / STAGING / UPKEEP).glob("*.parquet"):
        path.unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Delete what a merged file replaces, and its merger did not come to."""
    found = {file.path.name for file in files.in_day(folder)}
    for path in folder.glob("[!.]*.parquet"):
        if path.name not in found:
            path.unlink(missing_ok=True)


def _groups(found: Sequence[ParquetFile]) -> list[list[ParquetFile]]:
    """Files of the same columns and version, several, of at most so many bytes together."""
    alike: defaultdict[tuple[int | None, str], list[list[ParquetFile]]] = defaultdict(lambda: [[]])
    for file in found:
        groups = alike[file.version, file.schema.to_string()]
        size = file.path.stat().st_size
        if groups[-1] and sum(each.path.stat().st_size for each in groups[-1]) + size > _LARGEST:
            groups.append([])
        groups[-1].append(file)
    return [group for groups in alike.values() for group in groups if len(group) > 1]


def _name_of(group: Sequence[ParquetFile]) -> str:
    """The same for the same files: two who merge them where nothing locks, as on a mounted bucket, write one file and not its double."""
    return hashlib.sha256("\n".join(sorted(file.path.name for file in group)).encode()).hexdigest()[:12]


def _merge(group: Sequence[ParquetFile], staging: Path, name: str) -> None:
    first = group[0]
    staged = staging / f"{uuid.uuid4().hex}.parquet"
    files.write(_batches(group), first.schema, staged, version=first.version, replaces=[file.path.name for file in group])
    files.appear(staged, first.path.with_name(name))
    for file in group:
        with contextlib.suppress(FileNotFoundError):
            file.path.unlink()


def _batches(group: Sequence[ParquetFile]) -> Iterator[pa.RecordBatch]:
    for file in group:
        with pq.ParquetFile(file.path) as opened:
            yield from opened.iter_batches(_BATCH_ROWS)
