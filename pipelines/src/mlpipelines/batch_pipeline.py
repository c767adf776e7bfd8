"""`batch-inference`: batch scoring as a Kubeflow pipeline of one step, for schedules and for an Airflow outside.

Compiled and checked in beside each project as `batch.yaml`, as the training pipeline is (`pipeline.py`). What a caller may say are the
pipeline's parameters, named like the options of `millrace batch`. (No `from __future__ import annotations` here: KFP reads the pipeline
function's annotations as objects.)
"""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from mlpipelines.pipeline import ComponentFactory, Target
from mlpipelines.project import Project

PIPELINE = "batch-inference"


def compile_batch_pipeline(project: Project, destination: Path, target: Target | None = None) -> None:
    """Write the project's batch pipeline as KFP YAML.

    Args:
        project: the parsed project.
        destination: the file to write.
        target: image and volume for a cluster.
    """
    compiler.Compiler().compile(_pipeline(project, target or Target()), str(destination))


def _pipeline(project: Project, target: Target) -> Any:
    make = ComponentFactory(project, target)

    @dsl.pipeline(name=f"{project.name}-{PIPELINE}", description=f"Score files with the champion of {project.model_name}")  # type: ignore[untyped-decorator]  # kfp ships no types
    def batch_inference(
        project_dir: str = f"{target.projects_dir}/{project.name}",
        workspace: str = target.workspace,
        input: str = "",
        output: str = f"{target.workspace}/batch/{project.name}",
        since: str = "",
        until: str = "",
        version: int = 0,
        keep: list = [],  # type: ignore[type-arg]  # noqa: B006  # KFP reads the default and the bare type
        rank_by: str = "",
        top: int = 0,
        per: str = "",
        once_per: str = "",
        log_share: float = -1.0,
        log_features: list = [],  # type: ignore[type-arg]  # noqa: B006
        max_rejected: float = 0.0,
    ) -> None:
        make(
            "batch",
            project_dir=project_dir,
            workspace=workspace,
            input=input,
            output=output,
            since=since,
            until=until,
            version=version,
            keep=keep,
            rank_by=rank_by,
            top=top,
            per=per,
            once_per=once_per,
            log_share=log_share,
            log_features=log_features,
            max_rejected=max_rejected,
        )

    return batch_inference
