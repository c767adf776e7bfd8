"""`gpuq doctor`: a healthy installation has no problem, and each thing that it knows is found, with the next command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import gpu_objects as make
from api_client import Client, Object
from control_plane import ControlPlane
from gpu_team import Team
from gpuqueue import labels
from replicas import Replicas
from typed_gpuq import answer, gpuq
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(120)]

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{make.RELEASE_NAMESPACE}/leases/gpu-queue"


class Patient:
    """A cluster with the queue installed and one team, and what the doctor says of it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.api: Client = plane.client
        self.kubeconfig: Path = plane.kubeconfig

    def findings(self, *levels: str, code: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = answer("doctor", kubeconfig=self.kubeconfig, code=code)
        return [each for each in found if each["level"] in (levels or ("problem", "warning", "unknown"))]

    def hurts(self, text: str, *, level: str = "problem") -> str:
        """The only thing that is wrong; returns the command that is recommended."""
        (found,) = self.findings(code=3 if level == "problem" else 0)
        assert (found["level"], text in found["text"]) == (level, True), found
        return str(found["command"])


@pytest.fixture(scope="module")
def patient(module_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    """Healthy: a controller leads, as far as its lease says, and a pod runs. Each test leaves it healthy."""
    one = Patient(module_plane)
    one.api.apply(make.queue("canaries", lanes=[make.lane(quota=0)]))
    team = Team(one.api, "fraud")
    one.api.apply(make.namespace(team.name))
    team.queue(lanes=[make.lane(quota=8)])
    with Replicas(module_plane, tmp_path_factory.mktemp("replicas")) as replicas:
        team.submit("trainer", 2)
        eventually("a pod starts", lambda: team.is_open("trainer"), 30)
        assert replicas.leader()
    one.api.request("PATCH", LEASE, {"spec": {"holderIdentity": "gpu-queue-0", "leaseDurationSeconds": 3600}})
    return one


def test_each_illness_is_found_alone_and_its_cure_cures(patient: Patient) -> None:
    """One control plane for all of them: each begins and ends with a healthy cluster."""
    api = patient.api
    assert patient.findings() == []
    assert "✓ all 10 guards are there" in gpuq("doctor", kubeconfig=patient.kubeconfig).stdout

    guard = f"{ADMISSION}/validatingadmissionpolicies/gpu-queue-no-bypass"
    kept = api.request("GET", guard)
    api.request("DELETE", guard)
    assert patient.hurts("guards are missing: no-bypass").startswith("helm upgrade --install")
    _again(api, kept)

    gate = f"{ADMISSION}/mutatingadmissionpolicybindings/gpu-queue-gate"
    kept = api.request("GET", gate)
    api.request("DELETE", gate)
    assert patient.hurts("nothing gates GPU pods").startswith("helm upgrade --install")
    _again(api, kept)

    api.request("PATCH", LEASE, {"spec": {"leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"}})
    assert "kubectl logs" in patient.hurts("no controller leads")
    lease = api.request("GET", LEASE)
    api.request("DELETE", LEASE)
    assert "kubectl logs" in patient.hurts("no controller has ever led")
    lease["spec"] |= {"leaseDurationSeconds": 3600, "renewTime": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())}
    _again(api, lease)

    api.apply(make.namespace("lost"))
    assert patient.hurts("namespace lost is managed and in no queue") == "kubectl get gq"
    api.request("PATCH", "/api/v1/namespaces/lost", {"metadata": {"labels": {labels.MANAGED: None}}}, person=make.GLASS_BREAKER)
    api.apply(make.queue("late", namespaces=["lost"], lanes=[make.lane(quota=1)]))
    assert patient.hurts("namespace lost is in queue late and not managed") == f"kubectl label namespace lost {labels.MANAGED}=true"
    api.request("DELETE", "/apis/gpu-queue.dev/v1/gpuqueues/late")
    assert patient.findings() == []


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (make.resource_quota("fraud", gpus=4), "ResourceQuota fraud/gpus allows 4 of requests.nvidia.com/gpu, waiting pods included"),
        (make.deadline_job("fraud", gpus=1), "Job fraud/train is killed 1h after it was made, time in line included"),
        (make.queue("other", namespaces=[], lanes=[make.lane("h100", quota=4)]), "nvidia-h100 promise 4 GPUs; the nodes of now have 0"),
        (make.queue("other", namespaces=[], order="easy", lanes=[make.lane(quota=0)]), "has order easy and no defaultRunLimit"),
        (make.queue("other", namespaces=[], pool={"name": "gone", "maxBorrow": 1}, lanes=[make.lane(quota=0)]), "borrows from gone"),
        (make.in_namespace("fraud", make.pod("lost", gpus=1)), "1 cannot start as they are: fraud/lost (NoLane)"),
    ],
    ids=["quota", "deadline", "nodes", "easy", "pool", "no lane"],
)
def test_what_will_surprise_people_is_a_warning(patient: Patient, thing: Object, text: str) -> None:
    patient.api.apply(thing)
    try:
        assert patient.hurts(text, level="warning")
    finally:
        patient.api.request("DELETE", f"{patient.api.path(thing)}?gracePeriodSeconds=0&propagationPolicy=Background")


def test_jobs_that_do_not_wait_may_have_deadlines(patient: Patient) -> None:
    job = make.deadline_job("fraud", gpus=0)
    patient.api.apply(job)
    assert patient.findings() == []
    patient.api.request("DELETE", f"{patient.api.path(job)}?propagationPolicy=Background")


def test_pods_that_hold_gpus_and_never_met_the_gate_are_counted(patient: Patient) -> None:
    api = patient.api
    api.apply(make.namespace("ads", managed=False))
    api.apply(make.in_namespace("ads", make.pod("early", gpus=1)))
    queue = make.queue("ads", lanes=[make.lane(quota=1)])
    api.apply(queue)
    api.apply(make.namespace("ads"))
    assert "kubectl get pods -A" in patient.hurts("1 pods hold GPUs and never met the gate: ads/early", level="warning")
    api.request("PATCH", "/api/v1/namespaces/ads", {"metadata": {"labels": {labels.MANAGED: None}}}, person=make.GLASS_BREAKER)
    api.request("DELETE", api.path(queue))


def _again(api: Client, thing: Object) -> None:
    """Make anew what was deleted."""
    metadata = {name: value for name, value in thing["metadata"].items() if name in ("name", "namespace", "labels")}
    api.apply({**thing, "metadata": metadata})
