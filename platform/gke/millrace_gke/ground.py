"""What everything stands on: the project that the environment names, its APIs, and what is the same for every resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from mlplatform.cloud import Google
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError

APIS = (
    "artifactregistry",
    "billingbudgets",
    "certificatemanager",
    "cloudkms",
    "cloudresourcemanager",
    "compute",
    "container",
    "containerfilesystem",  # streams images to nodes
    "dns",
    "iam",
    "iamcredentials",
    "iap",
    "logging",
    "monitoring",
    "secretmanager",
    "servicenetworking",
    "serviceusage",
    "sqladmin",
    "storage",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """One environment, and how its resources are made."""

    environment: Environment
    cloud: Google
    provider: gcp.Provider
    apis: tuple[gcp.projects.Service, ...]

    @property
    def name(self) -> str:
        """Begins the names of what there is one of."""
        return self.environment.name

    @property
    def labels(self) -> dict[str, str]:
        """On whatever takes labels, for the bill and for whoever finds it."""
        return {**self.cloud.labels, "platform": self.name, "managed-by": "pulumi"}

    def options(
        self,
        *after: pulumi.Resource,
        holds_data: bool = False,
        ignore: Sequence[str] = (),
        replaced_in_place: bool = False,
    ) -> pulumi.ResourceOptions:
        """For a resource that is made after the APIs and `after`.

        What `holds_data` is protected while the environment says so: Pulumi refuses to delete or replace it, whatever it is told. What of it other
        people change, GKE's autoscaler for one, is in `ignore`. A name that can exist once only is deleted before it is made anew.
        """
        return pulumi.ResourceOptions(
            provider=self.provider,
            depends_on=[*self.apis, *after],
            protect=holds_data and self.cloud.deletion_protection,
            ignore_changes=list(ignore),
            delete_before_replace=replaced_in_place or None,
        )


def lay(environment: Environment) -> Ground:
    """The provider is explicit, so that no project of somebody's gcloud configuration is ever written to.

    Raises:
        ConfigError: the environment has no cloud.
    """
    cloud = environment.cloud
    if cloud is None:
        raise ConfigError(
            f"{environment.name} has no 'cloud': its cluster is there already. Next: make plan-platform ENV={environment.name}"
        )
    provider = gcp.Provider(
        "google",
        project=cloud.project,
        region=cloud.region,
        # A person's own credentials have no project that calls are counted against; the API of budgets refuses them without one.
        billing_project=cloud.project,
        user_project_override=True,
    )
    return Ground(environment=environment, cloud=cloud, provider=provider, apis=tuple(_api(name, provider) for name in APIS))


def _api(name: str, provider: gcp.Provider) -> gcp.projects.Service:
    """Stays on when the platform goes: something else in the project may use it."""
    service = f"{name}.googleapis.com"
    return gcp.projects.Service(name, service=service, disable_on_destroy=False, opts=pulumi.ResourceOptions(provider=provider))
