"""One open run for each project in a workspace.

The lock is the kernel's (flock) on a file, held through an inherited descriptor by the command and by every process below
it: however they die, it is free the moment the last of them is gone, and never while one of them still writes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpipelines.errors import Conflict


@contextmanager
def only_run(lock: Path, run_id: str) -> Iterator[int]:
    """Hold `lock` for `run_id`; yields the descriptor to hand to child processes.

    Raises:
        Conflict: another run holds it; the text names that run.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode() or "another run"
            raise Conflict(
                f"the run {holder} is open on this workspace ({lock.parent}). Wait for it (`millrace runs` shows it), or name another folder with --workspace."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, run_id.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)  # the last holder's close frees it


def is_held(lock: Path) -> bool:
    """Whether a run is open."""
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
