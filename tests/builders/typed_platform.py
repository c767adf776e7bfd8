"""`millrace platform …` as the infra team types it, against a control plane of the test's or a cluster that somebody else runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import binaries
from control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]


def surroundings(kubeconfig: Path | str) -> dict[str, str]:
    """The environment variables of somebody who administers a cluster, with helm and kubectl at hand."""
    found = binaries.paths(["helm", "kubectl"])
    return os.environ | {"KUBECONFIG": str(kubeconfig), "HELM": str(found["helm"]), "KUBECTL": str(found["kubectl"])}


def command(*arguments: str) -> list[str]:
    """What runs `millrace platform …` from the repository's root."""
    return [sys.executable, "-m", "mlplatform", "platform", *arguments]


def typed(plane: ControlPlane, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """`millrace platform …` as a person types it in the repository, who then says `said`."""
    return typed_for(plane.kubeconfig, *arguments, said=said)


def typed_for(kubeconfig: Path | str, *arguments: str, said: str = "", seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """The same for the cluster of a kubeconfig."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=surroundings(kubeconfig),
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
