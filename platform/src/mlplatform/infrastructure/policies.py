"""What must never be in Google Cloud, whatever an environment says: each a pure function over one resource, that yields what is wrong with it.

Tests hold every environment to them and show that each fires; `make plan-platform` and the program's own commands ask them before Pulumi is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from mlplatform.errors import ConfigError
from mlplatform.infrastructure.offline import Resource

Policy = Callable[[Resource, str], Iterator[str]]
"""From a resource and the environment's stage to complaints."""

CLUSTER = "gcp:container/cluster:Cluster"
POOL = "gcp:container/nodePool:NodePool"
BUCKET = "gcp:storage/bucket:Bucket"
FOLDER = "gcp:storage/folder:Folder"
DATABASE = "gcp:sql/databaseInstance:DatabaseInstance"
HOLDS_DATA = frozenset(
    {
        CLUSTER,
        BUCKET,
        FOLDER,
        DATABASE,
        "gcp:sql/database:Database",
        "gcp:kms/keyRing:KeyRing",
        "gcp:kms/cryptoKey:CryptoKey",
        "gcp:secretmanager/secret:Secret",
        "gcp:artifactregistry/repository:Repository",
    }
)
UNDELETE_SECONDS = 7 * 24 * 3600
PRIMITIVE = ("roles/owner", "roles/editor", "roles/viewer")
EVERYBODY = ("allUsers", "allAuthenticatedUsers")
DEFAULT_ACCOUNTS = ("-compute@developer.gserviceaccount.com", "@appspot.gserviceaccount.com", "@cloudservices.gserviceaccount.com")


def violations(found: Iterable[Resource], stage: str) -> list[str]:
    """Each as `TYPE NAME: what is wrong`; empty is what is wanted."""
    return [f"{one.type} {one.name}: {complaint}" for one in found for policy in POLICIES for complaint in policy(one, stage)]


def refuse(found: Iterable[Resource], stage: str) -> None:
    """Nothing, if nothing is among them that must never be.

    Raises:
        ConfigError: something is; the text names each.
    """
    if wrong := violations(found, stage):
        raise ConfigError("this must never be:\n  " + "\n  ".join(wrong) + "\nThe rules stand in mlplatform/infrastructure/policies.py.")


def nodes_are_private(one: Resource, stage: str) -> Iterator[str]:
    """Nodes have no public address; only development may."""
    if stage == "development":
        return
    path = {CLUSTER: ("privateClusterConfig", "enablePrivateNodes"), POOL: ("networkConfig", "enablePrivateNodes")}.get(one.type)
    if path and _at(one.inputs, *path) is not True:
        yield "its nodes have public addresses"


def control_plane_is_private(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001  # every policy is asked alike
    """No public address of the control plane, and nobody let in from a public range."""
    if one.type != CLUSTER:
        return
    if _at(one.inputs, "privateClusterConfig", "enablePrivateEndpoint") is not True:
        yield "its control plane has a public address"
    for block in _at(one.inputs, "masterAuthorizedNetworksConfig", "cidrBlocks") or ():
        if not ip_network(block["cidrBlock"]).is_private or ip_network(block["cidrBlock"]).prefixlen == 0:
            yield f"{block['cidrBlock']} may reach its control plane"


def cluster_defends_itself(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """What GKE has and a cluster of ours always uses."""
    if one.type != CLUSTER:
        return
    wanted: dict[str, tuple[tuple[str, ...], Any]] = {
        "Secrets in etcd are not encrypted by a key of ours": (("databaseEncryption", "state"), "ENCRYPTED"),
        "nodes are not shielded": (("enableShieldedNodes",), True),
        "NetworkPolicies are not enforced": (("datapathProvider",), "ADVANCED_DATAPATH"),
        "legacy authorization is on": (("enableLegacyAbac",), False),
        "client certificates are issued": (("masterAuth", "clientCertificateConfig", "issueClientCertificate"), False),
        "anybody may ask the API server anonymously": (("anonymousAuthenticationConfig", "mode"), "LIMITED"),
    }
    yield from (complaint for complaint, (path, value) in wanted.items() if _at(one.inputs, *path) != value)
    if not _at(one.inputs, "workloadIdentityConfig", "workloadPool"):
        yield "pods have no identity of their own"
    if not _at(one.inputs, "releaseChannel", "channel"):
        yield "it is in no release channel, so nobody upgrades it"


def gpu_pools_begin_at_none(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Nobody pays for GPUs that nobody asked for, and what needs none stays off them."""
    if one.type != POOL or not _at(one.inputs, "nodeConfig", "guestAccelerators"):
        return
    if _at(one.inputs, "autoscaling", "totalMinNodeCount") != 0 or one.inputs.get("initialNodeCount") != 0:
        yield "its GPUs run without being asked for"
    if "nvidia.com/gpu" not in [taint["key"] for taint in _at(one.inputs, "nodeConfig", "taints") or ()]:
        yield "pods without GPUs may sit on its nodes"


def no_primitive_role(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Owner, editor and viewer are on everything of a project, secrets' values and buckets among it."""
    if one.inputs.get("role") in PRIMITIVE:
        yield f"grants {one.inputs['role']}, which is on everything"


def workloads_administer_nothing(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """A component of ours never gives rights away, nor acts as somebody else."""
    role = str(one.inputs.get("role", ""))
    broad = role.lower().endswith("admin") or role in {"roles/iam.serviceAccountUser", "roles/iam.serviceAccountTokenCreator"}
    if broad and any(member.startswith(("principal://", "principalSet://")) for member in _members(one)):
        yield f"grants {role} to a workload"


def one_account_at_a_time(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """A workload's right is for one Kubernetes account, never for a namespace, a cluster or a whole pool."""
    for member in _members(one):
        if member.startswith("principalSet://") or (member.startswith("principal://") and "/subject/ns/" not in member):
            yield f"grants to {member}, which is more than one account"


def nobody_is_everybody(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Nothing is anybody's."""
    yield from (f"grants to {member}" for member in _members(one) if member in EVERYBODY)


def others_rights_stay(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """A policy or binding of a whole project takes from others what they have."""
    if one.type in {"gcp:projects/iAMPolicy:IAMPolicy", "gcp:projects/iAMBinding:IAMBinding"}:
        yield "replaces rights that it does not know; take IAMMember"


def no_door_for_everybody(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """No firewall rule lets the whole world in."""
    if one.type != "gcp:compute/firewall:Firewall" or one.inputs.get("direction", "INGRESS") != "INGRESS" or not one.inputs.get("allows"):
        return
    ranges = one.inputs.get("sourceRanges") or ()
    if not ranges and not one.inputs.get("sourceTags") and not one.inputs.get("sourceServiceAccounts"):
        yield "names no source, which is everybody"
    yield from (f"lets {source} in" for source in ranges if ip_network(source).prefixlen == 0)


def buckets_are_closed(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """No object becomes public, not by accident either; rights are the bucket's, and no lists of single objects."""
    if one.type.startswith("gcp:storage/") and one.type.rpartition(":")[2] in {
        "BucketACL",
        "BucketAccessControl",
        "DefaultObjectACL",
        "DefaultObjectAccessControl",
        "ObjectACL",
        "ObjectAccessControl",
    }:
        yield "is a list of access; take BucketIAMMember"
    if one.type == BUCKET and one.inputs.get("publicAccessPrevention") != "enforced":
        yield "may become public"
    if one.type == BUCKET and one.inputs.get("uniformBucketLevelAccess") is not True:
        yield "its objects may have rights of their own"


def buckets_are_kept(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Encrypted by a key of ours, and what is deleted can be brought back: as an older version, or, where folders are real and there are none, for a week."""
    if one.type != BUCKET:
        return
    if not _at(one.inputs, "encryption", "defaultKmsKeyName"):
        yield "is not encrypted by a key of ours"
    if _at(one.inputs, "hierarchicalNamespace", "enabled") is True:
        if (_at(one.inputs, "softDeletePolicy", "retentionDurationSeconds") or 0) < UNDELETE_SECONDS:
            yield "keeps what is deleted for less than a week"
    elif _at(one.inputs, "versioning", "enabled") is not True:
        yield "keeps no versions"
    if one.inputs.get("forceDestroy"):
        yield "would be destroyed with what is in it"


def databases_are_private(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """No public address, and disks under a key of ours."""
    if one.type != DATABASE:
        return
    address = _at(one.inputs, "settings", "ipConfiguration") or {}
    if address.get("ipv4Enabled") is not False or not address.get("privateNetwork") or address.get("authorizedNetworks"):
        yield "has a public address"
    if not one.inputs.get("encryptionKeyName"):
        yield "is not encrypted by a key of ours"


def databases_come_back(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Backups, and a log by which any moment is restored."""
    if one.type != DATABASE:
        return
    backup = _at(one.inputs, "settings", "backupConfiguration") or {}
    if backup.get("enabled") is not True:
        yield "has no backups"
    if not (backup.get("binaryLogEnabled") or backup.get("pointInTimeRecoveryEnabled")):
        yield "no moment between two backups can be restored"


def no_default_account(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Google's default accounts may edit the whole project, so nothing runs under one and none is given anything."""
    if one.type in {POOL, CLUSTER}:
        account = str(_at(one.inputs, "nodeConfig", "serviceAccount") or "default")
        if account == "default" or account.endswith(DEFAULT_ACCOUNTS):
            yield "its nodes run under the project's default account"
    yield from (f"grants to {member}, a default account" for member in _members(one) if member.endswith(DEFAULT_ACCOUNTS))


def no_keys_of_accounts(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """A key of a Google account is a password that never ends, and it would stand in Pulumi's state."""
    if one.type in {"gcp:serviceaccount/key:Key", "gcp:storage/hmacKey:HmacKey", "gcp:projects/apiKey:ApiKey"}:
        yield "is a key of an account"


def no_values_of_secrets(one: Resource, stage: str) -> Iterator[str]:  # noqa: ARG001
    """Values are put in by people: what a program writes stands in its state."""
    if one.type in {"gcp:secretmanager/secretVersion:SecretVersion", "gcp:secretmanager/regionalSecretVersion:RegionalSecretVersion"}:
        yield "is a secret's value"
    yield from (f"holds {field}" for field in ("password", "rootPassword") if one.inputs.get(field))


def data_is_protected(one: Resource, stage: str) -> Iterator[str]:
    """What holds data is deleted by nobody by mistake, except in development."""
    if stage == "development" or one.type not in HOLDS_DATA:
        return
    if not one.protected:
        yield "holds data and is not protected"
    if one.type in {CLUSTER, DATABASE} and one.inputs.get("deletionProtection") is not True:
        yield "has no deletion protection"
    if one.type == DATABASE and _at(one.inputs, "settings", "deletionProtectionEnabled") is not True:
        yield "can be deleted in Google's console"


POLICIES: tuple[Policy, ...] = (
    nodes_are_private,
    control_plane_is_private,
    cluster_defends_itself,
    gpu_pools_begin_at_none,
    no_primitive_role,
    workloads_administer_nothing,
    one_account_at_a_time,
    nobody_is_everybody,
    others_rights_stay,
    no_door_for_everybody,
    buckets_are_closed,
    buckets_are_kept,
    databases_are_private,
    databases_come_back,
    no_default_account,
    no_keys_of_accounts,
    no_values_of_secrets,
    data_is_protected,
)


def _at(inputs: Mapping[str, Any], *path: str) -> Any:
    found: Any = inputs
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _members(one: Resource) -> list[str]:
    return [str(member) for member in (one.inputs.get("member"), *(one.inputs.get("members") or ())) if member]
