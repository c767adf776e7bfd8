"""The real programs, which `make tools` builds."""

from __future__ import annotations

import shutil

import pytest

import binaries
import prometheus_server
from control_plane import ControlPlane, Node

NODES = [Node(name="node-0"), Node(name="node-1")]
PROGRAMS = {
    "prometheus": prometheus_server.PROGRAMS,
    "control_plane": [*ControlPlane.programs(controllers=True, nodes=NODES), "helm", "kubectl"],
}
BUILD_SECONDS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the programs must be built first, give time for it or say what is missing."""
    can_build = shutil.which("go") is not None
    for item in items:
        for marker, programs in PROGRAMS.items():
            if item.get_closest_marker(marker) and not binaries.ready(programs):
                missing = pytest.mark.skip(reason=f"no {marker}: install Go 1.26 and type `{binaries.COMMAND}`")
                item.add_marker(pytest.mark.timeout(BUILD_SECONDS) if can_build else missing)
