"""A network of the platform's own: nodes, pods and Services each in their range, out through Cloud NAT, and a range lent to Cloud SQL.

There is no firewall rule of ours. A network made so lets nothing in; GKE opens what its own load balancers and control plane need.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi_gcp as gcp

from millrace_gke.ground import Ground

PODS, SERVICES = "pods", "services"
"""The subnet's secondary ranges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """What others are put into."""

    network: gcp.compute.Network
    subnet: gcp.compute.Subnetwork
    lent: gcp.servicenetworking.Connection
    """There before an instance of Cloud SQL can have a private address."""
    lent_range: gcp.compute.GlobalAddress


def network(ground: Ground) -> Net:
    """The network and what it needs to reach out."""
    net = gcp.compute.Network(ground.name, name=ground.name, auto_create_subnetworks=False, routing_mode="REGIONAL", opts=ground.options())
    subnet = _subnet(ground, net)
    _way_out(ground, net)
    lent_range = gcp.compute.GlobalAddress(
        "private-services",
        name=f"{ground.name}-private-services",
        purpose="VPC_PEERING",
        address_type="INTERNAL",
        network=net.id,
        address=str(ground.cloud.network.private_services.network_address),
        prefix_length=ground.cloud.network.private_services.prefixlen,
        opts=ground.options(),
    )
    lent = gcp.servicenetworking.Connection(
        "private-services",
        network=net.id,
        service="servicenetworking.googleapis.com",
        reserved_peering_ranges=[lent_range.name],
        # Google takes the peering down days after the last database has gone, and refuses before.
        deletion_policy="ABANDON",
        opts=ground.options(),
    )
    return Net(network=net, subnet=subnet, lent=lent, lent_range=lent_range)


def _subnet(ground: Ground, net: gcp.compute.Network) -> gcp.compute.Subnetwork:
    ranges = ground.cloud.network
    return gcp.compute.Subnetwork(
        "nodes",
        name=f"{ground.name}-nodes",
        network=net.id,
        region=ground.cloud.region,
        ip_cidr_range=str(ranges.nodes),
        secondary_ip_ranges=[
            {"range_name": PODS, "ip_cidr_range": str(ranges.pods)},
            {"range_name": SERVICES, "ip_cidr_range": str(ranges.services)},
        ],
        private_ip_google_access=True,
        log_config={"aggregation_interval": "INTERVAL_10_MIN", "flow_sampling": 0.1, "metadata": "INCLUDE_ALL_METADATA"},
        opts=ground.options(),
    )


def _way_out(ground: Ground, net: gcp.compute.Network) -> None:
    router = gcp.compute.Router("out", name=f"{ground.name}-out", network=net.id, region=ground.cloud.region, opts=ground.options())
    gcp.compute.RouterNat(
        "out",
        name=f"{ground.name}-out",
        router=router.name,
        region=ground.cloud.region,
        nat_ip_allocate_option="AUTO_ONLY",
        source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
        # 64 ports, the fixed default, are soon gone where a node pulls images for many pods.
        enable_dynamic_port_allocation=True,
        enable_endpoint_independent_mapping=False,
        min_ports_per_vm=64,
        max_ports_per_vm=4096,
        log_config={"enable": True, "filter": "ERRORS_ONLY"},
        opts=ground.options(),
    )
