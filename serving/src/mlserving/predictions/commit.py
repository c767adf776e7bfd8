"""From sources that are deleted to files that appear, exactly once, whatever is killed in between.

The files are staged and flushed first. Then one note, which appears by a rename, says which staged file gets which name and what is
deleted thereafter. A process that is killed before the note has changed nothing; one that is killed after it is finished by its
successor, which reads the note. There is one committing process for a folder of sources at a time, by a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlserving.predictions.files import STAGING, appear, flush

_NOTE, _LOCK, _NAME = ".commit.json", ".lock", ".name"


class Commits:
    """Moves what lies in `sources` (a spool, a folder of journals) to files below `predictions`. Hold `locked` while using it."""

    def __init__(self, sources: Path, predictions: Path) -> None:
        self.sources = sources
        self.name = _lasting_name(sources)
        self.staging = predictions / STAGING / self.name
        self._note = sources / _NOTE

    def recover(self) -> None:
        """Finish what a killed predecessor had decided, and forget what it had not.

        Raises:
            OSError: the disk does not allow it now; try again before anything else.
        """
        if self._note.exists():
            self._finish()
        shutil.rmtree(self.staging, ignore_errors=True)

    def commit(self, files: Sequence[tuple[Path, Path]], taken: Sequence[Path]) -> None:
        """Give each staged file its name and delete the sources: all of it, or, raising OSError, nothing yet.

        Where OSError is raised after the note was written, the rest is done by the next `recover`: so call that first.
        """
        note = {"files": [[str(staged), str(target)] for staged, target in files], "taken": [path.name for path in taken]}
        fresh = self._note.with_name(f"{_NOTE}.new")
        with fresh.open("w") as file:
            json.dump(note, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._note)
        flush(self.sources)
        self._finish()

    def _finish(self) -> None:
        note = json.loads(self._note.read_text())
        for staged, target in note["files"]:
            with contextlib.suppress(FileNotFoundError):  # the predecessor came this far
                appear(Path(staged), Path(target))
        for name in note["taken"]:
            (self.sources / name).unlink(missing_ok=True)
        self._note.unlink()
        flush(self.sources)


@contextlib.contextmanager
def locked(sources: Path) -> Iterator[bool]:
    """Whether this process may commit what lies here; False where another one does. Let go of at the end, or by dying."""
    sources.mkdir(parents=True, exist_ok=True)
    with (sources / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lasting_name(sources: Path) -> str:
    """A name for whatever writes from this folder, the same after a restart and another one on every machine."""
    path = sources / _NAME
    try:
        return path.read_text()
    except FileNotFoundError:
        sources.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{_NAME}.{uuid.uuid4().hex}")
        fresh.write_text(uuid.uuid4().hex[:12])
        fresh.rename(path)
        return path.read_text()
