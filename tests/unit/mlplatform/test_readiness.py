"""Whether something is ready, and why not, in words that help."""

from __future__ import annotations

from typing import Any

import pytest

from mlplatform.cluster.objects import Name
from mlplatform.deploy.readiness import pod_trouble, verdict, verdicts


def deployment(*, generation: int = 1, wanted: int = 2, **status: Any) -> Any:
    spec = {"replicas": wanted}
    about = {"name": "mlflow", "namespace": "mlflow", "generation": generation}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": spec, "status": status}


def whole(**changed: Any) -> dict[str, Any]:
    return {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, **changed}


def condition(kind: str, status: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "message": message}]}


def thing(kind: str, **status: Any) -> Any:
    return {"apiVersion": "x/v1", "kind": kind, "metadata": {"name": "one"}, "status": status}


@pytest.mark.parametrize(
    ("live", "why"),
    [
        (deployment(**whole()), ""),
        (deployment(generation=2, **whole()), "has not been looked at by its controller yet"),
        (deployment(**whole(updatedReplicas=1)), "1 of 2 pods are new"),
        (deployment(**whole(replicas=3)), "1 old pods still run"),
        (deployment(**whole(availableReplicas=0)), "0 of 2 pods are ready"),
        (deployment(**whole(**condition("ReplicaFailure", "True", "exceeded quota: compute"))), "cannot make its pods: exceeded quota: compute"),
        (deployment(wanted=0, observedGeneration=1), ""),
        (thing("CustomResourceDefinition"), "is not established"),
        (thing("CustomResourceDefinition", **condition("Established", "True")), ""),
        (thing("ExternalSecret", **condition("Ready", "False", "secret not found")), "has not been fetched: secret not found"),
        (thing("PersistentVolumeClaim", phase="Pending"), ""),
        (thing("PersistentVolumeClaim", phase="Lost"), "has lost its volume"),
        (thing("ConfigMap"), ""),
    ],
)  # fmt: skip
def test_a_verdict_says_what_is_missing(live: Any, why: str) -> None:
    assert verdict(live).why == why
    assert verdict(live).ready == (why == "")


def test_what_is_not_there_and_what_goes_is_not_ready() -> None:
    gone = deployment(**whole())
    gone["metadata"]["deletionTimestamp"] = "2026-11-29T00:00:00Z"
    missing = Name(api="v1", kind="Service", namespace="mlflow", name="mlflow")
    found = [one.why for one in verdicts([Name.of(gone), missing], {Name.of(gone): gone})]
    assert found == ["is on its way out", "is not there"]


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        ({"spec": {}, "status": {}}, ""),
        ({"spec": {"schedulingGates": [{"name": "gpu-queue.dev/quota"}]}}, "waits at the gate gpu-queue.dev/quota"),
        ({"spec": {}, "status": condition("PodScheduled", "False", "0/2 nodes are available")}, "finds no node: 0/2 nodes are available"),
        ({"spec": {}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}}, "c: ImagePullBackOff: no such image"),
        ({"spec": {}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}}, ""),
        ({"metadata": {"namespace": "n", "name": "p"}, "spec": {}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}, "lastState": {"terminated": {"exitCode": 4, "reason": "Error"}}}]}}, "c: CrashLoopBackOff; it ended with 4 (Error): kubectl -n n logs p -c c --previous"),
    ],
)  # fmt: skip
def test_a_pod_says_why_it_does_not_run(pod: Any, why: str) -> None:
    assert pod_trouble(pod) == why
