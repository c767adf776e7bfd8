"""What becomes of GPUs that nobody uses, and of pods that run for too long: real Prometheus, real evictions, and time that is ours."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

import gpu_objects as make
from control_plane import ControlPlane
from gpu_team import Team
from gpuqueue.cluster import access
from gpuqueue.cluster.api import Api
from gpuqueue.commands import reading
from gpuqueue.controller.messenger import Budget, Messenger
from gpuqueue.controller.settings import Settings
from gpuqueue.controller.use import GpuUse
from gpuqueue.metrics import Metrics
from gpuqueue.prometheus import Prometheus, Source
from prometheus_server import PrometheusServer, Series
from replicas import Replicas
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.prometheus, pytest.mark.timeout(120)]

MINUTE = 60.0
IDLE = {"metric": "gr_engine_active", "below": 0.05, "for": "10m", "grace": "10m"}


@pytest.fixture
def replicas(module_plane: ControlPlane, tmp_path: Path) -> Iterator[Replicas]:
    with Replicas(module_plane, tmp_path) as running:
        yield running


@pytest.fixture
def new_team(module_plane: ControlPlane, fresh_name: Callable[[], str], replicas: Replicas) -> Callable[..., Team]:
    """A team whose queue has these fields, with pods that run."""

    def made(*names: str, notes: dict[str, str] | None = None, **spec: Any) -> Team:
        team = Team(module_plane.client, fresh_name())
        team.api.request("POST", "/api/v1/namespaces", make.namespace(team.name))
        team.queue(**spec)
        for name in names:
            team.submit(name, notes=notes)
        eventually("they run", lambda: all(team.pod(name)["status"].get("phase") == "Running" for name in names), 30)
        eventually("they are in the ledger", lambda: team.grants() == set(names), 30)
        return team

    return made


def busy(team: Team, pod: str, activity: float, begin: float) -> Series:
    """Three hours of one GPU, from a little before `begin`."""
    labels = {"namespace": team.name, "pod": pod, "UUID": f"GPU-{team.name}-{pod}", "gpu": "0", "instance": "node:9400"}
    return Series(
        name="DCGM_FI_PROF_GR_ENGINE_ACTIVE", labels=labels, values={begin - 20 * MINUTE + 30 * n: activity for n in range(6 * 60)}
    )


class Looks:
    """The controller's looks after GPU use, at moments of our choice, as the controller's own account."""

    def __init__(self, plane: ControlPlane, prometheus: str = "") -> None:
        self._plane, self._prometheus = plane, prometheus
        self.troubles: list[str] = []
        self._kept: GpuUse | None = None

    def at(self, *moments: float) -> None:
        asyncio.run(self._looks(moments))

    async def _looks(self, moments: tuple[float, ...]) -> None:
        kubeconfig = str(self._plane.kubeconfig_for(make.CONTROLLER.user))
        async with Api(access.find(kubeconfig)) as api, aiohttp.ClientSession() as session:
            view = (await reading.look(api, argparse.Namespace(queue_namespace=make.RELEASE_NAMESPACE))).view
            source = Source(url=self._prometheus, namespace_label="namespace", pod_label="pod")
            messenger = Messenger(
                api,
                identity="looks",
                budget=Budget(1000),
                top=20,
                surface=True,
                events=True,
                told=lambda _: None,
                trouble=self.troubles.append,
            )
            use = GpuUse(api, view, Settings(), Metrics(), messenger, leading=lambda: True, trouble=self.troubles.append)
            if self._kept is not None:
                use._uses, use._rungs, use._told = self._kept._uses, self._kept._rungs, self._kept._told
            self._kept = use
            for moment in moments:
                await use.once(Prometheus(session, source) if self._prometheus else None, moment)


def events(team: Team, reason: str) -> list[tuple[str, str]]:
    """Pod and words of each warning, in the order in which they were given."""
    found = team.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{team.name}/events")["items"]
    warnings = sorted((each for each in found if each["reason"] == reason), key=lambda each: str(each["eventTime"]))
    assert all(each["type"] == "Warning" for each in warnings)
    return [(each["regarding"]["name"], each["note"]) for each in warnings]


def alive(team: Team) -> set[str]:
    return {pod["metadata"]["name"] for pod in team.pods() if "deletionTimestamp" not in pod["metadata"]}


@pytest.fixture
def permit(module_plane: ControlPlane, helm: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[Callable[[bool], None]]:
    """Installs the chart's role with `mayEvict` or without."""
    api = module_plane.client

    def set_to(may: bool) -> None:
        rendered = yaml.safe_load_all(helm("--set", f"mayEvict={str(may).lower()}").stdout)
        api.apply(next(each for each in rendered if each and each["kind"] == "ClusterRole" and each["metadata"]["name"] == "gpu-queue"))
        attributes = {"resource": "pods", "subresource": "eviction", "verb": "create", "namespace": "default"}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": make.CONTROLLER.user}}
        review["spec"]["resourceAttributes"] = attributes  # type: ignore[index]
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        eventually("the role is in force", lambda: api.request("POST", path, review)["status"]["allowed"] is may, 30)

    yield set_to
    set_to(False)


def test_idle_pods_are_warned_and_evicted_where_the_queue_says_so_and_the_chart_lets_it(
    new_team: Callable[..., Team], module_plane: ControlPlane, permit: Callable[[bool], None], tmp_path: Path
) -> None:
    strict = new_team("busy", "idle", "unseen", idle={**IDLE, "action": "evict"})
    mild = new_team("idle", idle={**IDLE, "action": "warn"})
    begin = time.time()
    history = [busy(strict, "busy", 0.9, begin), busy(strict, "idle", 0.0, begin), busy(mild, "idle", 0.01, begin)]
    with PrometheusServer(tmp_path, history) as prometheus:
        looks = Looks(module_plane, prometheus.url)
        looks.at(begin + 5 * MINUTE)
        assert events(strict, "IdleGPUs") == [], "not idle for long enough"

        looks.at(begin + 15 * MINUTE, begin + 16 * MINUTE)
        ((pod, words),) = events(strict, "IdleGPUs")
        assert pod == "idle"
        assert words.startswith("1 GPU of lane l4 idle for 1")
        assert "the pod is evicted in 10m" in words
        ((pod, words),) = events(mild, "IdleGPUs")
        assert "gpuq queue" in words, "who evicts nobody does not threaten"

        looks.at(begin + 21 * MINUTE, begin + 24 * MINUTE)
        assert len(events(strict, "IdleGPUs")) == len(events(mild, "IdleGPUs")) == 2
        assert alive(strict) == {"busy", "idle", "unseen"}
        assert looks.troubles == []

        looks.at(begin + 26 * MINUTE)
        assert "The pod is evicted" in events(strict, "IdleGPUs")[-1][1]
        assert alive(strict) == {"busy", "idle", "unseen"}, "the chart has not given the permission"
        assert f"pod {strict.name}/idle should be evicted and was not" in looks.troubles[0]

        permit(True)
        looks.at(begin + 27 * MINUTE)
        eventually("it is evicted", lambda: alive(strict) == {"busy", "unseen"}, 30)
        assert alive(mild) == {"idle"}
        assert len(events(strict, "IdleGPUs")) == 3, "nothing is said twice"


def test_nobody_is_idle_while_prometheus_does_not_answer(new_team: Callable[..., Team], module_plane: ControlPlane) -> None:
    team = new_team("idle", idle={**IDLE, "action": "evict"})
    looks = Looks(module_plane, "http://127.0.0.1:9")
    looks.at(*(time.time() + minutes * MINUTE for minutes in (15, 30, 45)))
    assert events(team, "IdleGPUs") == []
    assert alive(team) == {"idle"}
    assert "no GPU activity from http://127.0.0.1:9" in looks.troubles[0]


def test_run_limits_are_enforced_where_the_queue_says_so(
    new_team: Callable[..., Team], module_plane: ControlPlane, permit: Callable[[bool], None]
) -> None:
    permit(True)
    limit = {"gpu-queue.dev/run-limit": "10m"}
    strict = new_team("long", notes=limit, enforceRunLimit=True)
    mild = new_team("long", notes=limit)
    unlimited = new_team("long", enforceRunLimit=True)
    begin, looks = time.time(), Looks(module_plane)
    looks.at(begin + 9 * MINUTE)
    assert alive(strict) == {"long"}
    looks.at(begin + 11 * MINUTE)
    eventually("it is evicted", lambda: alive(strict) == set(), 30)
    ((pod, words),) = events(strict, "RunLimit")
    assert pod == "long"
    assert "longer than its run limit of 10m" in words
    assert alive(mild) == alive(unlimited) == {"long"}
    assert looks.troubles == []


def test_without_the_permission_a_run_limit_is_told_once_and_the_pod_runs_on(
    new_team: Callable[..., Team], module_plane: ControlPlane, permit: Callable[[bool], None]
) -> None:
    permit(False)
    team = new_team("long", notes={"gpu-queue.dev/run-limit": "10m"}, enforceRunLimit=True)
    begin, looks = time.time(), Looks(module_plane)
    looks.at(begin + 11 * MINUTE, begin + 12 * MINUTE)
    assert alive(team) == {"long"}
    assert len(events(team, "RunLimit")) == 1
    mine = [trouble for trouble in looks.troubles if team.name in trouble]
    assert len(mine) == 2, "it is tried again"
    assert "forbidden" in mine[0]
