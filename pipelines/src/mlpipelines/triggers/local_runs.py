"""Runs on this machine: `millrace run` as a process of its own, in the workspace.

A run has the name that the decision gave it, and a name is used once (`mlpipelines.run`): whoever is killed between writing down that a run is
wanted and seeing it begin simply asks again. The process outlives the trigger; what it does is read from the run's folder, as `millrace
runs` reads it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from mlpipelines.errors import ConfigError, MillraceError, Unavailable
from mlpipelines.gpu_time import gpu_seconds
from mlpipelines.localrun import PLAN
from mlpipelines.lock import is_held
from mlpipelines.own_code import hash_millrace
from mlpipelines.runs import list_runs, read_run
from mlpipelines.triggers.ledger import WantedRun
from mlpipelines.triggers.projects import Projects, Trained
from mlpipelines.triggers.starts import Ended, Training
from mlpipelines.workspace import Workspace, read_json

_BEGIN_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_SAID = 500
"""Characters of what a command said that are kept."""
_TRAINED = frozenset({"done", "reused"})


class LocalRuns:
    """Runs in one workspace."""

    def __init__(self, workspace: Workspace, projects: Projects) -> None:
        self._workspace, self._projects = workspace, projects
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def code(self) -> str:
        """As `Runs.code` says."""
        return hash_millrace()

    def start(self, run: WantedRun) -> str:
        """As `Runs.start` says; returns the run's folder."""
        self._bury()
        trained = self._projects.require(run.model)
        folder = self._workspace.project(trained.project.name).runs / run.name
        if (folder / PLAN).exists():
            return str(folder)
        log = self._workspace.root / "serving" / "trigger" / f"{run.name}.log"
        child = self._spawn(run, trained, log)
        give_up = time.monotonic() + _BEGIN_SECONDS
        while not (folder / PLAN).exists():
            if child.poll() is not None and not (folder / PLAN).exists():
                raise _refused(run.name, child.returncode, log)
            if time.monotonic() > give_up:
                raise Unavailable(f"{run.name} has not begun after {_BEGIN_SECONDS:.0f} s. What it says: {log}")
            time.sleep(_LOOK_SECONDS)
        return str(folder)

    def ended(self, name: str, model: str) -> Ended | None:
        """As `Runs.ended` says."""
        self._bury()
        project = self._projects.require(model).project.name
        state, held = self._workspace.project(project), gpu_seconds(self._workspace, project, name)
        folder, is_open = state.runs / name, _holder(state.lock) == name
        if not (folder / PLAN).exists():
            return Ended(outcome="lost", trouble=f"{folder} is gone.", gpu_seconds=held)
        record = read_run(folder, open_run=is_open)
        if record.status == "running":
            return None
        facts = {**record.facts, "page": str(folder)}
        return Ended(
            outcome=record.status,
            facts=facts,
            trouble=str((record.failure or {}).get("message", ""))[:_SAID],
            gpu_seconds=held,
        )

    def open_run(self, model: str, ours: Collection[str]) -> str:
        """As `Runs.open_run` says."""
        holder = _holder(self._workspace.project(self._projects.require(model).project.name).lock)
        return "" if holder in ours else holder

    def last_trained(self, model: str) -> Training | None:
        """As `Runs.last_trained` says."""
        records = list_runs(self._workspace, self._projects.require(model).project.name)
        trained = (record for record in records if record.steps["train"].status in _TRAINED)
        told = (Training.of_run(record.started.timestamp(), read_json(record.folder / PLAN)["arguments"]) for record in trained)
        return next(filter(None, told), None)

    def _spawn(self, run: WantedRun, trained: Trained, log: Path) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlpipelines", "run", str(trained.folder), "--workspace", str(self._workspace.root)]
        command += ["--run-id", run.name, "--reason", run.reason, "--json"]
        with log.open("wb") as output:  # of its own session: it goes on when the trigger ends
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self._children.append(child)
        return child

    def _bury(self) -> None:
        """Let the system forget children that have ended."""
        self._children = [child for child in self._children if child.poll() is None]


def _holder(lock: Path) -> str:
    return lock.read_text() if is_held(lock) else ""


def _refused(name: str, code: int, log: Path) -> MillraceError:
    said = log.read_text(errors="replace").strip()[-_SAID:]
    text = f"{name} did not begin (exit code {code}): {said or 'it said nothing'}"
    kinds: Mapping[int, type[MillraceError]] = {ConfigError.exit_code: ConfigError}
    return kinds.get(code, Unavailable)(text)
