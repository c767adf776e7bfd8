"""A bucket for each purpose: encrypted by our key, versioned, closed to the public by the project's rule and not by habit."""

from __future__ import annotations

from typing import Any

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
UNDELETE_SECONDS = 7 * 24 * 3600
"""A bucket's objects, and a deleted bucket, can be brought back for so long."""


def buckets(ground: Ground, keys: Keys) -> dict[str, gcp.storage.Bucket]:
    """By purpose; none where files are in the cluster."""
    named = ground.environment.storage.buckets
    if named is None or keys.buckets is None:
        return {}
    return {
        purpose: gcp.storage.Bucket(
            purpose,
            name=name,
            location=ground.environment.storage.location or ground.cloud.region,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning={"enabled": True},
            encryption={"default_kms_key_name": keys.buckets.key.id},
            soft_delete_policy={"retention_duration_seconds": UNDELETE_SECONDS},
            lifecycle_rules=_lifecycle(ground, purpose),
            force_destroy=False,
            labels={**ground.labels, "purpose": purpose},
            opts=ground.options(keys.buckets.granted, holds_data=True),
        )
        for purpose, name in named
    }


def _lifecycle(ground: Ground, purpose: str) -> list[dict[str, Any]]:
    storage = ground.environment.storage
    rules: list[dict[str, Any]] = [
        {"action": {"type": "Delete"}, "condition": {"days_since_noncurrent_time": storage.version_days, "with_state": "ARCHIVED"}},
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
    ]
    if purpose == "artifacts":
        rules.append({"action": {"type": "Delete"}, "condition": {"age": storage.artifact_days, "with_state": "LIVE"}})
    return rules
