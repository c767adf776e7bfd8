"""What the API server refuses around the queue, whoever asks, and what it lets the controller do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import gpu_objects as make
from api_client import Client, Person, Refused
from control_plane import ControlPlane
from gpuqueue import labels

QUEUES = f"/apis/{labels.DOMAIN}/v1/gpuqueues"
OPEN_GATE = [{"op": "remove", "path": "/spec/schedulingGates/0"}]
DROP_LABEL = {"metadata": {"labels": {labels.MANAGED: None}}}


@pytest.fixture
def queued(api: Client, managed: str) -> str:
    """The path of a GPU pod that waits at the gate, as one of a group of two."""
    pod = make.pod(gpus=1, schedulingGates=[{"name": "example.com/data-ready"}])
    pod["metadata"]["labels"] = {labels.GROUP: "trial-7"}
    pod["metadata"]["annotations"] = {labels.GROUP_SIZE: "2"}
    api.request("POST", f"/api/v1/namespaces/{managed}/pods", pod)
    return f"/api/v1/namespaces/{managed}/pods/trainer"


def opening(pod: Any) -> list[dict[str, Any]]:
    """How the controller opens a gate: only on this very pod, only our gate."""
    place = [gate["name"] for gate in pod["spec"]["schedulingGates"]].index(labels.GATE)
    return [
        {"op": "test", "path": "/metadata/uid", "value": pod["metadata"]["uid"]},
        {"op": "test", "path": f"/spec/schedulingGates/{place}/name", "value": labels.GATE},
        {"op": "remove", "path": f"/spec/schedulingGates/{place}"},
    ]


def until_refused(attempt: Callable[[], Any], seconds: float = 60) -> Refused:
    """Policies that look at other objects see them through a cache."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            attempt()
        except Refused as no:
            return no
        time.sleep(0.05)
    raise AssertionError("never refused")


def until_allowed(attempt: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except Refused:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# -- pods: everybody else ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", [None, make.ADMIN], ids=["the-admin-certificate", "a-cluster-admin"])
def test_nobody_else_opens_the_gate(api: Client, queued: str, person: Person | None) -> None:
    with pytest.raises(Refused, match=r"only the gpu-queue controller opens gate .*gpuq why trainer -n team-") as no:
        api.request("PATCH", queued, opening(api.request("GET", queued)), patch="json", person=person)
    assert no.value.reason == "Forbidden"


@pytest.mark.parametrize("subresource", ["", "/status"])
def test_nobody_else_takes_the_label_off_or_changes_it(api: Client, queued: str, subresource: str) -> None:
    for change in (DROP_LABEL, {"metadata": {"labels": {labels.MANAGED: "false"}}}):
        with pytest.raises(Refused, match=r"takes label gpu-queue.dev/managed off"):
            api.request("PATCH", queued + subresource, change)


def test_a_gated_pod_cannot_be_bound_to_a_node_by_hand(api: Client, queued: str) -> None:
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "trainer"}, "target": {"kind": "Node", "name": "gpu-0"}}
    with pytest.raises(Refused, match="schedulingGates"):
        api.request("POST", f"{queued}/binding", binding)


def test_other_gates_and_labels_are_free(api: Client, queued: str) -> None:
    theirs = [gate["name"] for gate in api.request("GET", queued)["spec"]["schedulingGates"]].index("example.com/data-ready")
    api.request("PATCH", queued, [{"op": "remove", "path": f"/spec/schedulingGates/{theirs}"}], patch="json")
    changed = api.request("PATCH", queued, {"metadata": {"labels": {"team": "fraud"}}})
    assert changed["spec"]["schedulingGates"] == [{"name": labels.GATE}]
    assert changed["metadata"]["labels"]["team"] == "fraud"


def test_a_queued_pod_can_be_deleted(api: Client, queued: str) -> None:
    api.request("DELETE", queued)
    with pytest.raises(Refused) as no:
        api.request("GET", queued)
    assert no.value.code == 404


@pytest.mark.parametrize("kind", ["labels", "annotations"])
@pytest.mark.parametrize("value", ["3", None])
@pytest.mark.parametrize("person", [None, make.CONTROLLER], ids=["an-admin", "the-controller"])
def test_a_group_stays_as_it_was_created(api: Client, queued: str, kind: str, value: str | None, person: Person | None) -> None:
    key = labels.GROUP if kind == "labels" else labels.GROUP_SIZE
    with pytest.raises(Refused, match=r"stay as they were created|may not change a pod's labels"):
        api.request("PATCH", queued, {"metadata": {kind: {key: value}}}, person=person)


def test_a_pod_does_not_join_a_group_later(api: Client, managed: str) -> None:
    api.request("POST", f"/api/v1/namespaces/{managed}/pods", make.pod(gpus=1))
    with pytest.raises(Refused, match="stay as they were created"):
        api.request("PATCH", f"/api/v1/namespaces/{managed}/pods/trainer", {"metadata": {"labels": {labels.GROUP: "trial-7"}}})


def test_in_an_emergency_the_break_glass_group_opens_a_gate(api: Client, queued: str) -> None:
    opened = api.request("PATCH", queued, opening(api.request("GET", queued)), patch="json", person=make.GLASS_BREAKER)
    assert {"name": labels.GATE} not in opened["spec"]["schedulingGates"]


# -- pods: the controller ---------------------------------------------------------------------------------------------


def test_the_controller_opens_the_gate_and_narrows_the_nodes_in_one_patch(api: Client, queued: str) -> None:
    patch = [*opening(api.request("GET", queued)), {"op": "add", "path": "/spec/nodeSelector", "value": {"pool": "l4"}}]
    opened = api.request("PATCH", queued, patch, patch="json", person=make.CONTROLLER)
    assert opened["spec"]["schedulingGates"] == [{"name": "example.com/data-ready"}]
    assert opened["spec"]["nodeSelector"] == {"pool": "l4"}


def test_opening_a_gate_twice_is_refused_the_second_time(api: Client, queued: str) -> None:
    patch = opening(api.request("GET", queued))
    api.request("PATCH", queued, patch, patch="json", person=make.CONTROLLER)
    with pytest.raises(Refused) as no:
        api.request("PATCH", queued, patch, patch="json", person=make.CONTROLLER)
    assert no.value.code == 422


def test_the_controller_says_in_a_condition_why_a_pod_waits(api: Client, queued: str) -> None:
    condition = {"type": labels.CONDITION, "status": "False", "reason": "Unschedulable", "message": "3rd of 7 in fraud/l4"}
    told = api.request("PATCH", f"{queued}/status", {"status": {"conditions": [condition]}}, patch="strategic", person=make.CONTROLLER)
    assert condition.items() <= next(c for c in told["status"]["conditions"] if c["type"] == labels.CONDITION).items()


FORBIDDEN_TO_THE_CONTROLLER = {
    "an image": {"spec": {"containers": [{"name": "main", "image": "other:v1"}]}},
    "tolerations": {"spec": {"tolerations": [{"key": "spot", "operator": "Exists"}]}},
    "a deadline": {"spec": {"activeDeadlineSeconds": 60}},
    "node affinity": {
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]
                    }
                }
            }
        }
    },
    "a label": {"metadata": {"labels": {"team": "fraud"}}},
    "an annotation": {"metadata": {"annotations": {"note": "hello"}}},
    "a finalizer": {"metadata": {"finalizers": ["example.com/keep"]}},
    "the gate of another": {"spec": {"schedulingGates": [{"$patch": "delete", "name": "example.com/data-ready"}]}},
}


@pytest.mark.parametrize("change", FORBIDDEN_TO_THE_CONTROLLER.values(), ids=FORBIDDEN_TO_THE_CONTROLLER.keys())
def test_the_controller_changes_nothing_else_in_a_pod(api: Client, queued: str, change: dict[str, Any]) -> None:
    api.request("PATCH", f"{queued}?dryRun=All", change, patch="strategic")  # an administrator may
    with pytest.raises(Refused, match="the gpu-queue controller may"):
        api.request("PATCH", queued, change, patch="strategic", person=make.CONTROLLER)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Failed"},
        {"nominatedNodeName": "gpu-0"},
        {"conditions": [{"type": "PodScheduled", "status": "True"}]},
        {"conditions": [{"type": "example.com/theirs", "status": "True"}]},
    ],
    ids=lambda status: next(iter(status)),
)
def test_the_controller_changes_nothing_else_in_a_pods_status(api: Client, queued: str, status: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"may change only condition gpu-queue.dev/Admitted"):
        api.request("PATCH", f"{queued}/status", {"status": status}, patch="strategic", person=make.CONTROLLER)


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("DELETE", "/trainer"), ("PUT", "/trainer"), ("POST", "/trainer/binding")])
def test_the_controllers_role_lets_it_patch_pods_and_nothing_more(api: Client, managed: str, method: str, path: str) -> None:
    with pytest.raises(Refused, match=r"cannot|not allowed") as no:
        api.request(method, f"/api/v1/namespaces/{managed}/pods{path}", make.pod(), person=make.CONTROLLER)
    assert no.value.code == 403


# -- queues and namespaces --------------------------------------------------------------------------------------------


@pytest.fixture
def queue(api: Client, managed: str) -> str:
    """The path of a queue for a namespace, both named alike, with one grant in its ledger."""
    api.request("POST", QUEUES, make.queue(managed))
    write_grants(api, managed, [make.grant(managed)])
    return f"{QUEUES}/{managed}"


def write_grants(api: Client, name: str, grants: list[make.Object], person: Person | None = make.CONTROLLER) -> None:
    stored = api.request("GET", f"{QUEUES}/{name}")
    api.request("PUT", f"{QUEUES}/{name}/status", {**stored, "status": {"grants": grants}}, person=person)


def test_a_queue_with_grants_is_not_deleted(api: Client, queue: str, managed: str) -> None:
    with pytest.raises(Refused, match=rf"queue {managed} has 1 grants, whose GPUs would be forgotten; wait until"):
        api.request("DELETE", queue)
    with pytest.raises(Refused, match="would be forgotten"):
        api.request("DELETE", f"{QUEUES}?fieldSelector=metadata.name={managed}")
    write_grants(api, managed, [])
    api.request("DELETE", queue)


def test_the_kind_is_not_deleted_while_a_queue_has_grants(api: Client, queue: str) -> None:
    kind = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gpuqueues.{labels.DOMAIN}"
    no = until_refused(lambda: api.request("DELETE", f"{kind}?dryRun=All"))
    assert "whose GPUs would be forgotten" in no.message


def test_in_an_emergency_the_break_glass_group_deletes_a_queue_with_grants(api: Client, queue: str) -> None:
    api.request("DELETE", queue, person=make.GLASS_BREAKER)


def test_only_the_controller_writes_the_ledger(api: Client, queue: str, managed: str) -> None:
    with pytest.raises(Refused, match="only the gpu-queue controller writes it"):
        write_grants(api, managed, [], person=make.ADMIN)
    api.request("PATCH", queue, {"status": {"grants": []}})  # the main resource ignores a status
    assert len(api.request("GET", queue)["status"]["grants"]) == 1


def test_the_controller_does_not_write_policy(api: Client, queue: str) -> None:
    with pytest.raises(Refused) as no:
        api.request("PATCH", queue, {"spec": {"order": "easy"}}, person=make.CONTROLLER)
    assert no.value.code == 403


def test_the_ledger_changes_by_compare_and_swap(api: Client, queue: str) -> None:
    stale = api.request("GET", queue)
    fresh = {**stale, "status": {"grants": []}}
    api.request("PUT", f"{queue}/status", fresh, person=make.CONTROLLER)
    with pytest.raises(Refused) as no:
        api.request("PUT", f"{queue}/status", stale, person=make.CONTROLLER)
    assert (no.value.code, no.value.reason) == (409, "Conflict")


def test_a_queue_keeps_a_namespace_whose_pods_hold_gpus(api: Client, queue: str, managed: str) -> None:
    with pytest.raises(Refused, match=f"has grants in {managed}, whose GPUs would be forgotten"):
        api.request("PATCH", queue, {"spec": {"namespaces": ["elsewhere"]}})
    write_grants(api, managed, [])
    api.request("PATCH", queue, {"spec": {"namespaces": [f"{managed}-elsewhere"]}})


def test_a_quota_can_be_cut_while_pods_hold_more(api: Client, queue: str) -> None:
    cut = api.request("PATCH", queue, {"spec": {"lanes": [make.lane(quota=0)]}})
    assert cut["spec"]["lanes"][0]["quota"] == 0


def test_a_namespace_is_in_one_queue(api: Client, queue: str, managed: str) -> None:
    second = make.queue(f"{managed}-second", namespaces=[managed, f"{managed}-more"])
    no = until_refused(lambda: api.request("POST", f"{QUEUES}?dryRun=All", second))
    assert f"namespace {managed} is in queue {managed} already" in no.message


def test_a_namespace_keeps_its_label_while_a_queue_names_it(api: Client, queue: str, managed: str) -> None:
    namespace = f"/api/v1/namespaces/{managed}"
    no = until_refused(lambda: api.request("PATCH", f"{namespace}?dryRun=All", DROP_LABEL))
    assert f"namespace {managed} is in queue {managed}; take it out of spec.namespaces first" in no.message
    api.request("PATCH", namespace, {"metadata": {"labels": {"team": "fraud"}}})  # other labels are free
    write_grants(api, managed, [])
    api.request("DELETE", queue)
    freed = until_allowed(lambda: api.request("PATCH", namespace, DROP_LABEL))
    assert labels.MANAGED not in freed["metadata"]["labels"]


def test_a_namespace_can_be_deleted_whatever_waits_in_it(api: Client, queued: str, managed: str) -> None:
    api.request("DELETE", f"/api/v1/namespaces/{managed}")
    gone = until_refused(lambda: api.request("GET", f"/api/v1/namespaces/{managed}"))
    assert gone.code == 404


@pytest.mark.timeout(180)
def test_where_nobody_sets_the_gate_a_gpu_pod_is_refused_and_never_let_through(own_plane: ControlPlane) -> None:
    api = own_plane.client
    api.apply(make.namespace("careful"))
    pods = "/api/v1/namespaces/careful/pods?dryRun=All"
    api.request("DELETE", "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/gpu-queue-gate")
    seen: list[Any] = []
    no = until_refused(lambda: seen.append(api.request("POST", pods, make.pod(gpus=1))))
    assert "nobody has put this GPU pod behind the gate of its team's queue" in no.message
    assert all(pod["spec"]["schedulingGates"] == [{"name": labels.GATE}] for pod in seen)  # until the deletion was in force everywhere
    assert "schedulingGates" not in api.request("POST", pods, make.pod())["spec"]
    own = make.pod(gpus=1, schedulingGates=[{"name": labels.GATE}])
    with pytest.raises(Refused, match="behind the gate"):  # a gate alone is not enough: the controller would not hear of the pod
        api.request("POST", pods, own)
    api.request("POST", pods, make.pod(gpus=1), person=make.GLASS_BREAKER)
