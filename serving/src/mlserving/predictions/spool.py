"""Between the gateway and the recorder: exchanges on local disk, in segments that one process writes and another takes.

`SpoolWriter.append` is on the gateway's way from a question to its answer, so it only puts the exchange into a queue in memory. A
thread packs what is queued (`segment`) and writes it. A slow or full disk therefore costs log lines, which are counted, and never a
request: what could not be written stays queued up to a bound and is written once there is space again.

A segment whose writer holds its lock is open; one that nobody holds is finished, whether its writer went on to the next or was
killed. So the recorder needs no word from the gateway, and takes what gateways before this one have left. It deletes a segment once
what it read from it is durable elsewhere (`mlserving.predictions.commit`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlserving.predictions.exchange import Exchange
from mlserving.predictions.segment import MAGIC, OVERHEAD, Torn, pack, records

SUFFIX = ".seg"
FULL, ERROR = "full", "error"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MOST_QUEUED = 16 << 20
_WAKE_BYTES = 256 << 10
_SEGMENT_BYTES = 8 << 20
_RESERVE_BYTES = 256 << 10
_PAUSE = 0.1


class SpoolWriter:
    """The gateway's end. One for each process; any thread may append.

    `dropped` counts what was not kept: `full` (the recorder is behind by `most_bytes`), `error` (the disk refuses or does not keep pace).
    """

    def __init__(self, folder: Path, most_bytes: int, *, segment_bytes: int = _SEGMENT_BYTES, segment_seconds: float = 2.0) -> None:
        self.dropped: Counter[str] = Counter()
        self._most = most_bytes
        self._queue: deque[Exchange] = deque()
        self._queued = 0
        self._counting = threading.Lock()  # held for an addition, never while the disk works
        self._on_disk = 0
        self._measured = 0.0
        self._segments = _Segments(folder, min(segment_bytes, max(most_bytes // 8, 1)), segment_seconds)
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def append(self, exchange: Exchange) -> bool:
        """Keep the exchange. False where it is dropped, and counted. It never raises and never waits for the disk."""
        size = _size(exchange)
        with self._counting:
            queued = self._queued + size
            if self._on_disk + queued > self._most:
                self.dropped[FULL] += 1
                return False
            if queued > _MOST_QUEUED and self._queue:
                self.dropped[ERROR] += 1
                return False
            self._queued = queued
            self._queue.append(exchange)
        if queued > _WAKE_BYTES and not self._wake.is_set():
            self._wake.set()
        return True

    def flush(self) -> None:
        """Have what is queued written now, by the thread."""
        self._wake.set()

    def drain(self, seconds: float) -> bool:
        """Wait until all that was appended is with the operating system. False where the disk did not take it in `seconds`."""
        until = time.monotonic() + seconds
        while self._queue or self._segments.pending:
            if time.monotonic() > until:
                return False
            self._wake.set()
            time.sleep(0.005)
        return True

    def close(self, seconds: float = 5.0) -> None:
        """Write what is queued, finish the segment and stop. What the disk did not take in `seconds` is counted as `error`."""
        self.drain(seconds)
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        if left := len(self._queue) + len(self._segments.pending):
            self.dropped[ERROR] += left
        self._segments.finish()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(_PAUSE)
            self._wake.clear()
            try:
                self._write()
            except OSError:  # a full or broken disk: what is pending stays, and is tried again
                time.sleep(_PAUSE)

    def _write(self) -> None:
        self._segments.age()
        self._measure()
        while self._queue or self._segments.pending:
            if not self._segments.pending:
                self._pack()
            if self._segments.pending:
                self._segments.write()
            self._measure()

    def _measure(self) -> None:
        """Look how much of the spool the recorder has left, every now and then."""
        now = time.monotonic()
        if now - self._measured > _PAUSE:
            self._on_disk, self._measured = size_of(self._segments.folder) + sum(map(len, self._segments.pending)), now

    def _pack(self) -> None:
        """Move what is queued, up to a write's worth, over to the records that wait for the disk."""
        size = 0
        while self._queue and size < _WAKE_BYTES:
            exchange = self._queue[0]
            try:
                record = pack(exchange)
            except (ValueError, TypeError, AttributeError):  # no text or number that a record can hold
                record = b""
            self._segments.pending.extend([record] if record else ())
            size += len(record)
            with self._counting:
                if not record:
                    self.dropped[ERROR] += 1
                self._queue.popleft()
                self._queued -= _size(exchange)
                self._on_disk += len(record)


class _Segments:
    """The files: the open one, its records that are not written yet, and when the next one begins."""

    def __init__(self, folder: Path, most_bytes: int, most_seconds: float) -> None:
        self.folder = folder
        self.pending: deque[bytes] = deque()
        self._begun = 0  # bytes of pending[0] that the open segment has
        self._most_bytes, self._most_seconds = most_bytes, most_seconds
        self._generation = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}"
        self._sequence = 0
        self._file: int | None = None
        self._size = 0
        self._since = 0.0

    def write(self) -> None:
        """Write what is pending with one call, and note how far it came.

        Raises:
            OSError: nothing could be written. The record that was begun is written again, whole.
        """
        content = memoryview(b"".join(self.pending))[self._begun :]
        try:
            if is_short_of_space(self.folder, len(content)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            written = os.write(self._open() if self._file is None else self._file, content)
        except OSError as error:
            if self._file is not None:
                self._let_go(self._file, cut=error.errno in _NO_SPACE)
            raise
        self._size += written
        self._begun += written
        while self.pending and self._begun >= len(self.pending[0]):
            self._begun -= len(self.pending.popleft())
        self.age()

    def _let_go(self, file: int, *, cut: bool) -> None:
        """Let the recorder have what the open segment holds: what it takes makes room. A record that found none is `cut` off it."""
        if cut and self._begun:
            with contextlib.suppress(OSError):
                os.ftruncate(file, self._size - self._begun)
                self._size -= self._begun
        self._begun = 0
        if self._size > len(MAGIC) or not cut:
            self.finish()

    def age(self) -> None:
        """Finish the segment if it is full or old, and its last record whole."""
        old = time.monotonic() - self._since > self._most_seconds
        if self._file is not None and not self._begun and self._size > len(MAGIC) and (old or self._size >= self._most_bytes):
            self.finish()

    def finish(self) -> None:
        """Let go of the open segment: from now on it is the recorder's."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file = None

    def _open(self) -> int:
        """Begin a segment. It gets its name once it is locked, so nobody takes it for a dead writer's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self._generation}-{self._sequence:08d}{SUFFIX}"
        hidden = path.with_name(f".{path.name}")
        file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(file, MAGIC) != len(MAGIC):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(hidden))
            hidden.rename(path)
        except OSError:
            os.close(file)
            hidden.unlink(missing_ok=True)
            raise
        self._file, self._size, self._since = file, len(MAGIC), time.monotonic()
        self._begun = 0
        self._sequence += 1
        return file


class SpoolReader:
    """The recorder's end. `torn` counts segments that ended within a record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.torn = 0

    def finished(self) -> list[Path]:
        """The segments that no writer holds any more, oldest first."""
        return [path for path in segments(self.folder) if is_finished(path)]

    def read(self, path: Path) -> Iterator[Exchange]:
        """What a segment holds, in the order of appending. An open one is read as far as it is whole."""
        try:
            for _, exchange in records(path.read_bytes()):
                yield exchange
        except Torn:
            self.torn += 1

    def delete(self, paths: Iterable[Path]) -> None:
        """Free the space: what these segments held is durable elsewhere."""
        for path in paths:
            path.unlink(missing_ok=True)


def segments(folder: Path) -> list[Path]:
    """All segments, open ones too, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def size_of(folder: Path) -> int:
    """Bytes that the spool takes."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # the reader has just deleted it
                total += entry.stat().st_size if entry.name.endswith(SUFFIX) else 0
    return total


def is_short_of_space(folder: Path, wanted: int = 0) -> bool:
    """Whether `wanted` bytes more would leave the spool's disk without room for what the recorder notes before it deletes anything."""
    try:
        disk = os.statvfs(folder)
    except OSError:  # there is no such folder yet
        return False
    return disk.f_bavail * disk.f_frsize < _RESERVE_BYTES + wanted


def _size(exchange: Exchange) -> int:
    """Bytes of its record; more by a few where a name is not ASCII."""
    names = len(exchange.prediction_id) + len(exchange.model) + len(exchange.track) + len(exchange.method)
    return len(exchange.request) + len(exchange.response) + names + OVERHEAD


def is_finished(path: Path) -> bool:
    """Whether nobody holds the lock of a segment that is there."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True
