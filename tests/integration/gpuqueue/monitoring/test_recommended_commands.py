"""The kubectl commands that alerts and runbooks tell people to type: the real kubectl knows them and their flags."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import binaries

ROOT = Path(__file__).resolve().parents[4]
IN_RUNBOOKS = {
    command for page in (ROOT / "docs" / "runbooks").glob("*.md") for command in re.findall(r"`(kubectl [^`]+)`", page.read_text())
}
IN_ALERTS = set(re.findall(r"kubectl .+?(?=, then|\"$|$)", (ROOT / "helm/gpu-queue/rules/gpu-queue.yaml").read_text(), re.MULTILINE))


@pytest.mark.control_plane
@pytest.mark.parametrize("command", sorted(IN_RUNBOOKS | IN_ALERTS))
def test_kubectl_knows_the_command_and_its_flags(command: str) -> None:
    words = shlex.split(command.partition(" | ")[0].partition(" -- ")[0])
    asked = subprocess.run([binaries.paths(["kubectl"])["kubectl"], *words[1:], "--help"], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr


def test_commands_are_found() -> None:
    assert len(IN_RUNBOOKS) > 10
    assert "kubectl get pods -A -l app.kubernetes.io/name=gpu-queue" in IN_ALERTS
