"""Everything of one platform in Google Cloud, in the order in which one thing needs another."""

from __future__ import annotations

import pulumi

from millrace_gke.cluster import cluster
from millrace_gke.databases import databases
from millrace_gke.entrance import entrance
from millrace_gke.ground import lay
from millrace_gke.keys import keys
from millrace_gke.network import network
from millrace_gke.node_pools import node_pools
from millrace_gke.people import people
from millrace_gke.registry import registry
from millrace_gke.secret_containers import secret_containers
from millrace_gke.spending import spend_alert
from millrace_gke.storage import buckets
from millrace_gke.workloads import grant
from mlplatform.environment import Environment

Outputs = dict[str, pulumi.Input[object]]


def build(environment: Environment) -> Outputs:
    """Every resource of the environment; returns what a person or the plan of the cluster asks for afterwards.

    Raises:
        ConfigError: the environment has no `cloud`: there is nothing to make.
    """
    ground = lay(environment)
    net = network(ground)
    key = keys(ground)
    images = registry(ground, key)
    gke = cluster(ground, net, key, images)
    node_pools(ground, gke)
    held = buckets(ground, key)
    bases = databases(ground, net, key, held)
    secrets = secret_containers(ground, key)
    grant(ground, gke, held, secrets)
    people(ground)
    spend_alert(ground)
    return {
        "cluster": gke.cluster.name,
        "context": gke.credentials_command,
        "nodes": gke.nodes.email,
        "addresses": {name: instance.private_ip_address for name, instance in bases.items()},
        **entrance(ground),
    }
