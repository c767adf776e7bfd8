"""`millrace platform …` as the infra team types it, against a control plane of the test's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import binaries
from control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]


def surroundings(plane: ControlPlane) -> dict[str, str]:
    """The environment variables of somebody who administers it, with helm and kubectl at hand."""
    found = binaries.paths(["helm", "kubectl"])
    return os.environ | {"KUBECONFIG": str(plane.kubeconfig), "HELM": str(found["helm"]), "KUBECTL": str(found["kubectl"])}


def command(*arguments: str) -> list[str]:
    """What runs `millrace platform …` from the repository's root."""
    return [sys.executable, "-m", "mlplatform", "platform", *arguments]


def typed(plane: ControlPlane, *arguments: str, said: str = "", seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """`millrace platform …` as a person types it in the repository, who then says `said`."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=surroundings(plane), input=said, capture_output=True, text=True, check=False, timeout=seconds
    )
