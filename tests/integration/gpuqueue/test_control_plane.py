"""The control plane itself: what starts it ends it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import binaries
import gpu_objects as make
from api_client import Client
from control_plane import ControlPlane
from programs import NotReady

TOOLS = Path(__file__).resolve().parents[3] / "tools"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"

START = """
import pathlib, sys, time
from control_plane import ControlPlane
with ControlPlane(pathlib.Path(sys.argv[1])) as plane:
    print(*plane.pids().values(), flush=True)
    time.sleep(60)
"""

pytestmark = pytest.mark.control_plane


def lives(pid: int) -> bool:
    """Whether the process runs; one that ended and was never reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_when_the_tests_are_killed_their_api_server_dies_too(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START, tmp_path], env={**os.environ, "PYTHONPATH": str(TOOLS)}, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(lives, pids))
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(map(lives, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_that_does_not_start_is_shown_with_its_log_and_leaves_none_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "kube-apiserver"
    fake.write_text("#!/bin/sh\necho my certificate is no good\nexit 3\n")
    fake.chmod(0o755)
    real = binaries.paths
    monkeypatch.setattr(binaries, "paths", lambda names: {**real(names), "kube-apiserver": fake})
    plane = ControlPlane(tmp_path / "plane")
    with pytest.raises(NotReady, match=r"kube-apiserver ended with 3 (?s:.*)my certificate is no good"), plane:
        pass
    assert plane.pids() == {}


def test_programs_can_be_paused_and_restarted_and_nothing_is_lost(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane:
        plane.client.request("POST", CONFIG_MAPS, {"metadata": {"name": "kept"}})
        plane.pause("kube-apiserver")
        with pytest.raises(TimeoutError):
            plane.client.request("GET", f"{CONFIG_MAPS}/kept", timeout=0.3)
        plane.resume("kube-apiserver")
        plane.restart("kube-apiserver")
        assert plane.client.request("GET", f"{CONFIG_MAPS}/kept")["metadata"]["name"] == "kept"


@pytest.mark.parametrize(("fate", "phase"), [("succeeds-after", "Succeeded"), ("fails-after", "Failed")])
def test_a_pod_on_a_fake_node_ends_as_its_annotation_says(api: Client, unmanaged: str, fate: str, phase: str) -> None:
    pod = make.pod()
    pod["metadata"]["annotations"] = {f"test.millrace/{fate}": "100ms"}
    api.request("POST", f"/api/v1/namespaces/{unmanaged}/pods", pod)
    deadline = time.monotonic() + 60
    while api.request("GET", f"/api/v1/namespaces/{unmanaged}/pods/trainer")["status"]["phase"] != phase:
        assert time.monotonic() < deadline
        time.sleep(0.05)
