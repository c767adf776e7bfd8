"""Labels that were acknowledged and are not Parquet yet: one JSON object a line, flushed to disk before anybody is told.

Each process that takes labels appends to a journal of its own, holding its lock, and goes on to a new one when that is old or large.
A journal that nobody holds is finished, whoever wrote it, and becomes Parquet (`mlserving.predictions.labels`). A torn last line was
never acknowledged. Times are microseconds since 1970.

Journals need a file system that flushes, appends and locks, across all who write there. Where the log lies on one that does not, as a mounted bucket,
MILLRACE_LABEL_JOURNAL names another folder, of those who write to this log alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlserving.predictions.files import flush
from mlserving.predictions.records import LABEL_FIELDS
from mlserving.predictions.spool import is_finished

JOURNAL = ".journal"
"""Below `<predictions>/labels`: labels that are not Parquet yet."""
VARIABLE = "MILLRACE_LABEL_JOURNAL"
SUFFIX = ".labels"
_MOST_BYTES = 8 << 20


class Journal:
    """The end that takes labels. May be shared by threads."""

    def __init__(self, folder: Path, *, most_seconds: float = 5.0) -> None:
        self.folder = folder
        self._most_seconds = most_seconds
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size = 0
        self._timer: threading.Timer | None = None

    def append(self, labels: Sequence[dict[str, Any]]) -> None:
        """Write labels, as `LABEL_FIELDS` with times as microseconds. They are on the disk when this returns.

        Raises:
            OSError: they are not. The journal was cut back to what it held, so none of them counts.
        """
        data = "".join(json.dumps(label, ensure_ascii=False) + "\n" for label in labels).encode()
        with self._lock:
            file = self._open() if self._file is None else self._file
            try:
                _write_all(file, data)
                os.fsync(file)
            except OSError:
                self._give_up(file)
                raise
            self._size += len(data)
            if self._size >= _MOST_BYTES:
                self._finish()

    def close(self) -> None:
        """Finish the journal; the next label begins another."""
        with self._lock:
            self._finish()

    def _open(self) -> int:
        """Begin a journal. It gets its name once it is locked, so nobody takes it for a dead process's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        hidden = path.with_name(f".{path.name}")
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            hidden.rename(path)
            flush(self.folder)
        except OSError:
            os.close(file)
            raise
        self._file, self._size = file, 0
        self._timer = threading.Timer(self._most_seconds, self.close)  # so that its labels become Parquet, though no more come
        self._timer.daemon = True
        self._timer.start()
        return file

    def _give_up(self, file: int) -> None:
        try:
            os.ftruncate(file, self._size)
        finally:
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None and self._file is not None:
            self._timer.cancel()
            os.close(self._file)
        self._file = None


def folder_of(predictions: Path) -> Path:
    """Where the journals of a log lie: MILLRACE_LABEL_JOURNAL, else below its labels."""
    return Path(os.environ.get(VARIABLE) or predictions / "labels" / JOURNAL)


def finished(folder: Path) -> list[Path]:
    """The journals that no process holds any more, oldest first."""
    return [path for path in journals(folder) if is_finished(path)]


def journals(folder: Path) -> list[Path]:
    """All journals, those that grow too, oldest first."""
    return sorted(folder.glob(f"[!.]*{SUFFIX}"))


def read(paths: Iterable[Path]) -> pa.Table:
    """The labels in journals, as `LABEL_FIELDS`. A journal that became Parquet a moment ago is empty; what is torn is left out."""
    return table_of([label for path in paths for line in _lines(path) if (label := _label(line)) is not None])


def table_of(labels: Sequence[dict[str, Any]]) -> pa.Table:
    """Labels, times as microseconds, as Arrow."""
    return pa.table(
        {field.name: pa.array([label[field.name] for label in labels], field.type) for field in LABEL_FIELDS}, schema=LABEL_FIELDS
    )


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _label(line: bytes) -> dict[str, Any] | None:
    try:
        label = json.loads(line)
    except ValueError:
        return None
    return label if isinstance(label, dict) and label.keys() == set(LABEL_FIELDS.names) else None


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
