"""What the charts render, whole; `make golden` writes it again. Read the diff as code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import binaries
from chart_renders import GOLDEN, RELEASES, ROOT, cases, render

pytestmark = [
    pytest.mark.control_plane,
    pytest.mark.skipif(not binaries.ready(["helm"]) and shutil.which("go") is None, reason=f"no helm: type `{binaries.COMMAND}`"),
]


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its path; what Kubernetes reads as a whole is one."""
    if (
        isinstance(values, dict)
        and values
        and path.rpartition(".")[2] not in {"resources", "labels", "annotations", "nodeSelector", "rollout", "releases"}
    ):
        for name, inner in values.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, values


@pytest.mark.parametrize(("chart", "name"), [(chart, name) for chart in RELEASES for name in cases(chart)])
def test_the_chart_renders_what_was_reviewed(chart: str, name: str) -> None:
    assert render(cases(chart)[name]) == (GOLDEN / chart / f"{name}.yaml").read_text(), "make golden, and read the difference"


@pytest.mark.parametrize("chart", RELEASES)
def test_every_value_is_set_to_something_else_at_least_once(chart: str) -> None:
    defaults = dict(leaves(yaml.safe_load((ROOT / "helm" / chart / "values.yaml").read_text())))
    changed = {
        path
        for values in cases(chart).values()
        for path, value in leaves(yaml.safe_load(values.read_text()))
        if value != defaults.get(path, "not there")
    }
    # The stable track is always there, a tag excludes a digest, and `{}` hides what it could hold.
    assert {path for path in defaults if path not in changed} <= {
        "tracks.stable.enabled",
        "tracks.stable.gpu.resource",
        "tracks.canary.gpu.resource",
    }
