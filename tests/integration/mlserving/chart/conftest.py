"""The serving chart, rendered by the real helm, and a real API server to install it on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
from api_client import Client
from control_plane import ControlPlane

CHART = Path(__file__).resolve().parents[4] / "helm" / "model-serving"
NAMESPACE = "fraud"
PROGRAMS = [*ControlPlane.programs(), "helm", "kubectl"]
BUILD_SECONDS = 3600
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
SMALLEST = ("--set", "model.name=cards", "--set", "tracks.stable.version=7")

Helm = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the programs must be built first, give time for it or say what is missing."""
    ready, can_build = binaries.ready(PROGRAMS), shutil.which("go") is not None
    missing = pytest.mark.skip(reason=f"no control plane: install Go 1.26 and type `{binaries.COMMAND}`")
    for item in items:
        item.add_marker(pytest.mark.control_plane)
        if not ready:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS) if can_build else missing)


@pytest.fixture(scope="session")
def template() -> Helm:
    """`helm template` of a release `cards` with the least that one must say; the arguments are added."""
    version = binaries.pinned("kubernetes", "k8s.io/kubernetes")
    program = binaries.paths(["helm"])["helm"]
    command = [program, "template", "cards", CHART, "--namespace", NAMESPACE, "--kube-version", version, *SMALLEST]
    return lambda *arguments: subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def objects(template: Helm) -> Callable[..., dict[tuple[str, str], Any]]:
    """What it makes, by kind and name."""

    def rendered(*arguments: str) -> dict[tuple[str, str], Any]:
        done = template(*arguments)
        assert done.returncode == 0, done.stderr
        return {(thing["kind"], thing["metadata"]["name"]): thing for thing in yaml.safe_load_all(done.stdout) if thing}

    return rendered


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with a namespace for restricted pods only."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}}
        running.client.request("POST", "/api/v1/namespaces", namespace)
        yield running


@pytest.fixture
def api(plane: ControlPlane) -> Client:
    """The API server, as cluster administrator."""
    return plane.client


@pytest.fixture
def release(plane: ControlPlane) -> Iterator[Helm]:
    """`helm` in the namespace; the release is gone afterwards."""
    program = str(binaries.paths(["helm"])["helm"])

    def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, "--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    yield helm
    helm("uninstall", "cards", "--ignore-not-found", "--no-hooks")
