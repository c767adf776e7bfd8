"""A real control plane with our chart in it, started once for each process that runs tests."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
import gpu_objects as make
from api_client import Client, Object, Refused
from control_plane import ControlPlane, Node
from gpuqueue import labels
from webhooks import Webhook

CHART = Path(__file__).resolve().parents[3] / "helm" / "gpu-queue"
NODES = [Node(name="gpu-0"), Node(name="gpu-1")]
PROGRAMS = [*ControlPlane.programs(controllers=True, nodes=NODES), "helm"]
BUILD_SECONDS = 3600

Render = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to the control plane; where its programs must be built first, give time for it or say what is missing."""
    ready, can_build = binaries.ready(PROGRAMS), shutil.which("go") is not None
    missing = pytest.mark.skip(reason=f"no control plane: install Go 1.26 and type `{binaries.COMMAND}`")
    for item in items:
        if {"control_plane", "own_plane", "module_plane", "webhook", "plane_that_asks", "helm"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.control_plane)
        if item.get_closest_marker("control_plane") and not ready:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS) if can_build else missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A failed test shows what the API server and its friends logged last."""
    report = yield
    plane = getattr(item, "funcargs", {}).get("control_plane")
    if plane and report.failed:
        report.sections.append(("control plane", plane.tail()))
    return report


@pytest.fixture(scope="session")
def helm() -> Render:
    """Runs `helm template` on our chart, as for the Kubernetes that is pinned; the arguments are added."""
    program = binaries.paths(["helm"])["helm"]
    version = binaries.pinned("kubernetes", "k8s.io/kubernetes")

    def template(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(program),
            "template",
            "gpu-queue",
            str(CHART),
            "--namespace",
            make.RELEASE_NAMESPACE,
            "--kube-version",
            version,
            "--api-versions",
            "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return template


@contextlib.contextmanager
def installed(folder: Path, helm: Render, nodes: Sequence[Node], *arguments: str) -> Iterator[ControlPlane]:
    """Kubernetes with scheduler, controllers and these nodes, our chart installed, its guards in force."""
    rendered = helm("--include-crds", "--no-hooks", *arguments)
    assert rendered.returncode == 0, rendered.stderr
    with ControlPlane(folder, controllers=True, nodes=nodes) as plane:
        # Without the Deployments: here controllers are processes of the tests (`replicas.py`), to be killed and stopped.
        _install(plane, [thing for thing in yaml.safe_load_all(rendered.stdout) if thing and thing["kind"] != "Deployment"])
        yield plane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, helm: Render) -> Iterator[ControlPlane]:
    """A control plane with two nodes of eight GPUs each."""
    with installed(tmp_path_factory.mktemp("control-plane"), helm, NODES) as plane:
        wait_for_the_gate(plane)
        yield plane


@pytest.fixture
def own_plane(tmp_path: Path, helm: Render) -> Iterator[ControlPlane]:
    """A control plane for one test alone, whose GPUs nobody else holds."""
    with installed(tmp_path / "own-plane", helm, NODES) as plane:
        wait_for_the_gate(plane)
        yield plane


@pytest.fixture(scope="session")
def webhook(tmp_path_factory: pytest.TempPathFactory, helm: Render) -> Iterator[Webhook]:
    """A control plane of its own that asks our webhook, as before Kubernetes 1.36; `webhook.plane` is it."""
    folder = tmp_path_factory.mktemp("webhook")
    with installed(folder, helm, NODES, "--set", "admission=webhook") as plane, Webhook(plane, folder) as running:
        running.ask(running.start())
        wait_for_the_gate(plane)
        yield running


@pytest.fixture(scope="module")
def plane_that_asks(tmp_path_factory: pytest.TempPathFactory, helm: Render) -> Iterator[ControlPlane]:
    """The same without anybody who would answer."""
    with installed(tmp_path_factory.mktemp("asks"), helm, NODES, "--set", "admission=webhook") as plane:
        yield plane


@pytest.fixture(scope="module")
def module_plane(tmp_path_factory: pytest.TempPathFactory, helm: Render) -> Iterator[ControlPlane]:
    """A control plane for the tests of one file, which see everything that is in it."""
    with installed(tmp_path_factory.mktemp("module-plane"), helm, NODES) as plane:
        wait_for_the_gate(plane)
        yield plane


@pytest.fixture
def api(control_plane: ControlPlane) -> Client:
    """The API server, as cluster administrator."""
    return control_plane.client


@pytest.fixture(scope="session")
def fresh_name() -> Callable[[], str]:
    """Names that no other test has: deleting the namespaces that tests leave would cost more than leaving them."""
    numbers = itertools.count()
    return lambda: f"team-{next(numbers)}"


@pytest.fixture
def managed(api: Client, fresh_name: Callable[[], str]) -> Iterator[str]:
    """A namespace whose GPU pods are queued."""
    yield from _with_namespace(api, make.namespace(fresh_name()))


@pytest.fixture
def unmanaged(api: Client, fresh_name: Callable[[], str]) -> Iterator[str]:
    """A namespace that has not opted in."""
    yield from _with_namespace(api, make.namespace(fresh_name(), managed=False))


def _with_namespace(api: Client, namespace: Object) -> Iterator[str]:
    """Its name; its pods are gone afterwards, for a controller of a test to come would tell each of them first why it waits."""
    name = namespace["metadata"]["name"]
    api.request("POST", "/api/v1/namespaces", namespace)
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}/pods?gracePeriodSeconds=0")


def _install(plane: ControlPlane, objects: list[Object]) -> None:
    """Apply them and wait until every policy is in force: a canary goes last, so once it bites the others do."""
    api = plane.client
    api.apply(make.namespace(make.RELEASE_NAMESPACE, managed=False))
    api.apply(make.namespace("canaries"))
    for thing in [*objects, *_CANARY]:
        api.apply(thing)
        if thing["kind"] == "CustomResourceDefinition":
            plane.wait("the kind GpuQueue", lambda: _allows(api, "GET", f"/apis/{labels.DOMAIN}/v1/gpuqueues"))
    plane.wait("the guards", lambda: not _allows(api, "POST", "/api/v1/namespaces/canaries/configmaps?dryRun=All", _CANARY_MAP))


def wait_for_the_gate(plane: ControlPlane) -> None:
    """Return once GPU pods are gated."""
    plane.wait("the gate", lambda: _gates(plane.client))


def _gates(api: Client) -> bool:
    try:
        return "schedulingGates" in api.request("POST", _DRY_POD, make.pod(gpus=1))["spec"]
    except Refused:  # the webhook is not there yet
        return False


def _allows(api: Client, method: str, path: str, body: Object | None = None) -> bool:
    try:
        api.request(method, path, body)
    except Refused:
        return False
    return True


_DRY_POD = "/api/v1/namespaces/canaries/pods?dryRun=All"
_CANARY_MAP: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "canary"}}
_POLICIES = "admissionregistration.k8s.io/v1"
_CANARY: list[Object] = [
    {
        "apiVersion": _POLICIES,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "canary"},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
            },
            "matchConditions": [{"name": "canary", "expression": "object.metadata.name == 'canary'"}],
            "validations": [{"expression": "false"}],
        },
    },
    {
        "apiVersion": _POLICIES,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "canary"},
        "spec": {"policyName": "canary", "validationActions": ["Deny"]},
    },
]
