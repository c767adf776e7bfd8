"""Where our images are: the repository that `images.registry` names, if it is one of this project's."""

from __future__ import annotations

import re

import pulumi_gcp as gcp

from millrace_gke.ground import Ground
from millrace_gke.keys import Keys

UNTAGGED_DAYS = 30
"""What no tag names any more is kept for so long. What runs is named by digest, so the newest are kept in any case."""
KEPT = 20


def registry(ground: Ground, keys: Keys) -> gcp.artifactregistry.Repository | None:
    """None where images are somewhere else, in a project of the company's own for them, say."""
    host = re.escape(f"{ground.cloud.region}-docker.pkg.dev/{ground.cloud.project}/")
    found = re.fullmatch(host + r"([a-z]([-a-z0-9]*[a-z0-9])?)", ground.environment.images.registry)
    if not found:
        return None
    return gcp.artifactregistry.Repository(
        "images",
        repository_id=found[1],
        location=ground.cloud.region,
        format="DOCKER",
        description="Images of Millrace; what runs is named by digest",
        docker_config={"immutable_tags": True},
        kms_key_name=keys.images.key.id,
        cleanup_policies=[
            {"id": "newest", "action": "KEEP", "most_recent_versions": {"keep_count": KEPT}},
            {"id": "untagged", "action": "DELETE", "condition": {"tag_state": "UNTAGGED", "older_than": f"{UNTAGGED_DAYS * 24 * 3600}s"}},
        ],
        labels=ground.labels,
        opts=ground.options(keys.images.granted, holds_data=True),
    )
