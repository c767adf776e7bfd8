"""What has run is remembered: across restarts, shutdowns and kills, and people are told what follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gpu_objects as make
from control_plane import ControlPlane
from gpu_team import Team
from gpuqueue.controller.rounds import _FREE_SECONDS
from gpuqueue.history import Past, read_history
from replicas import Replicas
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(180)]

CONFIG_MAPS = f"/api/v1/namespaces/{make.RELEASE_NAMESPACE}/configmaps"


@pytest.fixture
def replicas(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(control_plane, tmp_path) as running:
        yield running


@pytest.fixture
def team(control_plane: ControlPlane, managed: str) -> Iterator[Team]:
    team = Team(control_plane.client, managed)
    yield team
    team.leave()


def remembered(team: Team) -> list[Past]:
    """What the archive has of a team, oldest first."""
    maps = team.api.request("GET", f"{CONFIG_MAPS}?labelSelector=gpu-queue.dev/history")["items"]
    lines = [line for each in maps for line in each.get("data", {}).get("pasts", "").splitlines()]
    return sorted((past for past in read_history(lines).pasts if past.queue == team.name), key=lambda past: past.at)


def run_through(team: Team, *names: str) -> None:
    """Let each of these start and end."""
    for name in names:
        team.submit(name)
        eventually(f"{name} starts", lambda name=name: team.is_open(name), 30)  # type: ignore[misc]
        team.end(name)
        eventually(f"{name} leaves the ledger", lambda name=name: name not in team.grants(), 30)  # type: ignore[misc]


def test_what_has_ended_is_written_down_when_the_controller_is_stopped(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=1)])
    run_through(team, "a", "b")
    replicas.terminate(replicas.leader())
    assert [(past.name, past.gpus, past.lane, past.namespace) for past in remembered(team)] == [
        ("a", 1, "l4", team.name),
        ("b", 1, "l4", team.name),
    ]
    assert all(past.since <= past.at <= past.ended <= time.time() + 1 for past in remembered(team))


@pytest.mark.slow
def test_what_has_ended_is_written_down_after_a_while_and_a_killed_leader_loses_no_more_than_that(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=1)])
    run_through(team, "a")
    eventually("it is written down", lambda: [past.name for past in remembered(team)] == ["a"], 40)
    run_through(team, "b")
    replicas.kill(replicas.leader())
    run_through(team, "c")
    replicas.terminate(replicas.leader())
    names = [past.name for past in remembered(team)]
    assert names in (["a", "c"], ["a", "b", "c"]), "only the last lines of who is killed are lost, and nothing is there twice"


def test_who_waits_is_told_a_likely_start_once_something_has_run(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane(quota=1)])
    team.submit("never-seen-before")
    eventually("it starts", lambda: team.is_open("never-seen-before"), 30)
    team.submit("next")
    eventually("it is told", lambda: team.told("next") != "", 30)
    team.end("never-seen-before")
    eventually("the next starts", lambda: team.is_open("next"), 30)
    team.submit("last")
    eventually("the last is told a start", lambda: "Likely start" in team.told("last"), 30)


def test_a_new_leader_knows_what_ran_under_the_old_one(replicas: Replicas, team: Team) -> None:
    team.queue(lanes=[make.lane("a100", quota=1)])
    pin = {"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-a100"}}
    for name in ("a", "b"):
        team.submit(name, **pin)
    eventually("the first starts", lambda: team.is_open("a"), 30)
    team.end("a")
    eventually("the second starts", lambda: team.is_open("b"), 30)
    replicas.terminate(replicas.leader())
    replicas.start()
    team.submit("c", **pin)
    eventually("a start is told", lambda: "Likely start" in team.told("c"), 30)


def test_what_was_lent_is_remembered_as_the_borrowers(replicas: Replicas, team: Team, fresh_name: Callable[[], str]) -> None:
    pool = fresh_name()
    team.api.apply(make.queue(pool, namespaces=[], lanes=[make.lane(quota=1)]))
    team.queue(lanes=[make.lane(quota=0)], pool={"name": pool, "maxBorrow": 1})
    team.submit("borrowed")
    eventually("it starts", lambda: team.is_open("borrowed"), 30)
    team.end("borrowed")
    ledger = f"/apis/gpu-queue.dev/v1/gpuqueues/{pool}"
    eventually("it is given back", lambda: not team.api.request("GET", ledger)["status"].get("grants"), 30)
    replicas.terminate(replicas.leader())
    assert [past.name for past in remembered(team)] == ["borrowed"]


@pytest.mark.slow
def test_gpu_seconds_are_counted_once_though_the_leader_is_killed_again_and_again(replicas: Replicas, team: Team) -> None:
    """They are in the ledger's own write: whoever is killed when, what has ended is in `spent`, and what has not is in the ledger."""
    team.queue(lanes=[make.lane(quota=8)])
    spans: list[tuple[float, float]] = []
    for name in ("a", "b"):
        team.submit(name, 8)
        eventually("it starts", lambda name=name: team.is_open(name), 60)  # type: ignore[misc]
        eventually("it is in the ledger", lambda name=name: name in team.grants(), 30)  # type: ignore[misc]
        began = make.moment(team.status()["grants"][0]["at"])
        time.sleep(1)  # GPU time is what is measured
        replicas.kill(replicas.leader() or next(iter(replicas.running)))
        team.end(name)
        eventually("it leaves the ledger", lambda name=name: name not in team.grants(), 60)  # type: ignore[misc]
        spans.append((began, time.time()))
    spent = team.status()["spent"]["gpuSeconds"]
    most = sum(8 * (end - begin) for begin, end in spans)
    assert spent <= most + len(spans)
    least = most - 8 * (1.0 + _FREE_SECONDS) * len(spans)
    assert spent >= least, "each is counted from its grant until the round that saw it gone, and leaves the ledger soon after"
    replicas.kill(next(iter(replicas.running)))
    team.submit("d", 1)
    eventually("the next starts", lambda: team.is_open("d"), 60)
    assert team.status()["spent"]["gpuSeconds"] == spent
