"""Real Prometheus programs, which `make tools` builds."""

from __future__ import annotations

import shutil

import pytest

import binaries
from prometheus_server import PROGRAMS

BUILD_SECONDS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the programs must be built first, give time for it or say what is missing."""
    ready, can_build = binaries.ready(PROGRAMS), shutil.which("go") is not None
    missing = pytest.mark.skip(reason=f"no Prometheus: install Go 1.26 and type `{binaries.COMMAND}`")
    for item in items:
        if item.get_closest_marker("prometheus") and not ready:
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS) if can_build else missing)
