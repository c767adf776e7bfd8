"""What every component does before and after its step, so that each component stays a few lines around one step.

A component is source text that Kubeflow carries to a pod (or kfp.local to a subprocess); all it does there is open a
`StepContext` and call the step. The story goes on in `mlpipelines.steps`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlpipelines.progress import RUN_ID, recorded
from mlpipelines.project import Project, Step
from mlpipelines.project_file import from_json
from mlpipelines.workspace import ProjectState, Workspace, find_workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """Where a step finds itself."""

    project: Project
    project_dir: Path
    workspace: Workspace
    run_id: str

    def trained(self) -> Path | None:
        """What the version has left that `training.reuse` names, as `artifacts.Trained`; None where a model is to be trained.

        Raises:
            ConfigError: there is no such version, or it left nothing to build on.
        """
        version = self.project.training.reuse
        if version is None:
            return None
        from mlpipelines.publishing.registry import version_of
        from mlpipelines.publishing.trained_files import trained_files

        return trained_files(self.workspace, version_of(self.workspace, self.project.model_name, version))

    @property
    def state(self) -> ProjectState:
        """What the project keeps between runs."""
        return self.workspace.project(self.project.name)


@contextlib.contextmanager
def step(name: Step, *, project: str, project_dir: str, workspace: str) -> Iterator[StepContext]:
    """Parse the parameters, record how the step went, quiet the libraries that shout.

    Args:
        name: the step.
        project: `Project` as JSON, scoped to the step.
        project_dir: the folder of the project's code.
        workspace: the folder that outlives the run.
    """
    quiet_libraries()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with recorded(name):
        yield StepContext(
            project=from_json(project),
            project_dir=Path(project_dir),
            workspace=find_workspace(workspace),
            run_id=os.environ.get(RUN_ID, "unnamed"),
        )


def quiet_libraries() -> None:
    """TensorFlow's C++ log and oneDNN's notice say nothing that a reader of a run's log can act on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("absl", "apache_beam", "tensorflow", "alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
