"""The GPU queue as an infrastructure team meets it: helm install, jobs, an upgrade in the middle of them, a killed leader, helm uninstall.

On any cluster that enforces nothing against it and has four GPUs to give, real or advertised:

MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_IMAGE=REPOSITORY:TAG pytest tests/e2e/test_gpu_queue_on_a_cluster.py

MILLRACE_E2E_VALUES=admission=webhook does it all by webhook on a cluster that would not need one; it is given to `helm --set`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gpu_objects as make
from api_client import Client, Refused
from cluster_release import RELEASE, Release
from gpuqueue import labels
from replicas import Witness
from waiting import eventually

KUBECONFIG, IMAGE = os.environ.get("MILLRACE_E2E_KUBECONFIG", ""), os.environ.get("MILLRACE_E2E_IMAGE", "")
VALUES = os.environ.get("MILLRACE_E2E_VALUES", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (KUBECONFIG and IMAGE), reason="name a cluster and an image: MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_IMAGE=…"),
]
QUOTA = 4
JOBS = 24
QUEUES = "/apis/gpu-queue.dev/v1/gpuqueues"


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """The chart, installed; gone afterwards with everything that these tests made."""
    with Release(kubeconfig=KUBECONFIG, image=IMAGE, values=VALUES) as installed:
        installed.install()
        yield installed


@pytest.fixture
def api(release: Release) -> Client:
    return release.client


class Team:
    """A namespace with a queue of four GPUs, and its jobs, which run our own image's Python for a while."""

    def __init__(self, api: Client, name: str) -> None:
        self.api, self.name = api, name
        api.apply(make.namespace(name))
        api.apply(make.queue(name, lanes=[{"name": "all", "match": {}, "quota": QUOTA}]))

    def submit(self, name: str, *, gpus: int = 1, seconds: float = 1) -> None:
        pod = make.pod(name, gpus=gpus, restartPolicy="Never", terminationGracePeriodSeconds=0)
        pod["spec"]["containers"][0] |= {
            "image": IMAGE,
            "command": ["/usr/bin/python3", "-c", f"import time; time.sleep({seconds})"],
            "resources": {"limits": {"cpu": "50m", "memory": "64Mi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})},
        }
        self.api.request("POST", f"/api/v1/namespaces/{self.name}/pods", pod)

    def submit_many(self) -> None:
        """So that the order of names is the order in which they came; each asks for one or two GPUs."""
        for number in range(JOBS):
            self.submit(f"job-{number:03}", gpus=1 + number % 2)

    def pod(self, name: str) -> Any:
        return self.api.request("GET", f"/api/v1/namespaces/{self.name}/pods/{name}")

    def phase(self, name: str) -> str:
        return str(self.pod(name)["status"]["phase"])

    def told(self, name: str) -> str:
        conditions = self.pod(name)["status"].get("conditions", [])
        return next((condition["message"] for condition in conditions if condition["type"] == labels.CONDITION), "")

    def grants(self) -> set[str]:
        return {grant["name"] for grant in self.api.request("GET", f"{QUEUES}/{self.name}").get("status", {}).get("grants", [])}

    def end(self, name: str) -> None:
        self.api.request("DELETE", f"/api/v1/namespaces/{self.name}/pods/{name}?gracePeriodSeconds=0")


@pytest.fixture
def team(release: Release) -> Iterator[Team]:
    name = release.fresh_namespace()
    yield Team(release.client, name)
    release.forget(name)


def test_what_is_installed_works_and_says_so(release: Release) -> None:
    assert len(release.ready_pods()) == 2
    said = release.helm("test", RELEASE, "--logs", "--timeout", "150s")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("ok      ") == 7, said.stdout


def test_nobody_may_do_more_than_the_roles_say(release: Release) -> None:
    controller = f"--as=system:serviceaccount:{RELEASE}:gpu-queue"
    for allowed in (
        ["patch", "pods"],
        ["update", "gpuqueues.gpu-queue.dev", "--subresource=status"],
        ["create", "tokenreviews.authentication.k8s.io"],
    ):
        assert release.kubectl("auth", "can-i", *allowed, controller, "--all-namespaces").stdout.strip() == "yes", allowed
    for denied in (["delete", "pods"], ["create", "pods"], ["get", "secrets"], ["update", "gpuqueues.gpu-queue.dev"], ["patch", "nodes"]):
        assert release.kubectl("auth", "can-i", *denied, controller, "--all-namespaces").stdout.strip() == "no", denied


def test_jobs_wait_their_turn_are_told_their_place_and_start(team: Team) -> None:
    for name in ("a", "b", "c", "d"):
        team.submit(name, gpus=2, seconds=600)
    eventually("two run", lambda: {team.phase("a"), team.phase("b")} == {"Running"}, 60, every=0.2)
    eventually("the others are told", lambda: bool(team.told("d")), 30, every=0.2)
    assert team.told("c").startswith("QuotaInUse: 1st of")
    assert "Ahead: c (2 GPUs)." in team.told("d")
    assert team.pod("d")["status"]["phase"] == "Pending"
    team.submit("cpu", gpus=0)
    eventually("a pod without GPUs passes by", lambda: team.phase("cpu") == "Succeeded", 60, every=0.2)
    team.end("a")
    eventually("the next runs", lambda: team.phase("c") == "Running", 60, every=0.2)
    assert team.grants() == {"b", "c"}


def all_finish_within_the_quota(release: Release, team: Team, meanwhile: Callable[[], None]) -> None:
    """Many jobs, and something that happens while they run."""
    with Witness(team.api, frozenset({team.name})) as witness:
        submitting = threading.Thread(target=team.submit_many, daemon=True)
        submitting.start()
        eventually("the first has ended", lambda: finished(witness) > 0, 120, every=0.2)
        meanwhile()
        submitting.join()
        eventually("every job has ended", lambda: finished(witness) == JOBS, 240, every=0.2)
        eventually("the ledger is empty", lambda: not team.grants(), 30, every=0.2)
    assert not witness.holes
    assert witness.most[team.name] <= QUOTA, "more GPUs were open than the quota"
    assert len(witness.opened) == JOBS, "a gate was opened twice, or never"
    assert witness.granted == sorted(witness.granted), "somebody was overtaken"


def finished(witness: Witness) -> int:
    return sum(pod["status"].get("phase") == "Succeeded" for pod in witness.pods.values())


def test_an_upgrade_in_the_middle_of_it_all_goes_unnoticed(release: Release, team: Team) -> None:
    before = release.ready_pods()

    def upgrade() -> None:
        release.upgrade("controller.settings.tellTop=7")
        assert not release.ready_pods() & before

    all_finish_within_the_quota(release, team, upgrade)


by_webhook = pytest.mark.skipif("admission=webhook" not in VALUES, reason="this is for MILLRACE_E2E_VALUES=admission=webhook")


@by_webhook
def test_replicas_of_the_webhook_come_and_go_and_no_pod_is_refused(release: Release, team: Team) -> None:
    before = release.ready_pods("webhook")
    release.kubectl("--namespace", RELEASE, "rollout", "restart", "deployment/gpu-queue-webhook")
    asked = 0
    while len(release.ready_pods("webhook") - before) < 2 or release.pods("webhook") & before:
        assert gated(team)
        asked += 1
    assert asked > 100


@by_webhook
def test_a_cluster_that_learns_to_set_the_gate_itself_lets_nobody_through_meanwhile(release: Release, team: Team) -> None:
    seen, ended = list[str](), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            seen.append(tried(team))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    release.upgrade("admission=policy")
    eventually("the webhook has gone", lambda: not release.pods("webhook"), 60, every=0.2)
    ended.set()
    asking.join(10)
    assert seen.count("gated") > 100
    assert "past the gate" not in seen
    assert all(said == "gated" or "gpu-queue" in said for said in seen)  # refused for a moment, by the webhook that goes or by the guard
    release.upgrade("admission=webhook")
    eventually("the webhook sets the gate", lambda: gated(team), 30, every=0.2)


def tried(team: Team) -> str:
    """What becomes of a GPU pod (by dry run): `gated`, `past the gate`, or why it was refused."""
    try:
        pod = team.api.request("POST", f"/api/v1/namespaces/{team.name}/pods?dryRun=All", make.pod(gpus=1))
    except Refused as error:
        return error.message
    return "gated" if "schedulingGates" in pod["spec"] else "past the gate"


def gated(team: Team) -> bool:
    """Whether a GPU pod comes into being behind the gate."""
    return tried(team) == "gated"


def test_a_leader_that_is_killed_is_replaced(release: Release, team: Team) -> None:
    def kill_twice() -> None:
        for _ in range(2):
            leader = release.leader()
            release.kill(leader)
            eventually("another leads", lambda gone=leader: release.leader() not in {"", gone}, 60, every=0.2)  # type: ignore[misc] # a default binds
            time.sleep(1)  # let it do some work

    all_finish_within_the_quota(release, team, kill_twice)
    eventually("two stand ready again", lambda: len(release.ready_pods()) == 2, 60, every=0.2)


def test_a_leader_whose_process_is_killed_leaves_nothing_undone(release: Release, team: Team) -> None:
    eventually("somebody leads", lambda: release.leader() != "", 60, every=0.2)
    if not release.processes(release.leader()):
        pytest.skip("the cluster's nodes are not this machine")

    def kill_twice() -> None:
        for _ in range(2):
            eventually("somebody leads", lambda: release.leader() != "", 60, every=0.2)
            release.sigkill(release.leader())
            last = release.renewed()
            eventually("somebody leads on", lambda last=last: release.renewed() > last, 60, every=0.2)  # type: ignore[misc] # a default binds
            time.sleep(1)  # let it do some work

    all_finish_within_the_quota(release, team, kill_twice)
    eventually("two stand ready again", lambda: len(release.ready_pods()) == 2, 60, every=0.2)


def test_uninstalling_stops_while_somebody_waits_and_loses_no_grant(release: Release, team: Team) -> None:
    team.submit("runs", gpus=4, seconds=600)
    team.submit("waits")
    eventually("one runs, one waits", lambda: team.phase("runs") == "Running" and team.told("waits") != "", 60, every=0.2)

    refused = release.helm("uninstall", RELEASE, "--timeout", "60s")
    assert refused.returncode != 0
    assert f"pods wait at the gate and nobody would be left to open it (1): {team.name}/waits" in refused.stdout + refused.stderr
    assert len(release.ready_pods()) == 2

    team.end("waits")
    gone = release.helm("uninstall", RELEASE, "--wait", "--timeout", "60s")
    assert gone.returncode == 0, gone.stderr
    assert team.phase("runs") == "Running"
    assert team.grants() == {"runs"}

    release.install()
    eventually("the gate is in force again, everywhere", lambda: gated(team), 30, every=0.2)
    team.submit("next", gpus=1)
    eventually("the next is told", lambda: "0 of 4 are free" in team.told("next"), 60, every=0.2)
    team.end("runs")
    eventually("it runs", lambda: team.phase("next") in {"Running", "Succeeded"}, 60, every=0.2)
