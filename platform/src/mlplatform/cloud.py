"""What an environment says of the cluster and the ground that it stands on: network, GKE, node pools, and in which order GPUs are looked for.

`platform/gke/` makes it; where an environment has no `cloud`, the cluster is there already and `node_pools` tell what it has.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field

from mlserving.settings_file import Strict

NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
"""Of what gets a name in Google and in Kubernetes."""
Name = Annotated[str, Field(pattern=NAME)]
Zone = Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]+-[a-z]$")]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Network(Strict):
    """Address ranges, which must not overlap, and how the control plane is reached."""

    nodes: IPv4Network
    """Of the subnet that nodes, and internal load balancers, get addresses from."""
    pods: IPv4Network
    """Of pods: with 110 pods a node, GKE takes a /24 for each node."""
    services: IPv4Network
    """Of Services inside the cluster."""
    control_plane: IPv4Network
    """Of the private endpoint of the control plane; a /28."""
    private_services: IPv4Network
    """Given to Google for Cloud SQL's private addresses; a /24 or larger."""
    private_nodes: bool = True
    """Nodes without public addresses, which reach out through Cloud NAT. False is for a development environment only."""
    dns_endpoint: bool = True
    """Reach the control plane by its DNS name, where IAM decides who may: no bastion, no VPN."""
    authorized: dict[str, IPv4Network] = Field(default={})
    """Who may reach the control plane by its private address, over a VPN, by a name for each; empty is nobody. There is no public address."""


class Window(Strict):
    """When Google may upgrade the cluster."""

    start: Clock = "02:00"
    """UTC."""
    hours: Annotated[int, Field(ge=4, le=24)] = 6
    days: tuple[Literal["MO", "TU", "WE", "TH", "FR", "SA", "SU"], ...] = ("SA", "SU")
    """At least 48 hours of every 32 days, Google asks."""


class SpendAlert(Strict):
    """Mail to the billing account's administrators. It stops nothing."""

    monthly: Annotated[int, Field(gt=0)]
    """In the billing account's currency."""
    at_percent: tuple[Annotated[int, Field(gt=0, le=200)], ...] = (50, 90, 100)
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    """Of the billing account; Google refuses another."""


class Google(Strict):
    """The Google Cloud project, and the GKE cluster in it."""

    project: Annotated[str, Field(pattern=r"^[a-z][-a-z0-9]{4,28}[a-z0-9]$")]
    """The project's id."""
    number: Annotated[int, Field(gt=0)]
    """The project's number, by which identities are named: `gcloud projects describe PROJECT --format 'value(projectNumber)'`. Both must agree."""
    region: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]+$")]
    zones: Annotated[tuple[Zone, ...], Field(min_length=1)]
    """Of the region, where nodes may be. A pool may name fewer."""
    billing_account: Annotated[str, Field(pattern=r"^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$")]
    channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = "REGULAR"
    """GKE's release channel. Kubernetes 1.36 has the gate of the GPU queue built in; before it a webhook sets it."""
    network: Network
    maintenance: Window = Window()
    spend_alert: SpendAlert
    key_rotation_days: Annotated[int, Field(ge=1, le=365)] = 90
    """Of the KMS key that encrypts Secrets in etcd, disks of databases and buckets."""
    deletion_protection: bool = True
    """Nothing that holds data is destroyed while this is true. False is for a development environment only."""
    labels: dict[Annotated[str, Field(pattern="^[a-z][-_a-z0-9]{0,62}$")], Annotated[str, Field(pattern="^[-_a-z0-9]{0,63}$")]] = Field(
        default={}
    )
    """On every cloud resource, for the bill: `cost_center`, say."""


class Capacity(StrEnum):
    """How nodes are bought."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    FLEX_START = "flex-start"
    RESERVATION = "reservation"


class Gpus(Strict):
    """Of each node of a pool."""

    type: Annotated[str, Field(pattern=NAME)]
    """As the label `cloud.google.com/gke-accelerator` spells it: `nvidia-l4`."""
    count: Annotated[int, Field(ge=1, le=16)] = 1
    driver: Literal["default", "latest"] = "default"
    """Which driver GKE installs."""


class NodePool(Strict):
    """Nodes of one kind, between `min` and `max` of them, over all its zones."""

    machine: str = ""
    """Google's machine type. Empty where the cluster is there already."""
    min: Annotated[int, Field(ge=0)] = 0
    """A GPU pool begins at 0: nobody pays for GPUs that nobody asked for."""
    max: Annotated[int, Field(ge=1, le=1000)]
    disk_gb: Annotated[int, Field(ge=30, le=65536)] = 100
    zones: tuple[Zone, ...] = ()
    """Empty: all of the cluster's. GPUs are in few zones."""
    capacity: Capacity = Capacity.ON_DEMAND
    """`spot` may be taken away within 30 seconds. `flex-start` waits for capacity, keeps it up to seven days, and is cheaper."""
    reservation: Name | None = None
    """The name of a Compute Engine reservation, for capacity `reservation`."""
    run_limit_hours: Annotated[int, Field(ge=1, le=168)] | None = None
    """How long a node lives at most, for `flex-start`."""
    gpu: Gpus | None = None
    labels: dict[str, str] = Field(default={})
    """On its nodes, beside those that we set."""

    @property
    def most_gpus(self) -> int:
        """With every node there."""
        return self.max * self.gpu.count if self.gpu else 0


class ComputeClass(Strict):
    """Where pods that ask for this class are tried, in order: the first pool that can have a node gets it."""

    pools: Annotated[tuple[Name, ...], Field(min_length=1)]
    """For example reserved, then on demand, then flex-start, then spot. All of one GPU type; GKE lets a pool be in one class only."""
    when_none: Literal["wait", "anywhere"] = "wait"
    """`wait` until one of them can; `anywhere` lets GKE choose any node."""
