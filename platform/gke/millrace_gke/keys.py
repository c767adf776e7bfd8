"""Keys of our own for whatever holds data, one for each purpose, and leave for the one service of Google's that encrypts with it.

A key ring and a key can never be deleted at Google, only versions of a key, and then what they encrypted is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from millrace_gke.ground import Ground

WIDE = {"EU": "europe", "US": "us", "ASIA": "asia"}
"""Where keys for buckets in several regions are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key, and the grant after which its service can use it."""

    key: gcp.kms.CryptoKey
    granted: gcp.kms.CryptoKeyIAMMember


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """By what they encrypt."""

    etcd: Key
    """Kubernetes Secrets."""
    images: Key
    secrets: Key
    databases: Key | None
    """None where databases are in the cluster."""
    buckets: Key | None
    """None where files are in the cluster."""


def keys(ground: Ground) -> Keys:
    """All of them, in the region; those of buckets where the buckets are."""
    here = _ring(ground, ground.name, ground.cloud.region)
    in_cloud_sql = ground.environment.database.kind == "cloud-sql"
    return Keys(
        # GKE's own comes with its API, under a name that everybody relies on.
        etcd=_key(ground, here, "etcd", f"service-{ground.cloud.number}@container-engine-robot.iam.gserviceaccount.com"),
        images=_key(ground, here, "images", _agent(ground, "artifactregistry")),
        secrets=_key(ground, here, "secrets", _agent(ground, "secretmanager")),
        databases=_key(ground, here, "databases", _agent(ground, "sqladmin")) if in_cloud_sql else None,
        buckets=_of_buckets(ground, here) if ground.environment.storage.kind == "gcs" else None,
    )


def _of_buckets(ground: Ground, here: gcp.kms.KeyRing) -> Key:
    place = ground.environment.storage.location or ground.cloud.region
    where = WIDE.get(place.upper(), place.lower())
    ring = here if where == ground.cloud.region else _ring(ground, f"{ground.name}-buckets", where)
    agent = gcp.storage.get_project_service_account_output(
        project=ground.cloud.project, opts=pulumi.InvokeOutputOptions(provider=ground.provider, depends_on=[*ground.apis])
    )
    return _key(ground, ring, "buckets", agent.email_address)


def _ring(ground: Ground, name: str, location: str) -> gcp.kms.KeyRing:
    return gcp.kms.KeyRing(name, name=name, location=location, opts=ground.options(holds_data=True))


def _key(ground: Ground, ring: gcp.kms.KeyRing, name: str, agent: pulumi.Input[str]) -> Key:
    key = gcp.kms.CryptoKey(
        name,
        name=name,
        key_ring=ring.id,
        purpose="ENCRYPT_DECRYPT",
        rotation_period=f"{ground.cloud.key_rotation_days * 24 * 3600}s",
        labels=ground.labels,
        opts=ground.options(holds_data=True),
    )
    granted = gcp.kms.CryptoKeyIAMMember(
        name,
        crypto_key_id=key.id,
        role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
        member=pulumi.Output.concat("serviceAccount:", agent),
        opts=ground.options(),
    )
    return Key(key=key, granted=granted)


def _agent(ground: Ground, api: str) -> pulumi.Output[str]:
    """The account by which a service of Google's acts in this project. It is made by being asked for."""
    identity = gcp.projects.ServiceIdentity(api, project=ground.cloud.project, service=f"{api}.googleapis.com", opts=ground.options())
    email: pulumi.Output[str] = identity.email
    return email
