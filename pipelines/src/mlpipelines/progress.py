"""How a step tells the outside how far it is.

A step runs in its own process, under kfp.local or in a pod; whoever started the run reads `events.jsonl` in the run's
folder. `recorded` wraps a step: it writes when it started, how long it took, how much memory it used at most and, when it
failed for a foreseen reason, that reason with its table. `mlpipelines.localrun` draws these lines; `millrace runs` reads
them later. Without MILLRACE_RUN_DIR (in a pod) the same lines go to the log.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlpipelines.errors import MillraceError, Rejected, Unavailable

RUN_DIR = "MILLRACE_RUN_DIR"
RUN_ID = "MILLRACE_RUN_ID"
EVENTS = "events.jsonl"

log = logging.getLogger(__name__)
_current_step = "?"


def emit(event: str, **facts: Any) -> None:
    """Append one line to the run's events."""
    line = json.dumps({"event": event, "step": _current_step, "time": time.time(), **facts}, default=str)
    folder = os.environ.get(RUN_DIR)
    if not folder:
        log.info("%s", line)
        return
    with (Path(folder) / EVENTS).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def progress(text: str, fraction: float | None = None) -> None:
    """Say what is being done and, where it is known, which share of it is done (0 to 1)."""
    emit("progress", text=text, fraction=fraction)


def note(**facts: Any) -> None:
    """Record facts about the step for the run's summary (rows, versions, verdicts)."""
    emit("note", facts=facts)


@contextlib.contextmanager
def recorded(step: str) -> Iterator[None]:
    """Record start, end and failure of `step`. A foreseen failure ends the process with its exit code, without a traceback."""
    global _current_step  # one step a process: this is the process's name for itself
    _current_step = step
    started = time.monotonic()
    emit("started")
    try:
        yield
    except MillraceError as error:
        table = error.report if isinstance(error, Rejected) else []
        emit("failed", kind=type(error).__name__, exit_code=error.exit_code, message=str(error), report=table, **_cost(started))
        log.error("%s: %s", type(error).__name__, error)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            _unforeseen(error, started)
            raise
        full = (
            f"No space left on device{f' ({error.filename})' if error.filename else ''}. Free some space and type the same command again."
        )
        emit("failed", kind=Unavailable.__name__, exit_code=Unavailable.exit_code, message=full, report=[], **_cost(started))
        raise SystemExit(Unavailable.exit_code) from error
    except BaseException as error:
        _unforeseen(error, started)
        raise
    emit("finished", **_cost(started))


def _unforeseen(error: BaseException, started: float) -> None:
    emit("failed", kind=type(error).__name__, exit_code=1, message=str(error), report=[], **_cost(started))


def _cost(started: float) -> dict[str, float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(time.monotonic() - started, 3),
        "peak_mb": round(own.ru_maxrss / 1024, 1),
        "cpu_seconds": round(own.ru_utime + own.ru_stime, 2),
    }
