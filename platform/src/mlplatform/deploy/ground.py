"""What stands before the first step and after the last: our own namespace, and whose cluster this is.

A cluster holds one environment. The first deployment writes its name down; a deployment of another one is refused, whatever context a kubeconfig
happens to point at. Beside it stands the release that the cluster is at, or under way to (`release.Standing`), as annotations that belong to our field
manager: code of a release that did not know them yet takes them away by deploying, and then the cluster is indeed of that release.
"""

from __future__ import annotations

from mlplatform.cluster.kubectl import ENVIRONMENT, Cluster, marked
from mlplatform.cluster.objects import Name, Object
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError
from mlplatform.plan.steps import SYSTEM
from mlplatform.release import UNRECORDED, Standing

NAMESPACE = Name(api="v1", kind="Namespace", namespace="", name=SYSTEM)
_NOTES = {
    "version": "millrace.dev/release",
    "next": "millrace.dev/release-next",
    "since": "millrace.dev/release-since",
    "back_to": "millrace.dev/release-back-to",
    "left": "millrace.dev/release-left",
}
"""The annotation of each field of a `Standing`."""


def holder(cluster: Cluster) -> str:
    """Whose environment the cluster holds; empty if none."""
    return _holder(cluster.get(NAMESPACE))


def standing(cluster: Cluster) -> Standing:
    """Which release it is at."""
    there = cluster.get(NAMESPACE)
    if not _holder(there):
        return Standing()
    notes = (there or {})["metadata"].get("annotations") or {}
    found = Standing.read({field: str(notes.get(key, "")) for field, key in _NOTES.items()})
    return Standing(version=UNRECORDED, back_to=UNRECORDED) if found.nothing else found


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


def require_kubernetes(cluster: Cluster, environment: Environment) -> None:
    """That its Kubernetes is not older than the environment says.

    Raises:
        ConfigError: it is.
    """
    there, wanted = cluster.kubernetes(), environment.versions.kubernetes
    if tuple(map(int, there.split("."))) < tuple(map(int, wanted.split("."))):
        raise ConfigError(
            f"This cluster runs Kubernetes {there}, and versions.kubernetes asks for {wanted} at least. Upgrade the cluster, or write {there} there."
        )


def note(cluster: Cluster, environment: Environment, at: Standing) -> None:
    """Make our namespace, if it is not there, with the environment's name and the release on it; nothing is written where it says so already.

    Raises:
        ConfigError: the cluster holds another environment.
    """
    require(cluster, environment)
    security = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    notes = {_NOTES[field]: text for field, text in at.texts().items() if text}
    thing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": security, "annotations": notes}}
    mark = marked(thing, environment=environment.name, step="ground")
    if not cluster.change([mark]).nothing:
        cluster.apply([mark])


def _holder(there: Object | None) -> str:
    return str((there["metadata"].get("labels") or {}).get(ENVIRONMENT, "")) if there else ""


def context(environment: Environment) -> str:
    """The kubeconfig context of the environment's cluster; empty is the current one."""
    cloud = environment.cloud
    return f"gke_{cloud.project}_{cloud.region}_{environment.name}" if cloud else ""
