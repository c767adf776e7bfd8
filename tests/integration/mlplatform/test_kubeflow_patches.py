"""Our patches against the release of Kubeflow Pipelines that they are written for.

The release is fetched when a platform is deployed, and tests reach no network. Where its files are at hand, MILLRACE_KUBEFLOW names a folder that holds
them: `pipelines/manifests/kustomize` of kubeflow/pipelines at 2.17.0 and `argo-workflows/manifests` of argoproj/argo-workflows at v4.0.5.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
from api_client import Client
from control_plane import ControlPlane
from mlplatform.cluster.objects import Name, parsed
from mlplatform.environment import read_environment
from mlplatform.plan.values import pipelines
from typed_platform import ROOT

RELEASE = os.environ.get("MILLRACE_KUBEFLOW", "")
pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(not RELEASE, reason="MILLRACE_KUBEFLOW names no release of Kubeflow Pipelines")]


def rendered(folder: Path, variant: str) -> list[Any]:
    """What our kustomization makes of it, with the references turned to the folder."""
    for name in ("pipelines", "argo-workflows"):
        shutil.copytree(Path(RELEASE) / name, folder / name)
    shutil.copytree(ROOT / "k8s" / "kubeflow-pipelines", folder / "ours")
    for file in folder.rglob("kustomization.yaml"):
        text = file.read_text()
        for repository, here in (("kubeflow/pipelines", "pipelines"), ("argoproj/argo-workflows", "argo-workflows")):
            place = os.path.relpath(folder / here, file.parent)
            text = re.sub(rf"https://github.com/{repository}/(manifests[^?\s]*)\?\S*", rf"{place}/\1", text)
        file.write_text(text)
    command = [binaries.paths(["kubectl"])["kubectl"], "kustomize", folder / "ours" / variant]
    return list(parsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize("variant", ["in-cluster", "google"])
def test_the_patches_fit_and_leave_nothing_that_everybody_knows(tmp_path: Path, variant: str) -> None:
    things = rendered(tmp_path, variant)
    names = [Name.of(thing) for thing in things]
    assert len(set(names)) == len(names)
    assert not [name.shown for name in names if name.kind == "Secret" or "istio" in name.api or "metacontroller" in name.api]
    assert "pipeline-runner" not in {name.name for name in names}
    assert "MYSQL_ALLOW_EMPTY_PASSWORD" not in str(things)
    for thing in things:
        if thing["kind"] == "Deployment":
            spec = thing["spec"]["template"]["spec"]
            for container in spec["containers"]:
                assert "memory" in container["resources"]["limits"], Name.of(thing).shown
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), Name.of(thing).shown


def test_argo_gives_pods_of_runs_our_group_and_all_that_the_release_gives_them(tmp_path: Path) -> None:
    def defaults(things: Iterable[Any]) -> Any:
        (told,) = (
            each["data"]["workflowDefaults"]
            for each in things
            if each["metadata"]["name"] == "workflow-controller-configmap" and "workflowDefaults" in each.get("data", {})
        )
        return yaml.safe_load(told)["spec"]

    ours = defaults(rendered(tmp_path, "in-cluster"))
    released = defaults(
        yaml.safe_load_all(
            (tmp_path / "pipelines/manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml").read_text()
        )
    )
    assert ours["templateDefaults"].pop("securityContext")["fsGroup"] == 65532
    assert ours == released


@pytest.mark.parametrize(("variant", "environment"), [("in-cluster", "laptop"), ("google", "gke-prod")])
def test_what_the_release_leaves_to_its_own_overlays_every_environment_fills_in(tmp_path: Path, variant: str, environment: str) -> None:
    told = pipelines(read_environment(ROOT / "platform" / "environments" / f"{environment}.yaml"))
    things = [thing for thing in rendered(tmp_path, variant) if thing["kind"] == "ConfigMap"]
    left = {(thing["metadata"]["name"], key) for thing in things for key, text in thing["data"].items() if "$(" in text}
    assert left == {("workflow-controller-configmap", "artifactRepository")}
    assert left <= {(name, key) for name, settings in told.items() for key in settings}
    assert not [text for settings in told.values() for text in settings.values() if "$(" in text]


def reached(policy: Any, labels: dict[str, str]) -> bool:
    """Whether a policy is about pods with these labels, of the two ways in which ours choose them."""
    chosen = policy["spec"]["podSelector"]
    exact = chosen.get("matchLabels", {}).items() <= labels.items()
    return exact and all(labels.get(each["key"]) in each["values"] for each in chosen.get("matchExpressions", []))


def test_what_pods_of_teams_ask_lets_them_in(tmp_path: Path) -> None:
    things = rendered(tmp_path, "in-cluster")
    pods = {thing["metadata"]["name"]: thing["spec"]["template"]["metadata"]["labels"] for thing in things if thing["kind"] == "Deployment"}
    policies = [thing for thing in things if thing["kind"] == "NetworkPolicy"]
    assert not [each["metadata"]["name"] for each in policies if not any(reached(each, labels) for labels in pods.values())]
    team = {"namespaceSelector": {"matchExpressions": [{"key": "millrace.dev/team", "operator": "Exists"}]}}
    asked = {("ml-pipeline", 8887), ("ml-pipeline", 8888), ("metadata-grpc-deployment", 8080), ("seaweedfs", 8333)}
    open_ = {
        (name, port["port"])
        for policy in policies
        for rule in policy["spec"].get("ingress", [])
        if team in rule.get("from", [])
        for port in rule["ports"]
        for name, labels in pods.items()
        if reached(policy, labels)
    }
    assert asked <= open_


def test_a_namespace_for_restricted_pods_takes_all_of_them(tmp_path: Path, bare_plane: ControlPlane) -> None:
    api: Client = bare_plane.client
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubeflow", "labels": labels}})
    things = [thing for thing in rendered(tmp_path, "in-cluster") if thing["kind"] == "Deployment"]
    assert len(things) == 14
    for thing in things:
        template = thing["spec"]["template"]
        template["spec"].pop("priorityClassName", None)
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "one", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
        }
        api.request("POST", "/api/v1/namespaces/kubeflow/pods?dryRun=All", pod)
