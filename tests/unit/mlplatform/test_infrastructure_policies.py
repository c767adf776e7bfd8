"""What must never be in Google Cloud: each rule is shown to fire on a resource that breaks it, and no committed environment breaks one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from clouds import ENVIRONMENTS, SMALL, made, of_kind
from mlplatform.errors import ConfigError
from mlplatform.infrastructure import Resource, refuse, violations
from mlplatform.infrastructure.policies import BUCKET, CLUSTER, DATABASE, POLICIES, POOL

Change = Callable[[dict[str, Any]], object]

KINDS = {CLUSTER: "container.Cluster", POOL: "container.NodePool", BUCKET: "storage.Bucket", DATABASE: "sql.DatabaseInstance"}


def put(path: str, value: object) -> Change:
    *parents, last = path.split(".")

    def change(inputs: dict[str, Any]) -> None:
        for parent in parents:
            inputs = inputs.setdefault(parent, {})
        inputs[last] = value

    return change


def drop(path: str) -> Change:
    *parents, last = path.split(".")

    def change(inputs: dict[str, Any]) -> None:
        for parent in parents:
            inputs = inputs[parent]
        del inputs[last]

    return change


def production(kind: str, change: Change = lambda _: None, *, protected: bool = True) -> Resource:
    """The first of that type in gke-prod, GPU pools first, with one thing changed."""
    found = min(of_kind("gke-prod", KINDS[kind]), key=lambda one: "guestAccelerators" not in one.inputs.get("nodeConfig", {}))
    inputs = copy.deepcopy(dict(found.inputs))
    change(inputs)
    return Resource(type=kind, name=found.name, inputs=inputs, protected=protected)


def folders(change: Change) -> Resource:
    """The model store of gke-prod, with one thing changed."""
    (found,) = (one for one in of_kind("gke-prod", KINDS[BUCKET]) if one.name == "models")
    inputs = copy.deepcopy(dict(found.inputs))
    change(inputs)
    return Resource(type=BUCKET, name=found.name, inputs=inputs, protected=True)


def plain(kind: str, **inputs: object) -> Resource:
    return Resource(type=f"gcp:{kind}", name="x", inputs=inputs)


def grant(role: str, member: str = "group:ml@example.com") -> Resource:
    return plain("projects/iAMMember:IAMMember", role=role, member=member, project="p")


WORKLOAD = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p.svc.id.goog/subject/ns/n/sa/s"

FORBIDDEN: dict[str, tuple[Callable[[], Resource], str]] = {
    "a pool of public nodes": (lambda: production(POOL, put("networkConfig.enablePrivateNodes", False)), "nodes_are_private"),
    "a pool that says nothing of it": (lambda: production(POOL, drop("networkConfig")), "nodes_are_private"),
    "a cluster of public nodes": (lambda: production(CLUSTER, put("privateClusterConfig.enablePrivateNodes", False)), "nodes_are_private"),
    "a public control plane": (lambda: production(CLUSTER, put("privateClusterConfig.enablePrivateEndpoint", False)), "control_plane_is_private"),
    "a control plane for everybody": (lambda: production(CLUSTER, put("masterAuthorizedNetworksConfig.cidrBlocks", [{"cidrBlock": "0.0.0.0/0"}])), "control_plane_is_private"),
    "a control plane for an office": (lambda: production(CLUSTER, put("masterAuthorizedNetworksConfig.cidrBlocks", [{"cidrBlock": "8.8.8.0/24"}])), "control_plane_is_private"),
    "Secrets in the clear": (lambda: production(CLUSTER, put("databaseEncryption.state", "DECRYPTED")), "cluster_defends_itself"),
    "policies that nobody enforces": (lambda: production(CLUSTER, drop("datapathProvider")), "cluster_defends_itself"),
    "nodes that boot anything": (lambda: production(CLUSTER, put("enableShieldedNodes", False)), "cluster_defends_itself"),
    "pods without identity": (lambda: production(CLUSTER, drop("workloadIdentityConfig")), "cluster_defends_itself"),
    "a cluster that nobody upgrades": (lambda: production(CLUSTER, drop("releaseChannel")), "cluster_defends_itself"),
    "GPUs that idle": (lambda: production(POOL, put("autoscaling.totalMinNodeCount", 1)), "gpu_pools_begin_at_none"),
    "GPUs from the first minute": (lambda: production(POOL, put("initialNodeCount", 1)), "gpu_pools_begin_at_none"),
    "GPUs for whoever comes": (lambda: production(POOL, put("nodeConfig.taints", [])), "gpu_pools_begin_at_none"),
    "an owner": (lambda: grant("roles/owner"), "no_primitive_role"),
    "an editor": (lambda: grant("roles/editor"), "no_primitive_role"),
    "a viewer": (lambda: grant("roles/viewer"), "no_primitive_role"),
    "an editor of a bucket": (lambda: plain("storage/bucketIAMBinding:BucketIAMBinding", role="roles/editor", members=["user:a@b.c"]), "no_primitive_role"),
    "a workload that administers": (lambda: grant("roles/storage.admin", WORKLOAD), "workloads_administer_nothing"),
    "a workload that gives objects away": (lambda: grant("roles/storage.objectAdmin", WORKLOAD), "workloads_administer_nothing"),
    "a workload that acts as others": (lambda: grant("roles/iam.serviceAccountTokenCreator", WORKLOAD), "workloads_administer_nothing"),
    "a right for a whole pool": (lambda: grant("roles/storage.objectViewer", "principalSet://iam.googleapis.com/projects/1/x"), "one_account_at_a_time"),
    "a right for no account": (lambda: grant("roles/storage.objectViewer", WORKLOAD.partition("/subject")[0]), "one_account_at_a_time"),
    "a bucket for the world": (lambda: plain("storage/bucketIAMMember:BucketIAMMember", role="roles/storage.objectViewer", member="allUsers"), "nobody_is_everybody"),
    "a secret for everybody with a Google account": (lambda: plain("secretmanager/secretIamBinding:SecretIamBinding", role="r", members=["allAuthenticatedUsers"]), "nobody_is_everybody"),
    "a whole policy": (lambda: plain("projects/iAMPolicy:IAMPolicy", policyData="{}"), "others_rights_stay"),
    "a binding of the project": (lambda: plain("projects/iAMBinding:IAMBinding", role="roles/x", members=[]), "others_rights_stay"),
    "a door for the world": (lambda: plain("compute/firewall:Firewall", allows=[{"protocol": "tcp"}], sourceRanges=["10.0.0.0/8", "0.0.0.0/0"]), "no_door_for_everybody"),
    "a door for the world, IPv6": (lambda: plain("compute/firewall:Firewall", allows=[{"protocol": "tcp"}], sourceRanges=["::/0"]), "no_door_for_everybody"),
    "a door that names nobody": (lambda: plain("compute/firewall:Firewall", allows=[{"protocol": "tcp"}]), "no_door_for_everybody"),
    "a bucket that may become public": (lambda: production(BUCKET, put("publicAccessPrevention", "inherited")), "buckets_are_closed"),
    "objects with rights of their own": (lambda: production(BUCKET, drop("uniformBucketLevelAccess")), "buckets_are_closed"),
    "a list of access": (lambda: plain("storage/bucketACL:BucketACL", bucket="b", predefinedAcl="publicRead"), "buckets_are_closed"),
    "a bucket under Google's key": (lambda: production(BUCKET, drop("encryption")), "buckets_are_kept"),
    "a bucket without versions": (lambda: production(BUCKET, put("versioning.enabled", False)), "buckets_are_kept"),
    "folders whose files are gone at once": (lambda: folders(put("softDeletePolicy.retentionDurationSeconds", 3600)), "buckets_are_kept"),
    "folders that say nothing of it": (lambda: folders(drop("softDeletePolicy")), "buckets_are_kept"),
    "a bucket that goes with its content": (lambda: production(BUCKET, put("forceDestroy", True)), "buckets_are_kept"),
    "a database with a public address": (lambda: production(DATABASE, put("settings.ipConfiguration.ipv4Enabled", True)), "databases_are_private"),
    "a database that says nothing of it": (lambda: production(DATABASE, drop("settings.ipConfiguration.ipv4Enabled")), "databases_are_private"),
    "a database with guests": (lambda: production(DATABASE, put("settings.ipConfiguration.authorizedNetworks", [{"value": "10.0.0.0/8"}])), "databases_are_private"),
    "a database under Google's key": (lambda: production(DATABASE, drop("encryptionKeyName")), "databases_are_private"),
    "a database without backups": (lambda: production(DATABASE, put("settings.backupConfiguration.enabled", False)), "databases_come_back"),
    "a database without a log": (lambda: production(DATABASE, put("settings.backupConfiguration.binaryLogEnabled", False)), "databases_come_back"),
    "nodes under the default account": (lambda: production(POOL, drop("nodeConfig.serviceAccount")), "no_default_account"),
    "nodes under the default account, by name": (lambda: production(POOL, put("nodeConfig.serviceAccount", "1-compute@developer.gserviceaccount.com")), "no_default_account"),
    "a cluster's first nodes under it": (lambda: production(CLUSTER, drop("nodeConfig")), "no_default_account"),
    "a right for a default account": (lambda: grant("roles/storage.objectViewer", "serviceAccount:1-compute@developer.gserviceaccount.com"), "no_default_account"),
    "a key of an account": (lambda: plain("serviceaccount/key:Key", serviceAccountId="x"), "no_keys_of_accounts"),
    "a key that speaks S3": (lambda: plain("storage/hmacKey:HmacKey", serviceAccountEmail="x"), "no_keys_of_accounts"),
    "a secret's value": (lambda: plain("secretmanager/secretVersion:SecretVersion", secret="x", secretData="y"), "no_values_of_secrets"),
    "a user with a password": (lambda: plain("sql/user:User", instance="x", password="y"), "no_values_of_secrets"),
    "a database with a password": (lambda: production(DATABASE, put("rootPassword", "y")), "no_values_of_secrets"),
    "a cluster that can be deleted": (lambda: production(CLUSTER, put("deletionProtection", False)), "data_is_protected"),
    "a bucket that Pulumi may delete": (lambda: production(BUCKET, protected=False), "data_is_protected"),
    "a database that a console may delete": (lambda: production(DATABASE, put("settings.deletionProtectionEnabled", False)), "data_is_protected"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_environment_makes_what_must_never_be(name: str) -> None:
    assert violations(made(name), "production") == []


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_must_never_be_is_found_by_its_rule(case: str) -> None:
    build, rule = FORBIDDEN[case]
    bad = build()
    assert [policy.__name__ for policy in POLICIES if list(policy(bad, "production"))] == [rule]


def test_every_rule_is_shown_to_fire() -> None:
    assert {rule for _, rule in FORBIDDEN.values()} == {policy.__name__ for policy in POLICIES}


def test_a_development_environment_makes_nothing_but_what_development_may() -> None:
    assert violations(made(SMALL), "development") == []
    assert {complaint.partition(": ")[2] for complaint in violations(made(SMALL), "staging")} >= {
        "its nodes have public addresses",
        "holds data and is not protected",
    }


def test_a_complaint_names_the_resource() -> None:
    assert violations([grant("roles/owner")], "production") == [
        "gcp:projects/iAMMember:IAMMember x: grants roles/owner, which is on everything"
    ]


def test_what_must_never_be_is_refused_before_pulumi_is_asked() -> None:
    refuse(made("gke-prod"), "production")
    with pytest.raises(ConfigError, match="this must never be:\n  gcp:projects/iAMMember:IAMMember x: grants roles/owner"):
        refuse([*made("gke-prod"), grant("roles/owner")], "production")


@pytest.mark.parametrize("kind", KINDS)
def test_development_may_have_public_nodes_and_delete_everything_and_nothing_else(kind: str) -> None:
    bare = production(kind, protected=False)
    assert violations([bare], "development") == []
    pool = production(POOL, put("networkConfig.enablePrivateNodes", False))
    assert violations([pool], "development") == []
    assert violations([grant("roles/owner")], "development") != []
    assert violations([production(CLUSTER, put("privateClusterConfig.enablePrivateEndpoint", False))], "development") != []


@pytest.mark.parametrize(
    "rule",
    [
        plain("compute/firewall:Firewall", allows=[{"protocol": "tcp"}], sourceRanges=["10.0.0.0/8"]),
        plain("compute/firewall:Firewall", allows=[{"protocol": "tcp"}], direction="EGRESS"),
        plain("compute/firewall:Firewall", denies=[{"protocol": "all"}], sourceRanges=["0.0.0.0/0"]),
    ],
)
def test_a_firewall_rule_for_few_or_that_forbids_is_fine(rule: Resource) -> None:
    assert violations([rule], "production") == []
