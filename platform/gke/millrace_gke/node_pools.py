"""The pools of the environment. A GPU pool begins at none, keeps other pods away by its taint, and gets its driver from GKE.

Pools keep their names, because compute classes and people say them. What GKE cannot change in a pool is therefore a pool deleted and made anew, with
whatever runs there: a preview says `replace`. Add a pool under another name, move, and take the old one out.
"""

from __future__ import annotations

from typing import Any

import pulumi_gcp as gcp

from millrace_gke.cluster import METADATA, SCOPES, SHIELDED, Gke
from millrace_gke.ground import Ground
from mlplatform.cloud import Capacity, NodePool

POOL = "millrace.dev/pool"
"""On each node: its pool, by the name in the environment."""
CLASS = "cloud.google.com/compute-class"
"""Label and taint by which GKE knows that a pool belongs to a compute class; pods that ask for the class tolerate it by themselves."""
RESERVATION = "compute.googleapis.com/reservation-name"


def node_pools(ground: Ground, gke: Gke) -> None:
    """All of them."""
    for name, pool in ground.environment.node_pools.items():
        zones = list(pool.zones or ground.cloud.zones)
        gcp.container.NodePool(
            name,
            name=name,
            cluster=gke.cluster.id,
            location=ground.cloud.region,
            node_locations=zones,
            # For each zone, and only at birth: afterwards the autoscaler knows.
            initial_node_count=-(-pool.min // len(zones)),
            autoscaling={
                "total_min_node_count": pool.min,
                "total_max_node_count": pool.max,
                "location_policy": "ANY" if pool.gpu or pool.capacity != Capacity.ON_DEMAND else "BALANCED",
            },
            # Flex-start machines end by themselves; one that was repaired would wait for capacity anew.
            management={"auto_repair": pool.capacity != Capacity.FLEX_START, "auto_upgrade": True},
            upgrade_settings=_upgrades(pool),
            network_config={"enable_private_nodes": ground.cloud.network.private_nodes},
            node_config=_node(ground, gke, name, pool),
            opts=ground.options(ignore=["initialNodeCount"], replaced_in_place=True),
        )


def _upgrades(pool: NodePool) -> dict[str, Any] | None:
    """A spare node first; with GPUs there seldom is a spare one. Flex-start nodes are not upgraded, they are followed by newer ones."""
    if pool.capacity == Capacity.FLEX_START:
        return None
    spare = 0 if pool.gpu else 1
    return {"strategy": "SURGE", "max_surge": spare, "max_unavailable": 1 - spare}


def _node(ground: Ground, gke: Gke, name: str, pool: NodePool) -> dict[str, Any]:
    asked = {name: wanted for wanted, about in ground.environment.compute_classes.items() for name in about.pools}
    in_class = {CLASS: asked[name]} if name in asked else {}
    node: dict[str, Any] = {
        "machine_type": pool.machine,
        "disk_size_gb": pool.disk_gb,
        "image_type": "COS_CONTAINERD",
        "service_account": gke.nodes.email,
        "oauth_scopes": SCOPES,
        "metadata": {"disable-legacy-endpoints": "true"},
        "shielded_instance_config": SHIELDED,
        "workload_metadata_config": METADATA,
        "kubelet_config": {"insecure_kubelet_readonly_port_enabled": "FALSE"},
        "gcfs_config": {"enabled": True},
        "gvnic": {"enabled": True},
        "labels": {**pool.labels, POOL: name, **in_class},
        "resource_labels": ground.labels,
        "taints": [{"key": key, "value": value, "effect": "NO_SCHEDULE"} for key, value in in_class.items()],
        **_bought(pool),
    }
    if pool.gpu is not None:
        node["guest_accelerators"] = [
            {
                "type": pool.gpu.type,
                "count": pool.gpu.count,
                "gpu_driver_installation_config": {"gpu_driver_version": pool.gpu.driver.upper()},
            }
        ]
        node["taints"].append({"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"})
    return node


def _bought(pool: NodePool) -> dict[str, Any]:
    """How. Only a pool for a reservation may eat of it."""
    none = {"reservation_affinity": {"consume_reservation_type": "NO_RESERVATION"}}
    match pool.capacity:
        case Capacity.SPOT:
            return {"spot": True, **none}
        case Capacity.FLEX_START:
            limit = {"max_run_duration": f"{pool.run_limit_hours * 3600}s"} if pool.run_limit_hours else {}
            return {"flex_start": True, **limit, **none}
        case Capacity.RESERVATION:
            return {
                "reservation_affinity": {
                    "consume_reservation_type": "SPECIFIC_RESERVATION",
                    "key": RESERVATION,
                    "values": [pool.reservation],
                }
            }
        case _:
            return none
