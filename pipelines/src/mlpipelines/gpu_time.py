"""How long the steps of a run held GPUs, written down where whoever starts trainings can read it: the project's folder in the workspace.

A step writes a note when it takes its GPUs and renews it twice a minute, so one that is killed without a word is known up to then. A pod that
waits for GPUs runs no step and writes nothing: what is counted is what was held. `triggers.decide` holds a model's budget against it.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpipelines.progress import RUN_ID
from mlpipelines.workspace import Workspace, read_json, write_json

RENEWED_SECONDS = 30.0


@contextmanager
def metered(notes: Path, gpus: int, *, every: float = RENEWED_SECONDS) -> Iterator[None]:
    """Note that this process holds `gpus` GPUs for as long as the context lasts. `notes` is `ProjectState.gpu_time`."""
    if not gpus:
        yield
        return
    began = time.time()
    file = notes / os.environ.get(RUN_ID, "unnamed") / f"{uuid.uuid4().hex}.json"
    over = threading.Event()

    def note() -> None:
        write_json(file, {"gpus": gpus, "from": began, "until": time.time()})

    def renew() -> None:
        while not over.wait(every):
            note()

    note()
    renewing = threading.Thread(target=renew, name="gpu time", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        note()


def gpu_seconds(workspace: Workspace, project: str, run_id: str) -> float | None:
    """GPUs times seconds that the run's steps held them; None where the workspace is not to be seen from here."""
    if not workspace.projects.is_dir():
        return None
    notes = [read_json(file) for file in (workspace.project(project).gpu_time / run_id).glob("[!.]*.json")]
    return float(sum(note["gpus"] * (note["until"] - note["from"]) for note in notes))
