"""A container in Secret Manager for each credential. It is empty: values are put in by people, and no program of ours ever sees one.

`python -m mlplatform.infrastructure secrets ENV` prints the commands.
"""

from __future__ import annotations

import pulumi_gcp as gcp

from millrace_gke.ground import Ground
from millrace_gke.keys import Keys
from mlplatform import google_names
from mlplatform.plan.credentials import in_secret_manager


def secret_containers(ground: Ground, keys: Keys) -> dict[str, gcp.secretmanager.Secret]:
    """By the credential's name; none where secrets come from elsewhere."""
    replica = {"location": ground.cloud.region, "customer_managed_encryption": {"kms_key_name": keys.secrets.key.id}}
    return {
        credential: gcp.secretmanager.Secret(
            credential,
            secret_id=google_names.secret(ground.environment, credential),
            replication={"user_managed": {"replicas": [replica]}},
            # A version that somebody destroyed can be brought back for a week.
            version_destroy_ttl=f"{7 * 24 * 3600}s",
            deletion_protection=ground.cloud.deletion_protection,
            labels=ground.labels,
            opts=ground.options(keys.secrets.granted, holds_data=True),
        )
        for credential in in_secret_manager(ground.environment)
    }
