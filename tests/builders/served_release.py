"""A release of `helm/model-serving` that serves version 1, on a real API server with controllers and nodes that only pretend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
from control_plane import ControlPlane, Node
from mlserving.rollout.helm import HelmDriver

CHART = Path(__file__).resolve().parents[2] / "helm" / "model-serving"
NAMESPACE = "serving"
RELEASE = "cards"
VALUES = {
    "model": {"name": "demo"},
    "tracks": {"stable": {"version": 1, "replicas": 1}},
    "store": {"kind": "gcs-copy", "bucket": {"name": "models"}},
    "gateway": {"replicas": 1},
}

Helm = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def cluster(folder: Path) -> Iterator[Helm]:
    """The cluster that KUBECONFIG names as long as the context lasts, and `helm` in our namespace."""
    with ControlPlane(folder, controllers=True, nodes=[Node(name="node-0"), Node(name="node-1")]) as plane:
        plane.client.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        program = str(binaries.paths(["helm"])["helm"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(plane.kubeconfig))
            yield lambda *words: subprocess.run([program, "--namespace", NAMESPACE, *words], capture_output=True, text=True, check=False)


@contextmanager
def installed(helm: Helm, folder: Path, **more: Any) -> Iterator[HelmDriver]:
    """The release, as long as the context lasts; `more` values beside or in place of `VALUES`. Its driver upgrades with the chart that is installed."""
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES | more))
    done = helm("install", RELEASE, str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stderr
    programs = binaries.paths(["helm", "kubectl"])
    yield HelmDriver(release=RELEASE, namespace=NAMESPACE, helm=str(programs["helm"]), kubectl=str(programs["kubectl"]))
    helm("uninstall", RELEASE, "--no-hooks", "--wait")
