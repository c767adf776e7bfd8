"""What the program in platform/gke decides nothing about: everything it makes is what the environment says, and comes in an order that Google accepts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from clouds import ENVIRONMENTS, EVERY, SMALL, environment, made, of_kind, one
from mlplatform import google_names
from mlplatform.cloud import Capacity, Google
from mlplatform.identities import Right, identities
from mlplatform.infrastructure.offline import PROGRAM
from mlplatform.plan.credentials import in_secret_manager

ROLES = {
    Right.READ: {"roles/storage.objectViewer"},
    Right.WRITE: {"roles/storage.objectUser"},
    Right.ADD: {"roles/storage.objectViewer", "roles/storage.objectCreator"},
}


AS_PULUMI_DOES = """
import runpy
from pulumi.runtime import get_root_resource, mocks
from millrace_gke.offline import Answers
mocks.set_mocks(Answers(), project="millrace", stack="gke-staging")
mocks.test(lambda: runpy.run_path(".", run_name="__main__") and None)()
print(*sorted(get_root_resource().outputs))
"""


def cloud(name: str) -> Google:
    found = environment(name).cloud
    assert found is not None
    return found


def node(name: str, pool: str) -> Any:
    return one(name, "container.NodePool", pool).inputs["nodeConfig"]


@pytest.mark.parametrize("name", EVERY)
def test_everything_is_made_in_the_environments_project_after_its_apis_are_on(name: str) -> None:
    apis = {found.name for found in of_kind(name, "projects.Service")}
    for found in made(name):
        assert found.inputs.get("project", cloud(name).project) == cloud(name).project
        if found.name not in apis:
            assert apis <= set(found.after), f"{found.type} {found.name}"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_account_reaches_the_buckets_that_its_component_needs_and_no_others(name: str) -> None:
    wanted = {
        (google_names.principal(cloud(name), identity), dict(environment(name).storage.buckets or {})[purpose], role)
        for identity in identities(environment(name))
        for purpose, right in identity.buckets
        for role in ROLES[right]
    }
    granted = {
        (found.inputs["member"], found.inputs["bucket"], found.inputs["role"])
        for found in of_kind(name, "storage.BucketIAMMember")
        if found.inputs["member"].startswith("principal://")
    }
    assert granted == wanted


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_nothing_is_granted_to_a_workload_before_the_cluster_has_made_the_pool_of_identities(name: str) -> None:
    for found in made(name):
        if str(found.inputs.get("member")).startswith("principal://"):
            assert name in found.after, f"{found.type} {found.name}"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_credential_has_an_empty_container_that_only_the_secrets_operator_reads(name: str) -> None:
    held = {found.inputs["secretId"] for found in of_kind(name, "secretmanager.Secret")}
    assert held == {google_names.secret(environment(name), one) for one in in_secret_manager(environment(name))}
    readers = of_kind(name, "secretmanager.SecretIamMember")
    assert {found.inputs["secretId"] for found in readers} == held
    assert {found.inputs["member"].rpartition("/subject/")[2] for found in readers} == {"ns/external-secrets/sa/external-secrets"}


@pytest.mark.parametrize("name", EVERY)
def test_pools_are_those_of_the_environment(name: str) -> None:
    wanted = environment(name).node_pools
    assert {found.name for found in of_kind(name, "container.NodePool")} == set(wanted)
    for called, pool in wanted.items():
        found = one(name, "container.NodePool", called).inputs
        assert found["nodeLocations"] == list(pool.zones or cloud(name).zones)
        assert (found["autoscaling"]["totalMinNodeCount"], found["autoscaling"]["totalMaxNodeCount"]) == (pool.min, pool.max)
        assert found["nodeConfig"]["machineType"] == pool.machine
        assert found["nodeConfig"].get("spot", False) is (pool.capacity == Capacity.SPOT)
        assert found["nodeConfig"].get("flexStart", False) is (pool.capacity == Capacity.FLEX_START)
        assert found["management"]["autoRepair"] is (pool.capacity != Capacity.FLEX_START)


def test_only_the_pool_of_a_reservation_eats_of_it() -> None:
    kinds = {pool: node("gke-prod", pool)["reservationAffinity"]["consumeReservationType"] for pool in environment("gke-prod").node_pools}
    assert {pool for pool, kind in kinds.items() if kind != "NO_RESERVATION"} == {"l4-reserved"}
    assert node("gke-prod", "l4-reserved")["reservationAffinity"]["values"] == ["ml-l4"]


def test_a_flex_start_node_ends_when_the_environment_says() -> None:
    assert node("gke-prod", "a100-flex")["maxRunDuration"] == f"{72 * 3600}s"


def test_a_pool_of_a_class_says_so_by_label_and_taint() -> None:
    for pool in ("l4-reserved", "l4", "l4-spot"):
        assert node("gke-prod", pool)["labels"]["cloud.google.com/compute-class"] == "l4"
        keys = {taint["key"]: taint["value"] for taint in node("gke-prod", pool)["taints"]}
        assert keys == {"cloud.google.com/compute-class": "l4", "nvidia.com/gpu": "present"}
    assert node("gke-prod", "work")["taints"] == []


def test_a_cluster_of_regional_pools_begins_with_as_few_nodes_as_its_zones_allow() -> None:
    assert one("gke-prod", "container.NodePool", "system").inputs["initialNodeCount"] == 1
    assert one("gke-prod", "container.NodePool", "work").inputs["initialNodeCount"] == 0


@pytest.mark.parametrize(("name", "kind"), [("gke-prod", "REGIONAL"), ("gke-staging", "ZONAL")])
def test_a_second_zone_stands_by_where_the_environment_pays_for_it(name: str, kind: str) -> None:
    for engine in google_names.Engine:
        assert one(name, "sql.DatabaseInstance", engine).inputs["settings"]["availabilityType"] == kind


def test_a_database_waits_for_its_private_addresses_and_its_key() -> None:
    for engine in google_names.Engine:
        assert {"private-services", "databases"} <= set(one("gke-prod", "sql.DatabaseInstance", engine).after)


def test_a_database_adds_dumps_and_reads_them_and_takes_none_away() -> None:
    granted = {
        (found.inputs["member"], found.inputs["role"])
        for found in of_kind("gke-prod", "storage.BucketIAMMember")
        if found.inputs["bucket"] == "millrace-prod-backups"
    }
    accounts = {f"serviceAccount:<serviceAccountEmailAddress of {engine}>" for engine in google_names.Engine}
    assert granted == {(account, role) for account in accounts for role in ROLES[Right.ADD]}


def test_databases_are_known_by_name_in_the_platforms_network() -> None:
    names = {found.inputs["name"] for found in of_kind("gke-prod", "dns.RecordSet")}
    assert (
        names
        == {f"{google_names.host(engine)}." for engine in google_names.Engine}
        == {"mysql.millrace.internal.", "postgresql.millrace.internal."}
    )


def test_what_is_encrypted_waits_until_its_service_may_use_the_key() -> None:
    for kind, called, key in (("container.Cluster", "gke-prod", "etcd"), ("storage.Bucket", "models", "buckets")):
        assert key in one("gke-prod", kind, called).after


def test_maintenance_begins_on_the_first_of_its_days_and_ends_after_its_hours() -> None:
    def window(name: str) -> Any:
        return of_kind(name, "container.Cluster")[0].inputs["maintenancePolicy"]["recurringWindow"]

    assert window("gke-prod") == {
        "startTime": "2024-01-06T02:00:00Z",
        "endTime": "2024-01-06T08:00:00Z",
        "recurrence": "FREQ=WEEKLY;BYDAY=SA,SU",
    }
    assert window(SMALL) == {
        "startTime": "2024-01-02T23:30:00Z",
        "endTime": "2024-01-03T07:30:00Z",
        "recurrence": "FREQ=WEEKLY;BYDAY=WE,TU",
    }


def test_the_control_plane_is_reached_as_the_environment_says_and_never_by_a_public_address() -> None:
    by_name, by_address = (of_kind(name, "container.Cluster")[0].inputs for name in ("gke-prod", SMALL))
    assert by_name["controlPlaneEndpointsConfig"]["ipEndpointsConfig"] == {"enabled": False}
    assert by_name["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["allowExternalTraffic"] is True
    assert "masterAuthorizedNetworksConfig" not in by_name
    assert by_address["controlPlaneEndpointsConfig"]["ipEndpointsConfig"] == {"enabled": True}
    assert by_address["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["allowExternalTraffic"] is False
    assert by_address["masterAuthorizedNetworksConfig"]["cidrBlocks"] == [{"cidrBlock": "10.99.0.0/16", "displayName": "vpn"}]
    assert by_address["privateClusterConfig"] == {
        "enablePrivateNodes": False,
        "enablePrivateEndpoint": True,
        "masterIpv4CidrBlock": "172.16.1.0/28",
    }


def test_what_is_elsewhere_is_not_made() -> None:
    kinds = {found.type.rpartition(":")[2] for found in made(SMALL)}
    assert not kinds & {"DatabaseInstance", "ManagedZone", "Secret", "Repository", "Certificate", "WebIamMember"}
    watched = of_kind(SMALL, "container.Cluster")[0].inputs["monitoringConfig"]
    assert watched == {"enableComponents": ["SYSTEM_COMPONENTS"], "managedPrometheus": {"enabled": False}}


def test_the_key_of_buckets_is_where_the_buckets_are() -> None:
    assert {found.inputs["location"] for found in of_kind(SMALL, "kms.KeyRing")} == {"europe-west4", "europe"}
    assert {found.inputs["location"] for found in of_kind(SMALL, "storage.Bucket")} == {"EU"}
    assert {found.inputs["location"] for found in of_kind("gke-prod", "kms.KeyRing")} == {"europe-west4"}


def test_people_of_a_team_reach_the_door_and_only_the_infra_team_administers() -> None:
    prod = environment("gke-prod")
    granted = {(found.inputs["member"], found.inputs["role"]) for found in of_kind("gke-prod", "projects.IAMMember")}
    assert {member for member, role in granted if role == "roles/container.admin"} == set(prod.access.admins)
    assert {member for member, role in granted if role == "<name of cluster-user>"} == set(google_names.members(prod))
    assert one("gke-prod", "projects.IAMCustomRole", "cluster-user").inputs["permissions"] == [
        "container.clusters.connect",
        "container.clusters.get",
        "container.clusters.list",
    ]


def test_the_stack_is_named_after_its_environment_and_tells_what_is_asked_for_afterwards() -> None:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AS_PULUMI_DOES], cwd=PROGRAM, capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == ["addresses", "cluster", "context", "nodes", "pages_address", "proof_of_domain"]
