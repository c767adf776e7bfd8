"""A real API server that a platform is deployed to, and the command as people type it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import binaries
from control_plane import ControlPlane, Node
from typed_platform import ROOT

NODES = [Node(name="node-0", gpus=2), Node(name="node-1", gpus=2)]
PROGRAMS = [*ControlPlane.programs(controllers=True, nodes=NODES), "helm", "kubectl"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to the control plane; where its programs are missing, say so."""
    ready, can_build = binaries.ready(PROGRAMS), shutil.which("go") is not None
    missing = pytest.mark.skip(reason=f"no control plane: install Go 1.26 and type `{binaries.COMMAND}`")
    for item in items:
        if {"plane", "bare_plane"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.control_plane)
            if not ready:
                item.add_marker(pytest.mark.timeout(3600) if can_build else missing)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With controllers and two nodes on which every pod is ready at once, and disks for those who ask."""
    with ControlPlane(tmp_path_factory.mktemp("plane"), controllers=True, nodes=NODES) as running:
        for number in range(20):
            running.client.apply(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": f"disk-{number}"},
                    "spec": {"capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/disk-{number}"}},
                }
            )
        yield running


@pytest.fixture(scope="module")
def bare_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The API server alone."""
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        yield running


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment `laptop` in a folder of its own, in which its secrets are made too."""
    file = tmp_path_factory.mktemp("environments") / "laptop.yaml"
    file.write_text((ROOT / "platform" / "environments" / "laptop.yaml").read_text())
    return file
