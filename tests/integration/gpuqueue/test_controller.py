"""The controller at work on a real control plane: who gets GPUs, who waits, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gpu_objects as make
from api_client import Client, Object, Refused
from control_plane import ControlPlane
from gpu_team import L4, QUEUES, Team
from gpuqueue import labels
from gpuqueue.queue import LEDGER_BYTES
from replicas import Replicas, Witness
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(120)]


@pytest.fixture
def replicas(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Replicas]:
    """One replica of the controller."""
    with Replicas(control_plane, tmp_path) as running:
        yield running
        for identity, process in running.running.items():
            assert process.poll() is None, f"{identity} ended\n{running.logs()}"


@pytest.fixture
def team(api: Client, managed: str) -> Iterator[Team]:
    team = Team(api, managed)
    yield team
    team.leave()


def test_as_many_start_as_the_quota_holds_and_the_next_when_one_ends(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=2)])
    for name in ("a", "b", "c", "d"):
        team.submit(name)
    eventually("two start", lambda: team.open_pods() == {"a", "b"}, 30)
    eventually("the others are told their place", lambda: team.told("d") != "", 30)
    assert team.told("c").startswith("QuotaInUse: 1st of 2 in")
    assert "Ahead: c (1 GPU)." in team.told("d")
    team.end("a")
    eventually("the next starts", lambda: team.is_open("c"), 30)
    assert not team.is_open("d")
    eventually("it is told so", lambda: team.told("c").startswith("Granted: 1 GPU of lane l4 after waiting"), 30)


def test_a_step_as_argo_makes_it_waits_its_turn_and_shows_why(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=1)])
    team.submit("first")
    eventually("the first starts", lambda: team.is_open("first"), 30)
    team.create(make.argo_pod("train-9"))
    eventually("it is told", lambda: team.told("train-9") != "", 30)
    condition = next(c for c in team.pod("train-9")["status"]["conditions"] if c["type"] == labels.CONDITION)
    assert condition["reason"] == "Unschedulable"  # what Argo looks for to show the message
    assert condition["status"] == "False"
    team.end("first")
    eventually("it starts", lambda: team.is_open("train-9"), 30)
    grant = next(grant for grant in team.status()["grants"] if grant["name"] == "train-9")
    assert grant["kind"] == f"{team.name}/train-transactions.root.train"


def test_cpu_pods_pass_by(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=0)])
    team.submit("gpu")
    team.create(make.pod("cpu"))
    eventually("the GPU pod is told", lambda: team.told("gpu").startswith("NeverFits: it needs 1 GPU"), 30)
    assert team.is_open("cpu")
    assert not team.told("cpu")


def test_what_can_never_start_is_told_and_holds_nobody_up(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=2)])
    team.submit("huge", 10**9)
    team.submit("homeless", nodeSelector={})
    team.submit("liar", notes={labels.GROUP: "g", labels.GROUP_SIZE: "-3"})
    team.submit("modest")
    eventually("the modest one starts", lambda: team.is_open("modest"), 30)
    eventually("all are told", lambda: all(team.told(name) for name in ("huge", "homeless", "liar")), 30)
    assert "never has more than 2" in team.told("huge")
    assert "cloud.google.com/gke-accelerator=nvidia-l4 (l4)" in team.told("homeless")
    assert team.told("liar").startswith("GroupIncomplete")
    assert team.open_pods() == {"modest"}


def test_a_job_starts_whole_or_not_at_all(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=4)])
    team.submit("alone", 2)
    eventually("it starts", lambda: team.is_open("alone"), 30)
    team.api.apply(make.job("workers", team.name, parallelism=3, gpus=1))
    eventually("its pods are there", lambda: len(team.pods()) == 4, 30)
    workers = [pod["metadata"]["name"] for pod in team.pods() if pod["metadata"]["name"] != "alone"]
    eventually("they are told", lambda: all("It needs 3 GPUs; 2 of 4 are free" in team.told(worker) for worker in workers), 30)
    assert team.open_pods() == {"alone"}
    team.end("alone")
    eventually("all start", lambda: len(team.open_pods()) == 3, 30)
    assert team.grants() == {"job/workers"}
    assert len(team.status()["grants"][0]["members"]) == 3


def test_a_group_that_somebody_calls_like_a_job_is_not_that_jobs(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=4)])
    team.submit("stranger", notes=make.group("job/x", 1))
    team.api.apply(make.job("x", team.name, parallelism=3, gpus=1))
    eventually("all start", lambda: len(team.open_pods()) == 4, 30)
    assert team.grants() == {"job/x", "named/job/x"}


def test_the_jobs_of_a_jobset_start_together_and_its_driver_is_left_alone(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=4)])
    team.api.apply(make.JOBSET_KIND)
    jobset = make.jobset("distributed", team.name, replicas=2, parallelism=2)
    eventually("the kind JobSet", lambda: accepts(team.api, jobset), 30)
    path = f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{team.name}/jobsets/distributed"
    owner = make.owned_by(team.api.request("GET", path))
    team.submit("alone")
    eventually("it starts", lambda: team.is_open("alone"), 30)
    team.api.apply(make.job("distributed-driver-0", team.name, parallelism=1, gpus=0, owner=owner))
    for number in range(2):
        team.api.apply(make.job(f"distributed-workers-{number}", team.name, parallelism=2, gpus=1, owner=owner))
    eventually("all pods are there", lambda: len(team.pods()) == 6, 30)
    waiting = [pod["metadata"]["name"] for pod in team.pods() if pod["spec"].get("schedulingGates")]
    assert len(waiting) == 4
    eventually("they are told", lambda: all("It needs 4 GPUs; 3 of 4 are free" in team.told(name) for name in waiting), 30)
    team.end("alone")
    eventually("all start", lambda: len(team.open_pods()) == 5, 30)
    assert team.grants() == {"jobset/distributed"}


@pytest.mark.timeout(300)
def test_a_line_whose_ledger_is_full_stands_still_and_goes_on_as_grants_end(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=10_000)])
    longest = [f"{number:03}".ljust(253, "<") for number in range(LEDGER_BYTES // 3000)]  # a name that takes the most room in a ledger
    for number, name in enumerate(longest):
        team.submit(f"p{number:03}", notes=make.group(name, 1))
    eventually("the last waits", lambda: team.told(f"p{len(longest) - 1:03}").startswith("Behind"), seconds=120)
    granted = team.open_pods()
    assert 0.8 * len(longest) < len(granted) < len(longest)
    assert granted == {f"p{number:03}" for number in range(len(granted))}
    eventually("the first in line is told", lambda: team.told(f"p{len(granted):03}").startswith("LedgerFull"), 30)
    for name in sorted(granted)[:5]:
        team.end(name)
    eventually("as many start as have ended", lambda: team.is_open(f"p{len(granted) + 4:03}"), 30)
    assert not team.is_open(f"p{len(granted) + 5:03}")


def test_what_ended_leaves_the_ledger_soon_also_when_nobody_waits(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=4)])
    for name in ("a", "b"):
        team.submit(name)
    eventually("both start", lambda: team.grants() == {"a", "b"}, 30)
    team.end("a")
    team.end("b")
    eventually("nothing is held", lambda: not team.grants(), seconds=10)


def accepts(api: Client, thing: Object) -> bool:
    """Whether the API server knows the kind already."""
    try:
        api.apply(thing)
    except (Refused, StopIteration):
        return False
    return True


def test_the_last_pods_of_a_job_do_not_wait_for_siblings_that_never_come(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=4)])
    team.api.apply(make.job("batch", team.name, parallelism=2, completions=3, gpus=1, ends_after="500ms"))
    path = f"/apis/batch/v1/namespaces/{team.name}/jobs/batch"
    eventually("the job ends", lambda: team.api.request("GET", path)["status"].get("succeeded") == 3, 60)


def test_a_pod_that_runs_without_a_gate_is_counted_and_left_alone(replicas: Replicas, api: Client, unmanaged: str) -> None:
    team = Team(api, unmanaged)
    team.submit("early", 3)  # before the queue was there
    team.queue(lanes=[make.lane(quota=4)])
    eventually("it is in the ledger", lambda: team.grants() == {"early"}, 30)
    assert team.status()["grants"][0]["foreign"] is True
    api.request("PATCH", f"/api/v1/namespaces/{unmanaged}", {"metadata": {"labels": {labels.MANAGED: "true"}}})
    team.submit("late", 2)
    eventually("the next one is told", lambda: "1 of 4 are free" in team.told("late"), 30)
    team.end("early")
    eventually("it starts", lambda: team.is_open("late"), 30)


def test_a_queue_that_borrows_from_a_pool_says_so_in_the_pools_ledger(
    replicas: Replicas, team: Team, fresh_name: Callable[[], str]
) -> None:
    pool = fresh_name()
    team.api.apply(make.queue(pool, namespaces=[], lanes=[make.lane(quota=2)]))
    team.queue(lanes=[make.lane(quota=1)], pool={"name": pool, "maxBorrow": 1})
    for name in ("a-own", "b-borrowed", "c-waits"):
        team.submit(name)
    eventually("two start", lambda: team.open_pods() == {"a-own", "b-borrowed"}, 30)
    lent = team.api.request("GET", f"{QUEUES}/{pool}")["status"]["grants"]
    assert [(grant["name"], grant["owner"]) for grant in lent] == [("b-borrowed", team.name)]


def test_a_ledger_that_somebody_edited_is_survived(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=2)])
    nonsense = make.grant("nowhere", uid="not-a-uid", gpus=7) | {"at": "2026-11-21T12:00:00Z", "lane": "gone", "limit": "soon"}
    body = team.api.request("GET", f"{QUEUES}/{team.name}")
    body["status"] = {"grants": [nonsense, make.grant(team.name, uid="x", gpus=0)]}
    team.api.request("PUT", f"{QUEUES}/{team.name}/status", body, person=make.GLASS_BREAKER)
    team.submit("a")
    eventually("a pod starts all the same", lambda: team.is_open("a"), 30)
    eventually("what is not there is let go", lambda: team.grants() == {"a"}, 30)


def test_what_people_write_on_their_pods_holds_nobody_else_up(replicas: Replicas, team: Team) -> None:
    """The ledger is one object: one entry that its schema refuses, or figures that no integer holds, would keep all from being written."""
    team.queue(lanes=[make.lane(quota=2)])
    enormous = {"resources": {"limits": {"nvidia.com/gpu": str(9 * 10**18)}}}
    team.submit("a-enormous", containers=[{"name": name, "image": "x", **enormous} for name in ("one", "two")])
    team.submit("b-family", notes={"workflows.argoproj.io/node-name": "run." + "step" * 1000})
    team.submit("c-group", notes=make.group("g" * 5000, 1))
    team.submit("d-size", notes={labels.GROUP: "g", labels.GROUP_SIZE: "9" * 5000})
    team.submit("e-limit", notes={labels.RUN_LIMIT: "999999999h"})
    team.submit("f-modest")
    eventually("what can start starts", lambda: team.open_pods() == {"b-family", "e-limit"}, 30)
    eventually("the others wait", lambda: team.status().get("queue", {}).get("waiting") == 4, 30)
    eventually("they are told", lambda: all(team.told(name) for name in ("a-enormous", "c-group", "d-size", "f-modest")), 30)
    team.end("e-limit")
    eventually("the next starts", lambda: team.is_open("f-modest"), 30)


def test_a_policy_that_refuses_to_open_gates_is_named_and_holds_no_gpus(
    replicas: Replicas, team: Team, api: Client, fresh_name: Callable[[], str]
) -> None:
    team.queue(lanes=[make.lane(quota=1)])
    stubborn = make.refusing_policy(fresh_name(), team.name, "frozen")
    for thing in stubborn:
        api.apply(thing)
    eventually("the policy is in force", lambda: make.refuses(api, team.name), 30)
    team.submit("a-stuck", nodeSelector={**L4, "test": "frozen"})
    team.submit("b-free")
    eventually("it is told who refuses", lambda: "nothing of this team changes" in team.told("a-stuck"), 60)
    eventually("the other one starts", lambda: team.is_open("b-free"), 30)
    assert team.grants() == {"b-free"}


def test_a_lane_whose_quota_is_cut_takes_nothing_back(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=2)])
    team.submit("a")
    team.submit("b")
    eventually("both start", lambda: team.open_pods() == {"a", "b"}, 30)
    team.queue(lanes=[make.lane(quota=1)])
    team.submit("c")
    eventually("the third is told", lambda: team.told("c") != "", 30)
    team.end("a")
    eventually("the ledger follows", lambda: team.grants() == {"b"}, 30)
    assert not team.is_open("c")


def test_a_spent_budget_holds_what_is_new(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=2)], budget={"gpuHours": 1, "whenSpent": "hold"})
    body = team.api.request("GET", f"{QUEUES}/{team.name}")
    period = make.this_month()
    body["status"] = {"spent": {"period": period, "gpuSeconds": 4000}}
    team.api.request("PUT", f"{QUEUES}/{team.name}/status", body, person=make.GLASS_BREAKER)
    team.submit("late")
    eventually("it is told", lambda: team.told("late").startswith("BudgetSpent: 1st of 1"), 30)
    assert "1 of 1 GPU hours" in team.told("late")
    team.queue(lanes=[make.lane(quota=2)], budget={"gpuHours": 2, "whenSpent": "hold"})
    eventually("it starts once there is more", lambda: team.is_open("late"), 30)


def test_a_namespace_that_no_queue_names_is_told_so(replicas: Replicas, team: Team) -> None:
    team.submit("lost")
    eventually("it is told", lambda: team.told("lost").startswith("NoQueue: namespace"), 30)


def test_a_quota_of_kubernetes_itself_counts_pods_that_wait(replicas: Replicas, team: Team, api: Client) -> None:
    """Why a GPU ResourceQuota does not belong into a managed namespace, except as a cap on the length of the line."""
    team.queue(lanes=[make.lane(quota=1)])
    api.apply(make.resource_quota(team.name, gpus=3))
    path = f"/api/v1/namespaces/{team.name}/resourcequotas/gpus"
    eventually("Kubernetes counts", lambda: "hard" in api.request("GET", path).get("status", {}), 30)
    for name in ("a", "b", "c"):
        team.submit(name)
    with pytest.raises(Exception, match="exceeded quota"):
        team.submit("d")
    eventually("one starts", lambda: len(team.open_pods()) == 1, 30)
    eventually("the others wait in the line", lambda: team.told("c").startswith("Behind: 2nd of 2"), 30)


def test_the_api_server_may_go_and_come_back(replicas: Replicas, control_plane: ControlPlane, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=1)])
    team.submit("a")
    eventually("it starts", lambda: team.is_open("a"), 30)
    team.submit("b")
    with Witness(team.api, frozenset({team.name})) as witness:
        control_plane.restart("kube-apiserver")
        team.end("a")
        eventually("the next one starts", lambda: team.is_open("b"), 60)
        eventually("the witness has seen it", lambda: "b" in {name for _, name in witness.opened}, 60)
    assert witness.most[team.name] <= 1
    eventually("the guards know queues again", team.may_have_a_queue, 30)


def test_a_share_of_the_budget_is_told_on_the_queue(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=2)], budget={"gpuHours": 10, "warnAt": [50, 80]})
    body = team.api.request("GET", f"{QUEUES}/{team.name}")
    body["status"] = {"spent": {"period": make.this_month(), "gpuSeconds": 6 * 3600}}
    team.api.request("PUT", f"{QUEUES}/{team.name}/status", body, person=make.GLASS_BREAKER)

    def notes() -> list[str]:
        events = team.api.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
        return [event["note"] for event in events if event["regarding"]["name"] == team.name]

    eventually("an event says so", lambda: bool(notes()), 30)
    assert notes() == [f"50 % of the 10 GPU hours of {make.this_month()} are spent; see: gpuq usage {team.name}"]
