"""Parquet files of the log and the labels: written so that they appear whole, listed so that no row is seen twice.

What is written is staged under a name that nobody reads, on the same file system, flushed to disk, and then renamed. A file that was
merged from others names them in its metadata (`replaces`); whoever lists both, because the others are not deleted yet,
takes the merged one only. The columns are `records`'.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

STAGING = ".staging"
"""Below the predictions' folder: what is being written."""
_REPLACES, _VERSION = b"millrace.replaces", b"millrace.version"
_ROW_GROUP = 64_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `start` up to, not including, `end`; aware times. None is open."""

    start: datetime | None = None
    end: datetime | None = None

    def has_day(self, day: date) -> bool:
        """Whether some of the UTC day lies in it."""
        after = self.start is not None and day < self.start.astimezone(UTC).date()
        return not after and (self.end is None or day <= self.end.astimezone(UTC).date())


ALWAYS = Window()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFile:
    """A file with the columns that it has. `version` is None where it holds rows of several, or does not say."""

    path: Path
    schema: pa.Schema
    version: int | None
    replaces: frozenset[str]


def models(folder: Path) -> list[str]:
    """The models that have files below `<predictions>/log` or `<predictions>/labels`."""
    return sorted(path.name.removeprefix("model=") for path in folder.glob("model=*") if path.is_dir())


def days(folder: Path, model: str) -> dict[date, Path]:
    """The folder of each UTC day, oldest first. Folders that are no day's are somebody else's."""
    found = {}
    for path in (folder / f"model={model}").glob("day=*"):
        try:
            found[date.fromisoformat(path.name.removeprefix("day="))] = path
        except ValueError:
            continue
    return dict(sorted(found.items()))


def listing(folder: Path, model: str, window: Window = ALWAYS) -> list[ParquetFile]:
    """The files of a model's days, below `<predictions>/log` or `<predictions>/labels`."""
    return [file for day, path in days(folder, model).items() if window.has_day(day) for file in in_day(path)]


def in_day(folder: Path) -> list[ParquetFile]:
    """The files of a day's folder, without those that another one replaces."""
    found = [file for path in sorted(folder.glob("[!.]*.parquet")) if (file := described(path)) is not None]
    replaced = {name for file in found for name in file.replaces}
    return [file for file in found if file.path.name not in replaced]


def described(path: Path) -> ParquetFile | None:
    """The file's columns and what its metadata say; None where it was deleted a moment ago."""
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError:
        return None
    said = schema.metadata or {}
    version = int(said[_VERSION]) if _VERSION in said else None
    return ParquetFile(
        path=path, schema=schema.remove_metadata(), version=version, replaces=frozenset(json.loads(said.get(_REPLACES, b"[]")))
    )


def write(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path, *, version: int | None = None, replaces: Iterable[str] = ()
) -> int:
    """Write a file that is on the disk when this returns, under a name that nobody reads yet. Returns its rows.

    Raises:
        OSError: the disk is full or cannot be written; the file is deleted.
    """
    said = {_REPLACES: json.dumps(sorted(replaces)).encode()} | ({} if version is None else {_VERSION: str(version).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    try:
        with pq.ParquetWriter(path, schema.with_metadata(said), compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema).replace_schema_metadata(said), row_group_size=_ROW_GROUP)
                rows += batch.num_rows
        flush(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return rows


def appear(staged: Path, target: Path) -> None:
    """Give a staged file its name, for good: a power cut does not take it back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(target)
    for folder in (target.parent, *target.parents[1:4]):  # the day's, the model's, log or labels, the predictions'
        flush(folder)


def flush(path: Path) -> None:
    """Have a file, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sliced(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """A table as batches of a row group's size."""
    yield from table.to_batches(max_chunksize=_ROW_GROUP)
