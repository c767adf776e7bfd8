"""A rollout as its owner types it, on any cluster: `millrace rollout` over a release, judged by a Prometheus that scrapes the gateways' pods.

The environment is that of `test_model_serving_on_a_cluster.py`. Prometheus runs here and reaches the pods through the API server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import served_models
import serving_release
from prometheus_server import PrometheusServer
from serving_release import NAME, ServingRelease, Steady, installed, stable, store_here
from typed_commands import MILLRACE
from typed_platform import surroundings
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.prometheus, pytest.mark.timeout(900), serving_release.NEEDED]
PLAN = ("steps=[10,50,100]", "min_requests=200", "min_seconds=5", "every_seconds=2", "keep_warm_seconds=600")
SECONDS_TO_GO_BACK = 10
"""Until the last request is answered by the version that is taken back, from the moment the command is typed."""


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Version 2 predicts as version 1 does; version 3 calls half of what they call `in` something else."""
    folder = tmp_path_factory.mktemp("saved")
    beyond = {1: 0.0, 2: 0.0, 3: 500.0}
    return {
        version: served_models.publish(store_here(), NAME, version, folder / str(version), above=above) for version, above in beyond.items()
    }


@pytest.fixture(scope="module")
def release(digests: dict[int, str]) -> Iterator[ServingRelease]:
    with installed(stable(digests, 1)) as release:
        yield release


@pytest.fixture(scope="module")
def prometheus(release: ServingRelease, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """It scrapes what the chart's PodMonitor names, with the labels that an operator would give. No gateway comes or goes meanwhile."""
    pods = sorted(release.ready_pods("gateway"))
    page = "/api/v1/namespaces/{}/pods/{}:8502/proxy/metrics"
    targets = [
        {
            "targets": [release.client.url.removeprefix("http://")],
            "labels": {"__metrics_path__": page.format(NAME, pod), "instance": pod, "namespace": NAME},
        }
        for pod in pods
    ]
    scrape = {"job_name": "gateways", "scrape_interval": "1s", "static_configs": targets}
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), scrape=[scrape]) as server:
        yield server


class Owner:
    """Somebody at a machine of their own, who owns the model."""

    def __init__(self, folder: Path, prometheus: PrometheusServer, name: str) -> None:
        self._folder = folder / name
        self._environment = surroundings(serving_release.KUBECONFIG) | {
            "MILLRACE_RELEASE": NAME,
            "MILLRACE_NAMESPACE": NAME,
            "MILLRACE_PROMETHEUS": prometheus.url,
            "MILLRACE_WORKSPACE": str(self._folder / "workspace"),
            "MILLRACE_DATABASE": f"sqlite:///{folder}/shared.db",  # where the audit log lies
            "MILLRACE_USER": name,
        }
        self._type("new", NAME, "--into", str(self._folder))

    def start(self, version: int, digest: str) -> None:
        plan = [f"--set=deployment.rollout.{field}" for field in PLAN]
        said = self._type("rollout", "start", str(self._folder / NAME), f"--version={version}", f"--digest={digest}", "--reason=new week",
                          "--set=deployment.log.share=1", *plan)  # fmt: skip
        assert f"Version {version} of {NAME} answers 10 %" in said

    def begin_to_run(self) -> subprocess.Popen[str]:
        """`millrace rollout run`, in a group of its own."""
        return subprocess.Popen(
            [MILLRACE, "rollout", "run", NAME], env=self._environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, code: int = 0) -> str:
        return self._type("rollout", "run", NAME, code=code)

    def roll_back(self) -> None:
        self._type("rollout", "rollback", NAME, "--reason=customers complain")

    def state(self) -> Any:
        return json.loads(self._type("rollout", "status", NAME, "--json"))["rollout"]

    def audited(self) -> list[str]:
        """What was done, by whom, the oldest first."""
        self._type("audit", "verify")
        entries = [json.loads(line) for line in self._type("audit", "export").splitlines()]
        return [f"{entry['who']} {entry['action']}" for entry in entries]

    def _type(self, *words: str, code: int = 0) -> str:
        done = subprocess.run([MILLRACE, *words], env=self._environment, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_a_version_takes_over_while_its_driver_dies_and_is_taken_back_in_seconds(
    release: ServingRelease, prometheus: PrometheusServer, digests: dict[int, str], tmp_path: Path
) -> None:
    ann, bob = (Owner(tmp_path, prometheus, name) for name in ("ann", "bob"))
    with Steady(release, "promoted") as steady:
        ann.start(2, digests[2])
        with ann.begin_to_run() as driving:
            eventually("the second step began", lambda: ann.state()["step"] == 1, 180, every=0.2)
            os.killpg(driving.pid, signal.SIGKILL)
        said = bob.run()
        assert "Version 2 answers everything. Version 1 stays warm" in said
        time.sleep(3)
        typed = time.time()
        bob.roll_back()
        time.sleep(SECONDS_TO_GO_BACK)
    assert not steady.failures
    assert steady.versions == {"1", "2"}
    assert steady.last(2) - typed < SECONDS_TO_GO_BACK
    assert steady.last(1) > typed + SECONDS_TO_GO_BACK / 2
    assert ann.state()["phase"] == "rolled_back"
    assert not release.of_track("canary") or all("deletionTimestamp" in pod["metadata"] for pod in release.of_track("canary"))
    done = ann.audited()
    assert done[0] == "ann rollout.start"
    assert done[-1] == "bob rollout.rollback"
    print(f"\nversion 2 last answered {steady.last(2) - typed:+.1f} s after the rollback was typed; {steady.count} answers, none failed")


def test_a_version_that_predicts_otherwise_is_aborted_by_itself_and_nobody_notices(
    release: ServingRelease, prometheus: PrometheusServer, digests: dict[int, str], tmp_path: Path
) -> None:
    ann = Owner(tmp_path, prometheus, "ann")
    with Steady(release, "aborted") as steady:
        ann.start(3, digests[3])
        said = ann.run(code=3)
        time.sleep(5)
    assert not steady.failures
    assert "classes" in said
    state = ann.state()
    assert (state["phase"], state["to_version"]) == ("aborted", 3)
    assert steady.last(1) > state["ended"] + 2
    assert steady.last(3) < state["ended"] + SECONDS_TO_GO_BACK
    print(f"\naborted by: {state['ended_because']}")
