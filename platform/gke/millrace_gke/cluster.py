"""The GKE cluster: regional, private, reached by a DNS name where IAM decides who may, upgraded by Google in the hours that the environment allows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pulumi_gcp as gcp

from millrace_gke.databases import DAYS
from millrace_gke.ground import Ground
from millrace_gke.keys import Keys
from millrace_gke.network import PODS, SERVICES, Net
from mlplatform import google_names
from mlplatform.cloud import Window

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
"""Of nodes: what they may do is said by roles alone."""
SHIELDED = {"enable_secure_boot": True, "enable_integrity_monitoring": True}
METADATA = {"mode": "GKE_METADATA"}
"""Pods ask GKE who they are, never the node's own metadata."""
LOGS = ["SYSTEM_COMPONENTS", "WORKLOADS"]
METRICS = ["SYSTEM_COMPONENTS", "STORAGE", "POD", "DEPLOYMENT", "STATEFULSET", "DAEMONSET", "HPA", "CADVISOR", "KUBELET"]
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
"""Maintenance windows are counted from the first of their days on or after this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gke:
    """The cluster, and the account that its nodes run under."""

    cluster: gcp.container.Cluster
    nodes: gcp.serviceaccount.Account
    credentials_command: str


def cluster(ground: Ground, net: Net, keys: Keys, images: gcp.artifactregistry.Repository | None) -> Gke:
    """Without nodes: they come in pools."""
    nodes = _node_account(ground, images)
    made = gcp.container.Cluster(
        ground.name,
        name=ground.name,
        location=ground.cloud.region,
        node_locations=list(ground.cloud.zones),
        network=net.network.id,
        subnetwork=net.subnet.id,
        networking_mode="VPC_NATIVE",
        ip_allocation_policy={"cluster_secondary_range_name": PODS, "services_secondary_range_name": SERVICES},
        datapath_provider="ADVANCED_DATAPATH",
        enable_l4_ilb_subsetting=True,
        min_master_version=ground.environment.versions.kubernetes,
        release_channel={"channel": ground.cloud.channel},
        maintenance_policy={"recurring_window": _window(ground.cloud.maintenance)},
        **_reach(ground),
        **_defence(ground, keys),
        **_sight(ground),
        addons_config={
            "gce_persistent_disk_csi_driver_config": {"enabled": True},
            "gcs_fuse_csi_driver_config": {"enabled": True},
            "http_load_balancing": {"disabled": False},
            "horizontal_pod_autoscaling": {"disabled": False},
        },
        gateway_api_config={"channel": "CHANNEL_STANDARD"},
        # Nodes come from pools that the environment names, never from ones that GKE invents.
        cluster_autoscaling={"enabled": False, "autoscaling_profile": "OPTIMIZE_UTILIZATION"},
        # GKE makes no cluster without a first pool: it lives for minutes, under our account and not the project's default one.
        initial_node_count=1,
        remove_default_node_pool=True,
        node_config={
            "service_account": nodes.email,
            "oauth_scopes": SCOPES,
            "shielded_instance_config": SHIELDED,
            "workload_metadata_config": METADATA,
        },
        deletion_protection=ground.cloud.deletion_protection,
        resource_labels=ground.labels,
        # Once that first pool is gone, GKE tells of another pool's nodes here; taken as a change, that would make the cluster anew.
        opts=ground.options(keys.etcd.granted, holds_data=True, ignore=["nodeConfig"]),
    )
    return Gke(cluster=made, nodes=nodes, credentials_command=google_names.credentials_command(ground.environment))


def _node_account(ground: Ground, images: gcp.artifactregistry.Repository | None) -> gcp.serviceaccount.Account:
    """It writes logs and metrics and pulls our images. Whatever a pod needs beyond, its own identity gets."""
    account = gcp.serviceaccount.Account(
        "nodes",
        account_id=google_names.account(ground.environment, "nodes"),
        display_name=f"Nodes of {ground.name}",
        opts=ground.options(),
    )
    member = account.email.apply(lambda email: f"serviceAccount:{email}")
    gcp.projects.IAMMember(
        "nodes", project=ground.cloud.project, role="roles/container.defaultNodeServiceAccount", member=member, opts=ground.options()
    )
    if images is not None:
        gcp.artifactregistry.RepositoryIamMember(
            "nodes",
            repository=images.name,
            location=ground.cloud.region,
            role="roles/artifactregistry.reader",
            member=member,
            opts=ground.options(),
        )
    return account


def _reach(ground: Ground) -> dict[str, Any]:
    """Who reaches nodes and control plane. There is never a public address of the control plane."""
    network = ground.cloud.network
    by_address = bool(network.authorized) or not network.dns_endpoint
    reach: dict[str, Any] = {
        "private_cluster_config": {
            "enable_private_nodes": network.private_nodes,
            "enable_private_endpoint": True,
            "master_ipv4_cidr_block": str(network.control_plane),
        },
        "control_plane_endpoints_config": {
            # Kubernetes' own tokens and certificates are not taken from outside: IAM alone decides.
            "dns_endpoint_config": {
                "allow_external_traffic": network.dns_endpoint,
                "enable_k8s_tokens_via_dns": False,
                "enable_k8s_certs_via_dns": False,
            },
            "ip_endpoints_config": {"enabled": by_address},
        },
    }
    if by_address:
        reach["master_authorized_networks_config"] = {
            "cidr_blocks": [{"cidr_block": str(block), "display_name": name} for name, block in network.authorized.items()],
            "gcp_public_cidrs_access_enabled": False,
            "private_endpoint_enforcement_enabled": True,
        }
    return reach


def _defence(ground: Ground, keys: Keys) -> dict[str, Any]:
    """What keeps one who got in from getting further."""
    defence: dict[str, Any] = {
        "workload_identity_config": {"workload_pool": google_names.workload_pool(ground.cloud)},
        "enable_shielded_nodes": True,
        "enable_legacy_abac": False,
        "master_auth": {"client_certificate_config": {"issue_client_certificate": False}},
        "database_encryption": {"state": "ENCRYPTED", "key_name": keys.etcd.key.id},
        "anonymous_authentication_config": {"mode": "LIMITED"},
        "rbac_binding_config": {
            "enable_insecure_binding_system_authenticated": False,
            "enable_insecure_binding_system_unauthenticated": False,
        },
        "node_pool_defaults": {"node_config_defaults": {"insecure_kubelet_readonly_port_enabled": "FALSE"}},
        "security_posture_config": {"mode": "BASIC", "vulnerability_mode": "VULNERABILITY_DISABLED"},
    }
    if domain := google_names.group_domain(ground.environment):
        defence["authenticator_groups_config"] = {"security_group": f"gke-security-groups@{domain}"}
    return defence


def _sight(ground: Ground) -> dict[str, Any]:
    """Logs always; metrics of Google's only where the environment says that Google watches. Costs by namespace go to the bill."""
    by_google = ground.environment.monitoring.kind == "google"
    gpus = ["DCGM"] if ground.environment.gpus() else []
    return {
        "logging_config": {"enable_components": LOGS},
        "monitoring_config": {
            "enable_components": [*METRICS, *gpus] if by_google else ["SYSTEM_COMPONENTS"],
            "managed_prometheus": {"enabled": by_google},
        },
        "cost_management_config": {"enabled": True},
    }


def _window(wanted: Window) -> dict[str, str]:
    first = MONDAY + timedelta(days=min(DAYS.index(day) for day in wanted.days))
    start = datetime.combine(first, datetime.strptime(wanted.start, "%H:%M").time(), tzinfo=UTC)
    return {
        "start_time": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_time": (start + timedelta(hours=wanted.hours)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "recurrence": f"FREQ=WEEKLY;BYDAY={','.join(wanted.days)}",
    }
