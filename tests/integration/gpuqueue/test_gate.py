"""Which pods wait at the gate, asked of a real API server: set by the policy, and by the webhook, which must not differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpu_objects as make
from api_client import Client, Object, Refused
from control_plane import ControlPlane
from gpuqueue import labels
from gpuqueue.quantities import gpus_of
from waiting import eventually

GATE = {"name": labels.GATE}


@pytest.fixture(scope="module", params=["policy", "webhook"])
def control_plane(request: pytest.FixtureRequest, control_plane: ControlPlane) -> ControlPlane:
    """Every test here runs with both."""
    return control_plane if request.param == "policy" else request.getfixturevalue("webhook").plane


def create(api: Client, namespace: str, pod: Object) -> Any:
    return api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)


def is_queued(pod: Any) -> bool:
    return GATE in pod["spec"].get("schedulingGates", []) and pod["metadata"].get("labels", {}).get(labels.MANAGED) == "true"


def is_untouched(pod: Any) -> bool:
    return "schedulingGates" not in pod["spec"] and labels.MANAGED not in pod["metadata"].get("labels", {})


def test_a_pod_without_gpus_is_untouched(api: Client, managed: str) -> None:
    assert is_untouched(create(api, managed, make.pod()))


def test_a_stock_argo_pod_waits_at_the_gate_and_keeps_what_it_had(api: Client, managed: str, unmanaged: str) -> None:
    queued, free = create(api, managed, make.argo_pod()), create(api, unmanaged, make.argo_pod())
    assert is_queued(queued)
    assert queued["spec"].pop("schedulingGates") == [GATE]
    assert queued["spec"] == free["spec"]
    assert queued["metadata"]["labels"] == {**free["metadata"]["labels"], labels.MANAGED: "true"}
    assert queued["metadata"]["annotations"] == free["metadata"]["annotations"]


def test_a_gpu_pod_in_an_unmanaged_namespace_is_untouched(api: Client, unmanaged: str) -> None:
    assert is_untouched(create(api, unmanaged, make.pod(gpus=1)))


def test_a_gpu_in_an_init_container_alone_counts(api: Client, managed: str) -> None:
    warm_up = {"name": "warm-up", "image": "trainer:v1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    assert is_queued(create(api, managed, make.pod(initContainers=[warm_up])))


@pytest.mark.parametrize("resource", ["nvidia.com/mig-1g.5gb", "nvidia.com/mig-3g.20gb.shared", "nvidia.com/gpu.shared"])
def test_slices_of_a_gpu_count(api: Client, managed: str, resource: str) -> None:
    assert is_queued(create(api, managed, make.pod(gpus=1, resource=resource)))


def test_the_devices_of_others_do_not(api: Client, managed: str) -> None:
    assert is_untouched(create(api, managed, make.pod(gpus=1, resource="example.com/gpu")))


resources = st.dictionaries(
    st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/new", "example.com/nvidia.com", "cpu"]),
    st.sampled_from(["0", "1", "8", "1k"]),
    max_size=2,
)


@given(containers=st.lists(resources, min_size=1, max_size=3), inits=st.lists(resources, max_size=2), claims=st.integers(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pod_is_queued_exactly_if_the_controller_counts_gpus_in_it(
    api: Client, managed: str, containers: list[dict[str, str]], inits: list[dict[str, str]], claims: int
) -> None:
    pod = make.pod(
        containers=[{"name": f"c{n}", "image": "trainer:v1", "resources": {"limits": held}} for n, held in enumerate(containers)],
        initContainers=[{"name": f"i{n}", "image": "trainer:v1", "resources": {"limits": held}} for n, held in enumerate(inits)],
        resourceClaims=[{"name": f"r{n}", "resourceClaimName": "one"} for n in range(claims)],
    )
    created = api.request("POST", f"/api/v1/namespaces/{managed}/pods?dryRun=All", pod)
    assert is_queued(created) == (gpus_of(created["spec"]) > 0)
    assert is_untouched(created) == (gpus_of(created["spec"]) == 0)


def test_asking_for_no_gpus_in_so_many_words_is_not_asking(api: Client, managed: str) -> None:
    pod = make.pod()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "0"}}
    assert is_untouched(create(api, managed, pod))


def test_a_resource_claim_counts(api: Client, managed: str) -> None:
    claims = [{"name": "gpu", "resourceClaimName": "one-gpu"}]
    assert is_queued(create(api, managed, make.pod(resourceClaims=claims)))


def test_a_pod_that_brings_our_gate_itself_is_labelled_so_that_the_controller_sees_it(api: Client, managed: str) -> None:
    assert is_queued(create(api, managed, make.pod(gpus=1, schedulingGates=[GATE])))


def test_a_pod_that_calls_itself_not_managed_is_queued_all_the_same(api: Client, managed: str) -> None:
    pod = make.pod(gpus=1)
    pod["metadata"]["labels"] = {labels.MANAGED: "false"}
    assert is_queued(create(api, managed, pod))


def test_the_gates_of_others_stay(api: Client, managed: str) -> None:
    theirs = {"name": "example.com/data-ready"}
    created = create(api, managed, make.pod(gpus=1, schedulingGates=[theirs]))
    assert is_queued(created)
    assert theirs in created["spec"]["schedulingGates"]


def test_a_gpu_pod_that_names_its_node_is_refused(api: Client, managed: str) -> None:
    with pytest.raises(Refused, match=r"may not set spec\.nodeName") as no:
        create(api, managed, make.pod(gpus=1, nodeName="gpu-0"))
    assert no.value.reason == "Forbidden"


def test_a_cpu_pod_may_name_its_node(api: Client, managed: str) -> None:
    assert create(api, managed, make.pod(nodeName="gpu-0"))["spec"]["nodeName"] == "gpu-0"


def test_the_pods_of_a_job_are_queued(api: Client, managed: str) -> None:
    template = {"spec": {**make.pod(gpus=1)["spec"], "restartPolicy": "Never"}}
    job = {"metadata": {"name": "train"}, "spec": {"parallelism": 2, "completions": 2, "template": template}}
    api.request("POST", f"/apis/batch/v1/namespaces/{managed}/jobs", job)
    pods = eventually(
        "both pods are there", lambda: len(found := api.request("GET", f"/api/v1/namespaces/{managed}/pods")["items"]) == 2 and found
    )
    assert all(is_queued(pod) for pod in pods)


def test_a_queued_pod_runs_on_a_gpu_node_once_the_controller_has_opened_its_gate(api: Client, managed: str) -> None:
    queued = create(api, managed, make.pod(gpus=1))
    path = f"/api/v1/namespaces/{managed}/pods/trainer"
    waiting = eventually("it has conditions", lambda: (pod := api.request("GET", path))["status"].get("conditions") and pod)
    assert waiting["status"]["conditions"][0]["reason"] == "SchedulingGated"
    opened = [
        {"op": "test", "path": "/metadata/uid", "value": queued["metadata"]["uid"]},
        {"op": "test", "path": "/spec/schedulingGates/0/name", "value": labels.GATE},
        {"op": "remove", "path": "/spec/schedulingGates/0"},
    ]
    api.request("PATCH", path, opened, patch="json", person=make.CONTROLLER)
    running = eventually("it runs", lambda: (pod := api.request("GET", path))["status"]["phase"] == "Running" and pod)
    assert running["spec"]["nodeName"] in {"gpu-0", "gpu-1"}
