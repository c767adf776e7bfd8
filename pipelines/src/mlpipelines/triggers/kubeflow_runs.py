"""Runs on a cluster, through the API of Kubeflow Pipelines.

Kubeflow lets several runs have one name, so a name is looked for before a run is made, and again afterwards: a request that was given up may
have been carried out all the same, later than anybody waited. Of several runs of one name the oldest stays and the others are ended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import structlog

from mlpipelines.gpu_time import gpu_seconds
from mlpipelines.kubeflow import ClusterRun, Kubeflow, start_run
from mlpipelines.triggers.ledger import WantedRun
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starts import Ended, Training
from mlpipelines.workspace import Workspace

log = structlog.get_logger()


class KubeflowRuns:
    """Runs on one installation; a project's runs are in the experiment of its name."""

    def __init__(
        self, kubeflow: Kubeflow, projects: Projects, image: str, workspace: Workspace, *, gpu_image: str = "", registry: str = ""
    ) -> None:
        """`image` is the steps image, by digest, `gpu_image` the one for GPUs; `workspace` the volume of their pods, where it can be seen from here;
        `registry` as `start_run` says.
        """
        self._kubeflow, self._projects, self._image, self._workspace = kubeflow, projects, image, workspace
        self._gpu_image, self._registry = gpu_image, registry

    @property
    def code(self) -> str:
        """As `Runs.code` says."""
        return self._image

    def start(self, run: WantedRun) -> str:
        """As `Runs.start` says; returns the run's page."""
        trained = self._projects.require(run.model)
        found = self._only(self._kubeflow.named(trained.project.name, run.name))
        if found is None:
            found = start_run(
                self._kubeflow,
                trained.project,
                trained.folder,
                name=run.name,
                reason=run.reason,
                image=self._image,
                gpu_image=self._gpu_image,
                registry=self._registry,
            )
        return self._kubeflow.address(found)

    def ended(self, name: str, model: str) -> Ended | None:
        """As `Runs.ended` says."""
        project = self._projects.require(model).project.name
        run = self._only(self._kubeflow.named(project, name))
        if run is None:
            return Ended(outcome="lost", trouble="Kubeflow Pipelines has no run of this name any more.", gpu_seconds=None)
        if run.open:
            return None
        return Ended(
            outcome=run.state.lower(),
            facts={"page": self._kubeflow.address(run), "run_id": run.run_id},
            trouble=run.error,
            gpu_seconds=gpu_seconds(self._workspace, project, run.run_id),
        )

    def open_run(self, model: str, ours: Collection[str]) -> str:
        """As `Runs.open_run` says."""
        runs = self._kubeflow.newest(self._projects.require(model).project.name)
        return next((run.name for run in runs if run.open and run.name not in ours), "")

    def last_trained(self, model: str) -> Training | None:
        """As `Runs.last_trained` says: the last run that succeeded. Whether its model was blessed does not matter."""
        runs = self._kubeflow.newest(self._projects.require(model).project.name)
        told = (Training.of_run(run.created, run.arguments) for run in runs if run.state == "SUCCEEDED")
        return next(filter(None, told), None)

    def _only(self, runs: Sequence[ClusterRun]) -> ClusterRun | None:
        """The oldest of the runs of one name. The others are ended."""
        for surplus in runs[1:]:
            if surplus.open and surplus.state != "CANCELING":
                log.warning("trigger.surplus_run", run=surplus.name, kept=runs[0].run_id, ended=surplus.run_id)
                self._kubeflow.terminate(surplus)
        return runs[0] if runs else None
