"""What stands before the first step and after the last: our own namespace, and whose cluster this is.

A cluster holds one environment. The first deployment writes its name down; a deployment of another one is refused, whatever context a kubeconfig
happens to point at.
"""

from __future__ import annotations

from mlplatform.cluster.kubectl import ENVIRONMENT, Cluster, marked
from mlplatform.cluster.objects import Name
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError
from mlplatform.plan.steps import SYSTEM

NAMESPACE = Name(api="v1", kind="Namespace", namespace="", name=SYSTEM)


def holder(cluster: Cluster) -> str:
    """Whose environment the cluster holds; empty if none."""
    there = cluster.get(NAMESPACE)
    return str((there["metadata"].get("labels") or {}).get(ENVIRONMENT, "")) if there else ""


def require(cluster: Cluster, environment: Environment) -> None:
    """That it holds this environment or none.

    Raises:
        ConfigError: it holds another.
    """
    name = holder(cluster)
    if name not in ("", environment.name):
        raise ConfigError(
            f"This cluster holds the environment {name}, and you asked for {environment.name}. Is the context right? kubectl config current-context"
        )


def prepare(cluster: Cluster, environment: Environment) -> None:
    """Make our namespace, with the environment's name on it. Raises as `require` does."""
    require(cluster, environment)
    security = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    thing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": security}}
    mark = marked(thing, environment=environment.name, step="ground")
    if not cluster.change([mark]).nothing:
        cluster.apply([mark])


def context(environment: Environment) -> str:
    """The kubeconfig context of the environment's cluster; empty is the current one."""
    cloud = environment.cloud
    return f"gke_{cloud.project}_{cloud.region}_{environment.name}" if cloud else ""
