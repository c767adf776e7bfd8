"""Volumes on a node that makes none by itself: each an empty folder that is root's, as a new disk is, which the kubelet gives to the group of the pod that
mounts it first.

`PYTHONPATH=tools python tests/builders/node_disks.py KUBECONFIG OUR_PATH=NODES_PATH` makes those of the environment `laptop` and of Kubeflow Pipelines.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typed_kubectl import kubectl

TEAMS = dict.fromkeys(("fraud", "search", "search-dev"), ("millrace-workspace", "models", "predictions"))
PLATFORM: Mapping[str, tuple[str, ...]] = {
    "databases": ("data-postgresql-0", "postgresql-backup"),
    "mlflow": ("mlflow-artifacts",),
    **TEAMS,
}
"""By namespace, the claims of `laptop`."""
KUBEFLOW: Mapping[str, tuple[str, ...]] = {"kubeflow": ("mysql-pv-claim", "seaweedfs-pvc")}
"""Those of Kubeflow Pipelines, whose pods name no group: anybody may write them."""


def volume(namespace: str, claim: str) -> str:
    """The name of a claim's volume."""
    return f"e2e-{namespace}-{claim}"


def make(kubeconfig: str, ours: Path, nodes: Path, claims: Mapping[str, Iterable[str]], *, mode: int = 0o755) -> list[str]:
    """A volume for each claim, on the first node.

    Args:
        kubeconfig: of somebody who administers the cluster.
        ours: a folder, as we see it.
        nodes: the same, as the node sees it.
        claims: by namespace.
        mode: of each empty folder.

    Returns:
        The names of the volumes.
    """
    node = json.loads(kubectl(kubeconfig, "get", "nodes", "--output=json"))["items"][0]["metadata"]["labels"]["kubernetes.io/hostname"]
    named = [(namespace, claim) for namespace, each in claims.items() for claim in each]
    for namespace, claim in named:
        folder = ours / f"{namespace}-{claim}"
        folder.mkdir(parents=True)
        folder.chmod(mode)
        kubectl(kubeconfig, "apply", "--filename=-", given=_volume(namespace, claim, str(nodes / folder.name), node))
    return [volume(namespace, claim) for namespace, claim in named]


def _volume(namespace: str, claim: str, path: str, node: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume(namespace, claim)},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }


if __name__ == "__main__":
    where, _, seen = sys.argv[2].partition("=")
    for made in (PLATFORM, 0o755), (KUBEFLOW, 0o777):
        print(*make(sys.argv[1], Path(where), Path(seen), made[0], mode=made[1]), sep="\n")
