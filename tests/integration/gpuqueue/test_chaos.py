"""Many jobs while everything that can happen to the controller happens to it: never too many GPUs open, nobody forgotten, nobody overtaken.

MILLRACE_CHAOS_JOBS, MILLRACE_CHAOS_KILLS and MILLRACE_CHAOS_STOP_SECONDS make it larger or smaller.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpu_objects as make
from api_client import Client
from control_plane import ControlPlane
from replicas import Replicas, Witness
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.slow, pytest.mark.timeout(900)]

JOBS = int(os.environ.get("MILLRACE_CHAOS_JOBS", "1000"))
KILLS = int(os.environ.get("MILLRACE_CHAOS_KILLS", "20"))
STOP_SECONDS = float(os.environ.get("MILLRACE_CHAOS_STOP_SECONDS", "20"))
QUOTA = 12
QUEUES = "/apis/gpu-queue.dev/v1/gpuqueues"
L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}


@pytest.fixture
def replicas(own_plane: ControlPlane, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(own_plane, tmp_path, count=2) as running:
        yield running


def test_a_thousand_jobs_while_leaders_die_and_sleep(replicas: Replicas, own_plane: ControlPlane) -> None:
    api, managed = own_plane.client, "chaos"
    api.apply(make.namespace(managed))
    api.apply(make.queue(managed, lanes=[make.lane(quota=QUOTA)]))
    ended = threading.Event()
    with Witness(api, frozenset({managed})) as witness:
        submitting = threading.Thread(target=submit, args=(api, managed, JOBS), daemon=True)
        submitting.start()
        torment = threading.Thread(target=kill_and_stop, args=(replicas, ended), daemon=True)
        torment.start()
        torment.join()
        submitting.join()
        eventually("every job has ended", lambda: finished(witness) == JOBS, 600)
        eventually("the ledger is empty", lambda: not api.request("GET", f"{QUEUES}/{managed}")["status"].get("grants"), 30)
    assert not witness.holes, "the witness has missed something"
    assert witness.most[managed] <= QUOTA, "more GPUs were open than the quota"
    assert len(witness.opened) == JOBS, "a gate was opened twice, or never"
    assert witness.granted == sorted(witness.granted), "somebody was overtaken"
    assert len(witness.granted) == JOBS


def submit(api: Client, namespace: str, jobs: int) -> None:
    """One after another, so that the order of names is the order in which they came."""
    for number in range(jobs):
        pod = make.pod(f"job-{number:05}", gpus=1 + number % 3, nodeSelector=L4)
        pod["metadata"]["annotations"] = {"test.millrace/succeeds-after": "300ms"}
        api.request("POST", f"/api/v1/namespaces/{namespace}/pods", pod)


def kill_and_stop(replicas: Replicas, ended: threading.Event) -> None:
    """Kill whoever leads, again and again; in the middle, put the leader to sleep and wake it when another has long taken over."""
    for number in range(KILLS):
        leader = wait_for_leader(replicas)
        time.sleep(0.7)  # let it do some work first
        if number == KILLS // 2:
            replicas.stop(leader)
            ended.wait(STOP_SECONDS)
            replicas.resume(leader)
            time.sleep(1)  # it still believes to lead
        replicas.kill(leader)


def wait_for_leader(replicas: Replicas) -> str:
    deadline = time.monotonic() + 30
    while not (leader := replicas.leader()):
        assert time.monotonic() < deadline, f"nobody leads\n{replicas.logs()}"
        time.sleep(0.05)
    return leader


def finished(witness: Witness) -> int:
    return sum(pod["status"].get("phase") == "Succeeded" for pod in witness.pods.values())
