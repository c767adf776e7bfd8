"""What things of a platform are called in Google Cloud. Pure; read by `platform/gke/`, which makes them, and by the plan, which uses them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.cloud import Google
    from mlplatform.environment import Environment
    from mlplatform.identities import Identity

ZONE = "millrace.internal"
"""Of names that only the platform's network knows."""
OBJECT_STORE = "object-store"
"""The one Google account that a component acts under."""


class Engine(StrEnum):
    """Of an instance of Cloud SQL; also its name in `ZONE`."""

    MYSQL = "mysql"
    POSTGRESQL = "postgresql"


def host(engine: Engine) -> str:
    """Where that database is reached."""
    return f"{engine}.{ZONE}"


def instance(environment: Environment, engine: Engine) -> str:
    """The instance's name. Google gives a name again a week after its instance has gone."""
    return f"{environment.name}-{engine}"


def account(environment: Environment, purpose: str) -> str:
    """The id of a Google account, of which there are two: at most 30 letters."""
    return f"{environment.name[: 29 - len(purpose)].rstrip('-')}-{purpose}"


def account_email(environment: Environment, purpose: str) -> str:
    """Of that account; empty without a cloud."""
    return f"{account(environment, purpose)}@{environment.cloud.project}.iam.gserviceaccount.com" if environment.cloud else ""


def state_bucket(cloud: Google) -> str:
    """Where Pulumi keeps what it knows of the project's platforms. Made by hand, before anything else."""
    return f"{cloud.project}-millrace-state"


def state_key(cloud: Google) -> str:
    """By which Pulumi encrypts what is secret in its state."""
    return f"gcpkms://projects/{cloud.project}/locations/{cloud.region}/keyRings/millrace-state/cryptoKeys/state"


def entrance(environment: Environment) -> str:
    """Of the certificate map and the address of the pages."""
    return f"{environment.name}-pages"


def workload_pool(cloud: Google) -> str:
    """In which Kubernetes accounts of the project's clusters are known to Google."""
    return f"{cloud.project}.svc.id.goog"


def principal(cloud: Google, identity: Identity) -> str:
    """A Kubernetes account, as Google's IAM names it."""
    pool = f"projects/{cloud.number}/locations/global/workloadIdentityPools/{workload_pool(cloud)}"
    return f"principal://iam.googleapis.com/{pool}/subject/ns/{identity.namespace}/sa/{identity.account}"


def credentials_command(environment: Environment) -> str:
    """What a person types to reach the cluster with kubectl; empty without a cloud."""
    cloud = environment.cloud
    if cloud is None:
        return ""
    by_name = " --dns-endpoint" if cloud.network.dns_endpoint else ""
    return f"gcloud container clusters get-credentials {environment.name} --project {cloud.project} --location {cloud.region}{by_name}"


def members(environment: Environment) -> tuple[str, ...]:
    """Everybody that some team names, and the auditors, once."""
    found = [member for team in environment.teams.values() for members in team.members.values() for member in members]
    found += environment.registry.auditors
    return tuple(sorted(set(found) - set(environment.access.admins)))


def group_domain(environment: Environment) -> str:
    """Of the groups that are named; empty if none is. Kubernetes on GKE knows the groups of one domain only."""
    domains = group_domains(environment)
    return domains[0] if domains else ""


def group_domains(environment: Environment) -> list[str]:
    """Of all groups that are named."""
    named = [*members(environment), *environment.access.admins]
    return sorted({member.rpartition("@")[2] for member in named if member.startswith("group:")})


def databases(environment: Environment, engine: Engine) -> Iterator[str]:
    """In that instance."""
    if engine == Engine.MYSQL:
        yield from ("cachedb", "metadb", "mlpipeline")
        return
    yield from ("mlflow", "mlflow_auth")
    if environment.retraining.enabled:
        yield from (f"retraining_{team.replace('-', '_')}" for team in environment.teams)
    if any(model.review for model in environment.models.values()):
        yield "review"
    if environment.monitoring.kind != "none":
        yield "grafana"


def database_user(name: str) -> str:
    """The credential of the user of that name, who owns the database of that name."""
    return f"postgresql-{name.replace('_', '-')}"


def secret(environment: Environment, credential: str) -> str:
    """Its name in Secret Manager."""
    return f"{environment.secrets.prefix}{credential}"
