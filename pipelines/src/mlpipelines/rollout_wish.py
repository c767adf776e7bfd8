"""From what a project says of its deployment to what is asked of a rollout: for whoever starts one, a person or the trigger."""

from __future__ import annotations

from mlpipelines.project import Project
from mlserving.gateway.settings import Log
from mlserving.rollout.actions import Wish


def wish_of(project: Project, *, version: int | None = None, digest: str = "", reason: str = "", name: str = "") -> Wish:
    """What a project asks of a rollout; `name` as in `Wish.id`."""
    deployment = project.deployment
    return Wish(
        model=project.model_name,
        plan=deployment.rollout,
        approval=deployment.approval,
        version=version,
        digest=digest,
        reason=reason,
        id=name,
        sticky=deployment.sticky,
        log=log_of(project),
    )


def log_of(project: Project) -> Log:
    """What of the predictions is logged."""
    said = project.deployment.log
    return Log(share=said.share, features=tuple(said.features))
