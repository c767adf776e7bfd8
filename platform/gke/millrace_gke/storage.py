"""A bucket for each purpose: encrypted by our key, closed to the public by the project's rule and not by habit, and nothing in it is lost at once.

Models and workspaces are read and written as file systems, in which whole folders appear by one rename. That takes a bucket with folders
(hierarchical namespace), which keeps no versions: what is deleted there can be brought back for a while instead. Neither can be changed afterwards.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_gcp as gcp

from millrace_gke.ground import Ground
from millrace_gke.keys import Keys
from mlplatform.identities import Right

ROLES = {
    Right.READ: ("roles/storage.objectViewer",),
    Right.WRITE: ("roles/storage.objectUser",),
    Right.ADD: ("roles/storage.objectViewer", "roles/storage.objectCreator"),
}
"""What a right is at Google."""
FOLDERS = frozenset({"models", "workspace"})
"""Buckets with a hierarchical namespace."""
MOUNTED = ("models", "predictions", "projects")
"""Of a workspace: where steps find the two other claims, and what a trigger reads."""
DAY = 24 * 3600
UNDELETE_DAYS = range(7, 91)
"""A bucket's objects, and a deleted bucket, can be brought back for so long: what Google takes."""


def buckets(ground: Ground, keys: Keys) -> dict[str, gcp.storage.Bucket]:
    """By purpose; none where files are in the cluster."""
    named = ground.environment.storage.buckets
    if named is None or keys.buckets is None:
        return {}
    held = {
        purpose: gcp.storage.Bucket(
            purpose,
            name=name,
            location=ground.environment.storage.location or ground.cloud.region,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            **_kept(ground, purpose),
            encryption={"default_kms_key_name": keys.buckets.key.id},
            lifecycle_rules=_lifecycle(ground, purpose),
            force_destroy=False,
            labels={**ground.labels, "purpose": purpose},
            opts=ground.options(keys.buckets.granted, holds_data=True),
        )
        for purpose, name in named
    }
    for team in ground.environment.teams.values():
        for namespace in team.namespaces:
            _workspace(ground, held["workspace"], namespace)
    return held


def _workspace(ground: Ground, bucket: gcp.storage.Bucket, namespace: str) -> None:
    """The folder of a namespace's runs, and in it those at which something is mounted, so that nobody has to make them through the mount."""
    above = _folder(ground, bucket, f"{namespace}/")
    for inside in MOUNTED:
        _folder(ground, bucket, f"{namespace}/{inside}/", above)


def _folder(ground: Ground, bucket: gcp.storage.Bucket, name: str, *after: pulumi.Resource) -> gcp.storage.Folder:
    return gcp.storage.Folder(
        f"workspace/{name.rstrip('/')}", bucket=bucket.name, name=name, opts=ground.options(bucket, *after, holds_data=True)
    )


def _kept(ground: Ground, purpose: str) -> dict[str, Any]:
    """How what is overwritten or deleted comes back."""
    if purpose not in FOLDERS:
        return {"versioning": {"enabled": True}, "soft_delete_policy": {"retention_duration_seconds": UNDELETE_DAYS[0] * DAY}}
    days = min(max(ground.environment.storage.version_days, UNDELETE_DAYS[0]), UNDELETE_DAYS[-1])
    return {"hierarchical_namespace": {"enabled": True}, "soft_delete_policy": {"retention_duration_seconds": days * DAY}}


def _lifecycle(ground: Ground, purpose: str) -> list[dict[str, Any]]:
    storage = ground.environment.storage
    rules: list[dict[str, Any]] = [{"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}}]
    if purpose not in FOLDERS:
        old = {"days_since_noncurrent_time": storage.version_days, "with_state": "ARCHIVED"}
        rules.insert(0, {"action": {"type": "Delete"}, "condition": old})
    if purpose == "artifacts":
        rules.append({"action": {"type": "Delete"}, "condition": {"age": storage.artifact_days, "with_state": "LIVE"}})
    return rules
