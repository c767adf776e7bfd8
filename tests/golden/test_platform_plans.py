"""What each environment puts into its cluster: the plan, whole, and what its charts render, held to what must always be so."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import binaries
from mlpipelines.pipeline import CLAIMS, MOUNTS_BUCKETS
from mlplatform.cluster.objects import Name
from mlplatform.cluster.rendering import Renderer
from mlplatform.environment import read_environment
from mlplatform.identities import identities
from mlplatform.plan.order import plan
from mlplatform.plan.steps import Step
from mlplatform.plan.values import METADATA
from platform_plans import ENVIRONMENTS, GOLDEN, ROOT, written

PROGRAMS = ["helm", "kubectl"]
needs_helm = [
    pytest.mark.control_plane,
    pytest.mark.skipif(not binaries.ready(PROGRAMS) and shutil.which("go") is None, reason=f"no helm: type `{binaries.COMMAND}`"),
]
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_plan_is_what_was_reviewed(name: str) -> None:
    assert written(name) == (GOLDEN / f"{name}.yaml").read_text(), "make golden, and read the difference"


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def environment_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def things(environment_name: str) -> Iterator[list[tuple[Step, Any]]]:
    """Everything that the environment's charts and kustomizations render without a network."""
    programs = binaries.paths(PROGRAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([*(str(path.parent) for path in programs.values()), os.environ["PATH"]]))
        environment = read_environment(ENVIRONMENTS[environment_name])
        renderer = Renderer(root=ROOT, kubernetes=environment.versions.kubernetes, offline=True)
        yield [(step, thing) for step in plan(environment) for thing in renderer.objects(step) or []]


def pods(things: list[tuple[Step, Any]]) -> Iterator[tuple[str, str, Any]]:
    """Each workload's name, namespace and pod."""
    for _, thing in things:
        if thing["kind"] in WORKLOADS:
            spec = thing["spec"]["jobTemplate"]["spec"] if thing["kind"] == "CronJob" else thing["spec"]
            yield Name.of(thing).shown, thing["metadata"]["namespace"], spec["template"]


@dataclass(frozen=True)
class Place:
    """Files that a pod mounts: a claim, or a bucket, and the folder in it."""

    name: str
    folder: str


def places(pod: Any) -> Iterator[Place]:
    """What of teams' files a pod mounts."""
    known = {}
    for volume in pod["spec"].get("volumes", []):
        if "persistentVolumeClaim" in volume:
            known[volume["name"]] = volume["persistentVolumeClaim"]["claimName"]
        elif "csi" in volume:
            known[volume["name"]] = volume["csi"]["volumeAttributes"]["bucketName"]
    for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] in known:
                yield Place(known[mount["name"]], mount.get("subPath", ""))


class TestWhatIsRendered:
    pytestmark = needs_helm

    def test_each_object_has_one_owner(self, things: list[tuple[Step, Any]]) -> None:
        owners = Counter(Name.of(thing) for _, thing in things)
        assert {name.shown for name, times in owners.items() if times > 1} == set()

    def test_every_object_of_a_namespace_is_in_one_that_the_foundation_makes(self, things: list[tuple[Step, Any]]) -> None:
        made = {thing["metadata"]["name"] for _, thing in things if thing["kind"] == "Namespace"} | {"millrace-system"}
        made |= {"gmp-public"}  # Google's own
        assert {thing["metadata"].get("namespace") for _, thing in things} - {None} <= made

    def test_a_namespace_says_how_safe_its_pods_are_and_lets_nobody_speak(self, things: list[tuple[Step, Any]]) -> None:
        namespaces = [thing["metadata"] for _, thing in things if thing["kind"] == "Namespace"]
        denied = {
            thing["metadata"]["namespace"]
            for _, thing in things
            if thing["kind"] == "NetworkPolicy" and thing["metadata"]["name"] == "default-deny" and not thing["spec"].get("ingress")
        }
        limited = {thing["metadata"]["namespace"] for _, thing in things if thing["kind"] == "LimitRange"}
        assert {about["name"] for about in namespaces} == denied == limited
        assert all(about["labels"]["pod-security.kubernetes.io/warn"] == "restricted" for about in namespaces)
        assert all(about["labels"]["pod-security.kubernetes.io/enforce"] in {"restricted", "baseline"} for about in namespaces)

    def test_our_pods_are_restricted_and_say_what_they_need(self, things: list[tuple[Step, Any]]) -> None:
        for name, _, pod in pods(things):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"], name
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                assert not container["securityContext"]["allowPrivilegeEscalation"], name
                assert container["securityContext"]["readOnlyRootFilesystem"], name
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
                assert "memory" in container["resources"]["limits"], name

    def test_a_policy_of_its_own_speaks_for_every_pod(self, things: list[tuple[Step, Any]]) -> None:
        policies = [
            (thing["metadata"]["namespace"], thing["spec"]["podSelector"].get("matchLabels"))
            for _, thing in things
            if thing["kind"] == "NetworkPolicy" and thing["metadata"]["name"] != "default-deny"
        ]
        for name, namespace, pod in pods(things):
            marks = pod["metadata"]["labels"].items()
            assert any(where == namespace and chosen and chosen.items() <= marks for where, chosen in policies), name

    def test_no_secret_has_a_value(self, things: list[tuple[Step, Any]]) -> None:
        for _, thing in things:
            if thing["kind"] == "Secret":
                assert "data" not in thing
                told = {"username", "url", "workspace"} if thing["metadata"]["name"].startswith("registry-") else {"username"}
                assert all("{{ ." in text for key, text in thing["stringData"].items() if key not in told)

    def test_an_account_that_the_cloud_knows_is_one_that_a_chart_makes(self, environment_name: str, things: list[tuple[Step, Any]]) -> None:
        made = {(thing["metadata"]["namespace"], thing["metadata"]["name"]) for _, thing in things if thing["kind"] == "ServiceAccount"}
        fetched = {"kubeflow", "external-secrets"}
        wanted = {(i.namespace, i.account) for i in identities(read_environment(ENVIRONMENTS[environment_name]))}
        assert {account for account in wanted if account[0] not in fetched} <= made

    def test_runs_servers_gateways_and_triggers_find_each_others_files(self, environment_name: str, things: list[tuple[Step, Any]]) -> None:
        environment = read_environment(ENVIRONMENTS[environment_name])
        claims = {
            (thing["metadata"]["namespace"], thing["metadata"]["name"]): thing["spec"]
            for _, thing in things
            if thing["kind"] == "PersistentVolumeClaim"
        }
        volumes = {thing["metadata"]["name"]: thing["spec"] for _, thing in things if thing["kind"] == "PersistentVolume"}
        mounted = {each.name for _, _, pod in pods(things) for each in places(pod)}
        for namespace in (each for team in environment.teams.values() for each in team.namespaces):
            for claim in CLAIMS.values():
                assert (namespace, claim) in claims, "steps of the pipeline mount it"
                if environment.storage.buckets is not None:
                    volume = volumes[claims[namespace, claim]["volumeName"]]
                    bucket = dict(environment.storage.buckets)[claim.removeprefix("millrace-")]
                    assert volume["csi"]["volumeHandle"].partition(":")[0] == bucket
                    assert (f"only-dir={namespace}" in volume["mountOptions"]) == (claim == "millrace-workspace")
                    assert volume["claimRef"] == {"namespace": namespace, "name": claim}
        assert len({volume["csi"]["volumeHandle"] for volume in volumes.values()}) == len(volumes), (
            "the kubelet takes those of one handle for one"
        )
        inside = environment.storage.buckets is None
        wanted = {"models", "predictions"} if inside else {environment.storage.buckets.models, environment.storage.buckets.predictions}
        assert mounted >= wanted
        assert {each.folder for _, _, pod in pods(things) for each in places(pod) if each.name in wanted} == {""}

    def test_a_pod_that_mounts_a_bucket_has_the_annotation_and_reaches_the_metadata_server(self, things: list[tuple[Step, Any]]) -> None:
        buckets = {
            (thing["metadata"]["namespace"], thing["metadata"]["name"])
            for _, thing in things
            if thing["kind"] == "PersistentVolumeClaim" and thing["spec"].get("volumeName")
        }
        policies = [(thing["metadata"]["namespace"], thing["spec"]) for _, thing in things if thing["kind"] == "NetworkPolicy"]
        for name, namespace, pod in pods(things):
            volumes = pod["spec"].get("volumes", [])
            claimed = {(namespace, volume["persistentVolumeClaim"]["claimName"]) for volume in volumes if "persistentVolumeClaim" in volume}
            if claimed & buckets or any("csi" in volume for volume in volumes):
                assert pod["metadata"]["annotations"][MOUNTS_BUCKETS] == "true", name
                marks = pod["metadata"]["labels"].items()
                assert any(
                    where == namespace
                    and spec["podSelector"].get("matchLabels", {"": ""}).items() <= marks
                    and METADATA in spec.get("egress", [])
                    for where, spec in policies
                ), name

    def test_quotas_are_those_of_the_environment(self, environment_name: str, things: list[tuple[Step, Any]]) -> None:
        queues = {thing["metadata"]["name"]: thing["spec"] for _, thing in things if thing["kind"] == "GpuQueue"}
        for name, team in read_environment(ENVIRONMENTS[environment_name]).teams.items():
            assert queues[name]["namespaces"] == list(team.namespaces)
            assert {lane["name"]: lane["quota"] for lane in queues[name]["lanes"]} == {
                lane: line.quota for lane, line in team.lanes.items()
            }
