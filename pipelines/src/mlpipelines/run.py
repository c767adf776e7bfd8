"""`millrace run`: plan, lock, start the child, draw its progress, end it cleanly, and say how it ended.

The child (`mlpipelines.localrun`) leads a process group of its own. Ctrl-C or SIGTERM here ends that group: steps get
SIGTERM and a few seconds, then SIGKILL. What a step had not finished does not exist for the next run (outputs live in this
run's folder, state changes by rename), and what it had finished is reused.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mlpipelines.errors import ConfigError, Conflict, Rejected
from mlpipelines.freshness import mark_of, mark_of_files
from mlpipelines.localrun import PLAN
from mlpipelines.lock import only_run
from mlpipelines.moments import moments
from mlpipelines.own_code import hash_millrace, mark_of_work
from mlpipelines.progress import RUN_DIR, RUN_ID, emit
from mlpipelines.project import Project
from mlpipelines.project_file import to_json
from mlpipelines.runs import RunRecord, StepRecord, fold, read_events, read_run
from mlpipelines.workspace import Workspace, write_json

GRACE_SECONDS = 8.0
RUN_NAME = r"[a-z0-9][a-z0-9._-]{0,119}"
_POLL_SECONDS = 0.1

Watcher = Callable[[Mapping[str, StepRecord]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a person or a trigger asks for."""

    project: Project
    project_dir: Path
    workspace: Workspace
    since: str = ""
    until: str = ""
    accept_schema: bool = False
    cache: bool = True
    reason: str = "started by hand"
    run_id: str = ""
    """Its name, where whoever asks must be able to find the run again, or find that there is none; otherwise one is made from the time."""


class Interrupted(Exception):
    """The run was ended by a signal."""


def run(request: RunRequest, watch: Watcher) -> RunRecord:
    """Run the pipeline on this machine; `watch` is called with the steps whenever something happened.

    Raises:
        Conflict: another run of the project is open in the workspace, or there is a run of this name already.
        ConfigError: the project folder is not there, the window is none, or the name is no name.
    """
    if request.run_id and not re.fullmatch(RUN_NAME, request.run_id):
        raise ConfigError(f"{request.run_id!r} is no name for a run. Use lower case, digits, dots and hyphens, at most 120 characters.")
    moments(request.since, request.until)  # a mistyped time should not leave a run behind
    if not request.project_dir.is_dir():
        raise ConfigError(f"{request.project_dir} is not a folder. `millrace new NAME` makes one.")
    state = request.workspace.project(request.project.name)
    run_id = request.run_id or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    with only_run(state.lock, run_id) as lock, _signals_as_exceptions():
        folder = state.runs / run_id
        if (folder / PLAN).exists():
            raise Conflict(f"there is a run {run_id} already: `millrace runs --show {run_id}`. A name is used once.")
        folder.mkdir(parents=True, exist_ok=True)  # one without a plan never was a run: its command was killed right here
        write_json(folder / PLAN, _plan(request, run_id))
        child = _start(folder, run_id, lock)
        try:
            _follow(child, folder, watch)
            status = _outcome(fold(read_events(folder)[0]))
        except (KeyboardInterrupt, Interrupted):
            status = "interrupted"
        finally:
            _end(child)  # also what a killed child left behind
        _record_end(folder, status)
        watch(fold(read_events(folder)[0]))
    return read_run(folder, open_run=False)


def _plan(request: RunRequest, run_id: str) -> dict[str, Any]:
    project_dir, code = request.project_dir.absolute(), hash_millrace()
    return {
        "name": request.project.name,
        "project": to_json(request.project),
        "project_dir": str(project_dir),
        "workspace": str(request.workspace.root),
        "cache": request.cache,
        "started": time.time(),
        "reason": request.reason,
        "arguments": {
            "project_dir": str(project_dir),
            "workspace": str(request.workspace.root),
            "code": code,
            "freshness": mark_of(request.project.source, project_dir, run_id),
            "since": request.since,
            "until": request.until,
            "accept_schema": request.accept_schema,
            "reason": request.reason,
            "lineage": {**lineage_of(project_dir), "reason": request.reason, **marks_of_training(request.project, project_dir, code)},
        },
    }


def marks_of_training(project: Project, project_dir: Path, code: str) -> dict[str, str]:
    """Marks of the files and of the work that a training saw. A run that reuses one says so, and has none: nothing learned from its rows."""
    if project.training.reuse is not None:
        return {"reused_training": str(project.training.reuse)}
    return {"files": mark_of_files(project.source, project_dir), "work": mark_of_work(project, project_dir, code)}


def lineage_of(project_dir: Path) -> dict[str, str]:
    """Which code this is: commit and whether the tree was clean, where git knows; and who started it."""
    facts = {"started_by": os.environ.get("USER", "unknown")}
    commit = _git(project_dir, "rev-parse", "HEAD")
    if commit:
        facts["commit"] = commit
        facts["tree"] = "changed" if _git(project_dir, "status", "--porcelain") else "clean"
    return facts


def _git(folder: Path, *words: str) -> str:
    try:
        result = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip()


def _start(folder: Path, run_id: str, lock: int) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "mlpipelines.localrun", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, RUN_DIR: str(folder), RUN_ID: run_id, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            pass_fds=(lock,),
        )


def _follow(child: subprocess.Popen[bytes], folder: Path, watch: Watcher) -> None:
    """Call `watch` after each batch of new events until the child has ended."""
    events: list[dict[str, Any]] = []
    offset = 0
    ended = False
    while not ended:
        ended = child.poll() is not None
        fresh, offset = read_events(folder, offset)
        if fresh:
            events += fresh
            watch(fold(events))
        if not ended:
            time.sleep(_POLL_SECONDS)


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, then SIGKILL to what is left of it."""
    with _ignoring_signals():
        for sign, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(child.pid, sign)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and _group_lives(child):
                time.sleep(_POLL_SECONDS)
        child.wait()


def _group_lives(child: subprocess.Popen[bytes]) -> bool:
    child.poll()
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self/stat").exists() or any(_running_members(child.pid))


def _running_members(group: int) -> Iterator[int]:
    """Processes of a group that have not ended: an orphan that nobody has reaped yet (in a container, maybe never) does not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                yield int(stat.parent.name)


def _outcome(steps: Mapping[str, StepRecord]) -> str:
    """How a run ended that nobody interrupted."""
    verdict = steps["evaluate"].facts.get("outcome")
    if any(step.status == "failed" for step in steps.values()):
        return "rejected" if any(step.failure and step.failure["exit_code"] == Rejected.exit_code for step in steps.values()) else "failed"
    if verdict == "blessed":
        return "blessed" if steps["publish"].status == "done" else "failed"
    return str(verdict) if verdict else "failed"


def _record_end(folder: Path, status: str) -> None:
    os.environ[RUN_DIR] = str(folder)
    try:
        emit("ended", status=status)
    finally:
        del os.environ[RUN_DIR]


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ignoring_signals() -> Iterator[None]:
    """A second Ctrl-C must not leave processes behind."""
    before = {sign: signal.signal(sign, signal.SIG_IGN) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, action in before.items():
            signal.signal(sign, action)
