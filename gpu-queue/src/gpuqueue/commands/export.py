"""`gpuq export --kueue`: the queues as Kueue's objects, for whoever needs what Kueue does and we do not."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from gpuqueue.cluster.api import Api
from gpuqueue.cluster.gpu_queues import Policy
from gpuqueue.commands import reading
from gpuqueue.errors import ConfigError
from gpuqueue.labels import MANAGED

_VERSION = "kueue.x-k8s.io/v1beta1"
_GPU = "nvidia.com/gpu"

Object = dict[str, Any]


def add_parser(subparsers: Any) -> None:
    """`export`."""
    parser = subparsers.add_parser("export", help="the queues as another system's objects")
    parser.add_argument("--kueue", action="store_true", help="as Kueue's ResourceFlavors, ClusterQueues and LocalQueues")
    reading.add_options(parser)
    parser.set_defaults(question=export)


async def export(api: Api, options: argparse.Namespace) -> int:
    """Answer."""
    if not options.kueue:
        raise ConfigError("say as what: gpuq export --kueue")
    seen = await reading.look(api, options, history=False)
    policies = sorted(seen.view.policies.values(), key=lambda policy: policy.name)
    for remark in remarks(policies):
        print(f"# {remark}")
    print(yaml.safe_dump_all(kueue(policies), sort_keys=False), end="")
    return 0


def kueue(policies: Iterable[Policy]) -> Iterator[Object]:
    """The objects: a flavour for each kind of node, a ClusterQueue for each queue, a LocalQueue for each namespace."""
    policies = list(policies)
    flavors = {_flavor(lane.match): lane.match for policy in policies for lane in policy.spec.lanes}
    for name, match in sorted(flavors.items()):
        yield {"apiVersion": _VERSION, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": {"nodeLabels": match} if match else {}}
    pools = {policy.spec.pool.name for policy in policies if policy.spec.pool}
    for policy in policies:
        yield _cluster_queue(policy, lends=policy.name in pools)
        for namespace in policy.spec.namespaces:
            yield {
                "apiVersion": _VERSION,
                "kind": "LocalQueue",
                "metadata": {"name": "default", "namespace": namespace},
                "spec": {"clusterQueue": policy.name},
            }


def remarks(policies: Iterable[Policy]) -> Iterator[str]:
    """What Kueue's objects cannot say, or say otherwise."""
    yield "Kueue queues what has a queue-name label or an integration for it; pods that Argo makes for Kubeflow need the label in their template."
    yield f"Take label {MANAGED} off a namespace before Kueue looks after it: behind two gates a pod waits twice."
    for policy in policies:
        spec = policy.spec
        lost = [
            *(["EASY order (BestEffortFIFO lets small pods pass for ever)"] if spec.order == "easy" else []),
            *(["the budget"] if spec.budget else []),
            *(["run limits"] if spec.default_run_limit or spec.enforce_run_limit else []),
            *(["the policy for idle GPUs"] if spec.idle else []),
            *(f"the calendar of lane {lane.name}" for lane in spec.lanes if lane.windows),
        ]
        if lost:
            yield f"Queue {policy.name}: left out {', '.join(lost)}."


def _cluster_queue(policy: Policy, *, lends: bool) -> Object:
    spec = policy.spec
    pool = spec.pool
    names = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(spec.namespaces)}
    flavors = [
        {
            "name": _flavor(lane.match),
            "resources": [{"name": _GPU, "nominalQuota": lane.quota, **({"borrowingLimit": pool.max_borrow} if pool else {})}],
        }
        for lane in spec.lanes
    ]
    return {
        "apiVersion": _VERSION,
        "kind": "ClusterQueue",
        "metadata": {"name": policy.name},
        "spec": {
            **({"cohort": pool.name} if pool else {"cohort": policy.name} if lends else {}),
            "queueingStrategy": "StrictFIFO" if spec.order == "strict" else "BestEffortFIFO",
            **({"namespaceSelector": {"matchExpressions": [names]}} if spec.namespaces else {}),  # without one it takes nobody
            "resourceGroups": [{"coveredResources": [_GPU], "flavors": flavors}],
        },
    }


def _flavor(match: dict[str, str]) -> str:
    """Values of labels may hold what names of objects may not."""
    return re.sub("[^a-z0-9.-]", "-", "-".join(match[key].lower() for key in sorted(match))).strip("-.") or "any"
