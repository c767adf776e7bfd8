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
        log=Log(share=deployment.log.share, features=tuple(deployment.log.features)),
    )
