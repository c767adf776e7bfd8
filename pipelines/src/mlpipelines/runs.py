"""The record of runs: what `events.jsonl` in each run's folder adds up to.

Reading is all this does, so it tells the same story during a run, after it, and after a crash: a run whose last event is
not an end, and whose project is not locked, was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlpipelines.lock import is_held
from mlpipelines.progress import EVENTS
from mlpipelines.workspace import Workspace, read_json

PIPELINE_STEPS = ("ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """How one step of a run went."""

    step: str
    status: str = "waiting"
    """waiting, running, done, reused, failed, or skipped."""
    seconds: float = 0.0
    peak_mb: float = 0.0
    text: str = ""
    fraction: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, Any] | None = None
    """kind, message, exit_code and report of a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run."""

    run_id: str
    project: str
    started: datetime
    status: str
    """running, blessed, rejected, unchanged, failed, interrupted, or killed."""
    reason: str
    steps: Mapping[str, StepRecord]
    folder: Path

    @property
    def seconds(self) -> float:
        """Time in steps."""
        return sum(step.seconds for step in self.steps.values())

    @property
    def failure(self) -> Mapping[str, Any] | None:
        """Why it failed, if it did."""
        return next((step.failure for step in self.steps.values() if step.failure), None)

    @property
    def facts(self) -> dict[str, Any]:
        """All facts that steps noted, by name."""
        return {name: value for step in self.steps.values() for name, value in step.facts.items()}


def read_events(folder: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of a run's events from byte `offset` on, and the offset after them."""
    file = folder / EVENTS
    if not file.exists():
        return [], offset
    with file.open("rb") as stream:
        stream.seek(offset)
        text = stream.read()
    end = text.rfind(b"\n") + 1
    return [json.loads(line) for line in text[:end].splitlines()], offset + end


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, StepRecord]:
    """What the events say of each step, in the pipeline's order. A step that never started before a later one did was reused."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        step = found.setdefault(event["step"], {})
        match event["event"]:
            case "started":
                step.update(status="running")
            case "progress":
                step.update(text=event["text"], fraction=event["fraction"])
            case "note":
                step.setdefault("facts", {}).update(event["facts"])
            case "finished":
                step.update(status="done", seconds=event["seconds"], peak_mb=event["peak_mb"], fraction=None)
            case "failed":
                failure = {name: event[name] for name in ("kind", "message", "exit_code", "report")}
                step.update(status="failed", failure=failure, seconds=event.get("seconds", 0.0), peak_mb=event.get("peak_mb", 0.0))
    return {name: StepRecord(step=name, **found.get(name, {})) for name in _with_reused(found)}


def _with_reused(found: dict[str, dict[str, Any]]) -> list[str]:
    begun = [i for i, name in enumerate(PIPELINE_STEPS) if found.get(name, {}).get("status")]
    for name in PIPELINE_STEPS[: max(begun, default=0)]:
        if not found.get(name, {}).get("status"):
            found.setdefault(name, {})["status"] = "reused"
    # Others are labels, compile and report.
    extra = [name for name, facts in found.items() if name not in PIPELINE_STEPS and facts.get("status") == "failed"]
    return [*PIPELINE_STEPS, *extra]


def read_run(folder: Path, *, open_run: bool) -> RunRecord:
    """The record of the run in `folder`; `open_run` says whether it may still be going on."""
    plan = read_json(folder / "plan.json")
    events, _ = read_events(folder)
    steps = fold(events)
    ended = next((event for event in reversed(events) if event["event"] == "ended"), None)
    status = ended["status"] if ended else ("running" if open_run else "killed")
    started = datetime.fromtimestamp(plan["started"], tz=UTC)
    return RunRecord(
        run_id=folder.name,
        project=plan["name"],
        started=started,
        status=status,
        reason=plan["reason"],
        steps=steps,
        folder=folder,
    )


def list_runs(workspace: Workspace, project: str | None = None) -> list[RunRecord]:
    """All runs of a project, or of all, newest first."""
    roots = [workspace.project(project).root] if project else sorted((workspace.root / "projects").glob("*"))
    records = []
    for root in roots:
        state = workspace.project(root.name)
        folders = sorted(folder for folder in state.runs.glob("*") if (folder / "plan.json").exists())
        holder = state.lock.read_text() if is_held(state.lock) else ""
        records += [read_run(folder, open_run=folder.name == holder) for folder in folders]
    return sorted(records, key=lambda record: record.started, reverse=True)
