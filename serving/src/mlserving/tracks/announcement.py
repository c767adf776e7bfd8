"""What the supervisor tells whoever waits for it: `serving/in_force.json`, written whole, and a lock that is held as long as it lives.

    {"pid": …, "grpc": "host:port", "rest": "host:port", "admin": "host:port",
     "models": {"transactions": {"revision": 7, "seen": 7, "trouble": ""}}}

`revision` is of the document that is in force, `seen` of the one that was read last; between the two a version is being loaded, or `trouble` says why it is not.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlserving.errors import Conflict, NobodyServes
from mlserving.workspace import write_whole

_FILE, _LOCK = "in_force.json", ".tracks.lock"


@contextmanager
def only_supervisor(folder: Path) -> Iterator[None]:
    """Be the only one on this workspace.

    Raises:
        Conflict: another one runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"`millrace serve --tracks` runs on {folder.parent} already. Stop it, or name another --workspace.") from error
        (folder / _FILE).unlink(missing_ok=True)
        yield


def write(folder: Path, told: dict[str, Any]) -> None:
    """Tell what is in force."""
    write_whole(folder / _FILE, json.dumps(told, indent=2, sort_keys=True) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """What a supervisor that lives has told.

    Raises:
        NobodyServes: none runs, or it has not told anything yet.
    """
    if not is_running(folder):
        raise NobodyServes(f"Nothing serves tracks from {folder.parent} now. Start it in another terminal: millrace serve --tracks MODEL")
    try:
        told: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NobodyServes("`millrace serve --tracks` is loading the models. Type the same command again in a moment.") from error
    return told


def is_running(folder: Path) -> bool:
    """Whether a supervisor holds the lock."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
