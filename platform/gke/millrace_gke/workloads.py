"""What each component's Kubernetes account may reach: `mlplatform.identities`, said to Google. No Google account stands between, and no key exists.

One exception: Kubeflow's API server speaks S3 to the bucket of artifacts, and Google gives the keys of that protocol to accounts of its own only. So
there is one, for that bucket alone; a person makes its key (`python -m mlplatform.infrastructure secrets ENV`).
"""

from __future__ import annotations

import pulumi_gcp as gcp

from millrace_gke.cluster import Gke
from millrace_gke.ground import Ground
from millrace_gke.storage import ROLES
from mlplatform import google_names
from mlplatform.identities import Identity, identities


def grant(ground: Ground, gke: Gke, buckets: dict[str, gcp.storage.Bucket], secrets: dict[str, gcp.secretmanager.Secret]) -> None:
    """Every right of every account. The pool of identities comes to be with the project's first cluster, so that is waited for."""
    for identity in identities(ground.environment):
        member = google_names.principal(ground.cloud, identity)
        for purpose, role in _roles(identity):
            if purpose in buckets:
                gcp.storage.BucketIAMMember(
                    f"{_who(identity)}/{purpose}/{role.rpartition('.')[2]}",
                    bucket=buckets[purpose].name,
                    role=role,
                    member=member,
                    opts=ground.options(gke.cluster),
                )
        for credential, secret in secrets.items() if identity.secrets else ():
            gcp.secretmanager.SecretIamMember(
                f"{_who(identity)}/{credential}",
                secret_id=secret.secret_id,
                project=ground.cloud.project,
                role="roles/secretmanager.secretAccessor",
                member=member,
                opts=ground.options(gke.cluster, secret),
            )
    if "artifacts" in buckets:
        _object_store(ground, buckets["artifacts"])


def _who(identity: Identity) -> str:
    return f"{identity.namespace}/{identity.account}"


def _roles(identity: Identity) -> list[tuple[str, str]]:
    return [(purpose, role) for purpose, right in identity.buckets for role in ROLES[right]]


def _object_store(ground: Ground, bucket: gcp.storage.Bucket) -> None:
    account = gcp.serviceaccount.Account(
        "object-store",
        account_id=google_names.account(ground.environment, google_names.OBJECT_STORE),
        display_name=f"Kubeflow Pipelines of {ground.name}, where it speaks S3",
        opts=ground.options(),
    )
    gcp.storage.BucketIAMMember(
        "object-store",
        bucket=bucket.name,
        role="roles/storage.objectUser",
        member=account.email.apply(lambda email: f"serviceAccount:{email}"),
        opts=ground.options(),
    )
