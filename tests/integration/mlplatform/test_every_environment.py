"""What every environment's charts render is accepted by a real API server, field by field, and its pods by the namespaces that they go to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import binaries
from api_client import Client
from control_plane import ControlPlane
from mlplatform.cluster.objects import Name
from mlplatform.cluster.rendering import Renderer
from mlplatform.environment import read_environment
from mlplatform.plan.order import plan
from platform_plans import ENVIRONMENTS, ROOT

FOREIGN = {
    "ClusterSecretStore", "ExternalSecret", "ComputeClass", "Gateway", "HTTPRoute", "GCPBackendPolicy", "PodMonitoring", "Rules",
}  # fmt: skip
"""Kinds of Google's and of External Secrets, which this API server does not know."""


@pytest.fixture(scope="module")
def api(bare_plane: ControlPlane) -> Iterator[Client]:
    """Which knows the GPU queue's kind."""
    with pytest.MonkeyPatch.context() as patch:
        for name, path in binaries.paths(["helm", "kubectl"]).items():
            patch.setenv(name.upper(), str(path))
        for thing in rendered("laptop"):
            if thing["kind"] == "CustomResourceDefinition":
                bare_plane.client.apply(thing)
        bare_plane.wait("the kind", lambda: "gpu-queue.dev" in str(bare_plane.client.request("GET", "/apis")))
        yield bare_plane.client


def rendered(name: str) -> list[Any]:
    environment = read_environment(ENVIRONMENTS[name])
    renderer = Renderer(root=ROOT, kubernetes=environment.versions.kubernetes, offline=True)
    return [thing for step in plan(environment) for thing in renderer.objects(step) or []]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_api_server_knows_every_field(api: Client, name: str) -> None:
    things = rendered(name)
    namespaces = [thing for thing in things if thing["kind"] == "Namespace"]
    for namespace in namespaces:
        api.apply(namespace)
    accepted = [thing for thing in things if thing["kind"] not in FOREIGN]
    assert len(accepted) > 100
    for thing in accepted:
        try:
            query = "fieldManager=tests&force=true&dryRun=All&fieldValidation=Strict"
            api.request("PATCH", f"{api.path(thing)}?{query}", thing, patch="apply")
        except Exception as error:
            raise AssertionError(f"{Name.of(thing).shown}: {error}") from error
    for namespace, template in pods(things):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "one", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
        }
        api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)


def pods(things: list[Any]) -> Iterator[tuple[str, Any]]:
    """Of each Deployment and StatefulSet: where it goes, and what it is, with the volumes that a StatefulSet's controller adds."""
    for thing in things:
        if thing["kind"] in {"Deployment", "StatefulSet"}:
            claims = [claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])]
            template = thing["spec"]["template"]
            template["spec"].setdefault("volumes", []).extend(
                {"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims
            )
            yield thing["metadata"]["namespace"], template
