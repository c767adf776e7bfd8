"""Who speaks with the cloud: each component's Kubernetes service account, and what it may reach. Each reaches its own and no more.

One list for two readers: `platform/gke/` binds Google's roles to these accounts (Workload Identity Federation, no Google service accounts, no keys),
and the plan makes the accounts in the cluster. Databases are reached by address and password, so no role is needed for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.environment import Environment
    from mlplatform.services import ServedModel


class Right(StrEnum):
    """What an account may do with a bucket, or elsewhere."""

    READ = "read"
    """Get and list objects."""
    WRITE = "write"
    """Get, list, create, overwrite and delete objects; make and rename folders."""
    ADD = "add"
    """Get, list and create objects; nothing that is there can be changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One component's account."""

    component: str
    namespace: str
    account: str
    """The name of the Kubernetes service account in that namespace."""
    buckets: tuple[tuple[str, Right], ...] = ()
    """By purpose, as `storage.buckets` names them."""
    secrets: bool = False
    """Reads the secrets in Secret Manager that begin with `secrets.prefix`."""
    team: str = ""
    """Whose it is; empty is the platform's."""


RUNNER = "pipeline-runner"
"""The account of a team's runs, one in each of its namespaces."""


def identities(environment: Environment) -> Iterator[Identity]:
    """All of them."""
    artifacts = (("artifacts", Right.WRITE),)
    yield Identity(component="pipelines", namespace="kubeflow", account="ml-pipeline", buckets=artifacts)
    yield Identity(component="pipelines-ui", namespace="kubeflow", account="ml-pipeline-ui", buckets=(("artifacts", Right.READ),))
    yield Identity(component="registry", namespace="mlflow", account="mlflow", buckets=(("mlflow", Right.WRITE),))
    if environment.secrets.kind == "secret-manager":
        yield Identity(component="secrets", namespace="external-secrets", account="external-secrets", secrets=True)
    for team, about in environment.teams.items():
        if environment.retraining.enabled:
            home, sees = about.namespaces[0], (("workspace", Right.READ), ("predictions", Right.READ))
            yield Identity(component="retraining", namespace=home, account="retraining", team=team, buckets=sees)
        for namespace in about.namespaces:
            yield Identity(
                component="runs",
                namespace=namespace,
                account=RUNNER,
                team=team,
                # Publishing takes old versions away, and a batch logs a share of its predictions.
                buckets=(*artifacts, *((purpose, Right.WRITE) for purpose in ("workspace", "models", "predictions"))),
            )
    for name, model in environment.models.items():
        yield from _of_model(name, model)


def _of_model(name: str, model: ServedModel) -> Iterator[Identity]:
    """Accounts as helm/model-serving names them: servers fetch, gateways log, the monitor and the review page read both."""

    def identity(part: str, *buckets: tuple[str, Right]) -> Identity:
        return Identity(
            component=f"{part} of {name}",
            namespace=model.namespace,
            account=f"{name}-{part}",
            team=model.team,
            buckets=buckets,
        )

    yield identity("server", ("models", Right.READ))
    yield identity("gateway", ("predictions", Right.WRITE))
    if model.monitor:
        yield identity("monitor", ("predictions", Right.READ), ("models", Right.READ))
    if model.review:
        yield identity("review", ("predictions", Right.WRITE), ("models", Right.READ))
