"""How people get as far as the cluster's door. What they may do behind it, Kubernetes decides by the same file (charts `foundation` and `team`)."""

from __future__ import annotations

import pulumi_gcp as gcp

from millrace_gke.ground import Ground
from mlplatform import google_names

CONNECT = ("container.clusters.connect", "container.clusters.get", "container.clusters.list")
"""Find the cluster and reach its DNS endpoint; nothing in it."""


def people(ground: Ground) -> None:
    """Members of teams may knock; the infra team administers; both see the pages behind IAP."""
    members, admins = google_names.members(ground.environment), ground.environment.access.admins
    role = gcp.projects.IAMCustomRole(
        "cluster-user",
        role_id=f"millraceClusterUser_{ground.name.replace('-', '_')}",
        title=f"Reaches the cluster {ground.name}",
        description="What somebody may do there, Kubernetes decides",
        permissions=list(CONNECT),
        opts=ground.options(),
    )
    for member in members:
        _project(ground, f"{member}/cluster-user", role.name, member)
    for member in admins:
        _project(ground, f"{member}/cluster-admin", "roles/container.admin", member)
    if ground.environment.access.sign_in == "iap":
        for member in dict.fromkeys([*members, *admins]):
            gcp.iap.WebIamMember(
                f"{member}/pages",
                project=ground.cloud.project,
                role="roles/iap.httpsResourceAccessor",
                member=member,
                opts=ground.options(),
            )


def _project(ground: Ground, name: str, role: object, member: str) -> None:
    gcp.projects.IAMMember(name, project=ground.cloud.project, role=role, member=member, opts=ground.options())
