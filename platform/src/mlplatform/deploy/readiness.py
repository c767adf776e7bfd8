"""Whether an object is ready, and if not, why, in words that help. Pure: live objects go in, verdicts come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlplatform.cluster.objects import Name, Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """On one object."""

    name: Name
    ready: bool
    why: str = ""
    """Empty where it is ready."""


def verdict(thing: Object) -> Verdict:
    """On a live object."""
    judge = _JUDGES.get(str(thing["kind"]))
    why = "is on its way out" if thing["metadata"].get("deletionTimestamp") else judge(thing) if judge else ""
    return Verdict(name=Name.of(thing), ready=not why, why=why)


def verdicts(wanted: Iterable[Name], live: Mapping[Name, Object]) -> Iterator[Verdict]:
    """On each that is wanted, whether it is there or not."""
    for name in wanted:
        thing = live.get(name)
        yield verdict(thing) if thing is not None else Verdict(name=name, ready=False, why="is not there")


def _workload(thing: Object) -> str:
    spec, status = thing["spec"], thing.get("status", {})
    wanted = int(spec.get("replicas", 1))
    conditions = _conditions(thing)
    if int(status.get("observedGeneration", 0)) < int(thing["metadata"].get("generation", 1)):
        return "has not been looked at by its controller yet"
    if (failure := conditions.get("ReplicaFailure")) and failure["status"] == "True":
        return f"cannot make its pods: {failure.get('message', '')}"
    updated = int(status.get("updatedReplicas", 0))
    able = int(status.get("availableReplicas", status.get("readyReplicas", 0)))
    if updated < wanted:
        return f"{updated} of {wanted} pods are new"
    if int(status.get("replicas", 0)) > wanted and thing["kind"] == "Deployment":
        return f"{int(status['replicas']) - wanted} old pods still run"
    return f"{able} of {wanted} pods are ready" if able < wanted else ""


def _daemons(thing: Object) -> str:
    status = thing.get("status", {})
    wanted, able = int(status.get("desiredNumberScheduled", 0)), int(status.get("numberAvailable", 0))
    return f"{able} of {wanted} pods are ready" if able < wanted else ""


def _condition(kind: str, what: str) -> Callable[[Object], str]:
    """Of an object that is ready when it says so itself."""

    def judge(thing: Object) -> str:
        found = _conditions(thing).get(kind)
        if found is not None and found["status"] == "True":
            return ""
        return f"{what}: {found.get('message') or found.get('reason') or 'no reason given'}" if found else what

    return judge


def _claim(thing: Object) -> str:
    """A claim without a pod may well wait for its first: only a lost one is trouble."""
    return "has lost its volume" if thing.get("status", {}).get("phase") == "Lost" else ""


def _conditions(thing: Object) -> dict[str, Mapping[str, Any]]:
    return {str(each["type"]): each for each in thing.get("status", {}).get("conditions") or []}


_JUDGES: Mapping[str, Callable[[Object], str]] = {
    "Deployment": _workload,
    "StatefulSet": _workload,
    "DaemonSet": _daemons,
    "CustomResourceDefinition": _condition("Established", "is not established"),
    "ExternalSecret": _condition("Ready", "has not been fetched"),
    "ClusterSecretStore": _condition("Ready", "does not let us in"),
    "Gateway": _condition("Programmed", "is not programmed"),
    "PersistentVolumeClaim": _claim,
}


def pod_trouble(pod: Object) -> str:
    """Why a pod is not ready; empty if it is, or if it is just starting."""
    status = pod.get("status", {})
    if gates := pod["spec"].get("schedulingGates"):
        return f"waits at the gate {', '.join(gate['name'] for gate in gates)}"
    conditions = _conditions(pod)
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled["status"] == "False":
        return f"finds no node: {scheduled.get('message', '')}"
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting, last = container.get("state", {}).get("waiting"), container.get("lastState", {}).get("terminated")
        if waiting and waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            told = f"{container['name']}: {waiting['reason']}"
            if not last:
                return f"{told}: {waiting['message']}" if waiting.get("message") else told
            about = pod.get("metadata", {})
            look = f"kubectl -n {about.get('namespace')} logs {about.get('name')} -c {container['name']} --previous"
            return f"{told}; it ended with {last.get('exitCode')} ({last.get('reason')}): {look}"
    return ""
