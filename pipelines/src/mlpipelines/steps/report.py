"""The exit handler: whatever happened, the run's folder says how it ended, and MLflow knows of it.

`evaluate` opens the MLflow run when there is something to compare; a run that ended before that is entered here, as failed,
so that nobody looks for a run that "never happened".
"""

from __future__ import annotations

import os
from pathlib import Path

from mlpipelines.progress import RUN_DIR, note
from mlpipelines.project import Project
from mlpipelines.runs import fold, read_events
from mlpipelines.workspace import Workspace, write_json


def report(*, project: Project, workspace: Workspace, run_id: str, reason: str, succeeded: bool, message: str) -> None:
    """Write `report.json` to the run's folder and close the run in MLflow.

    Args:
        project: the project, with every section.
        workspace: where the registry is.
        run_id: the run.
        reason: why it was started.
        succeeded: whether every step that was due went well, as Kubeflow says.
        message: Kubeflow's error text, if any.
    """
    folder = os.environ.get(RUN_DIR)
    steps = fold(read_events(Path(folder))[0]) if folder else {}
    failure = next((step.failure for step in steps.values() if step.failure), None)
    summary = {
        "run_id": run_id,
        "project": project.name,
        "team": project.team,
        "reason": reason,
        "succeeded": succeeded,
        "message": message or (failure or {}).get("message", ""),
        "steps": {name: {"status": s.status, "seconds": s.seconds, "peak_mb": s.peak_mb} for name, s in steps.items()},
    }
    if folder:
        write_json(Path(folder) / "report.json", summary)
    note(succeeded=succeeded)
    if not succeeded and not (steps and steps["evaluate"].status == "done"):
        from mlpipelines.publishing.registry import log_failed_run

        log_failed_run(workspace=workspace, project=project.name, run_id=run_id, reason=reason, message=str(summary["message"]))
