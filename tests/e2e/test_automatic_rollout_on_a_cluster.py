"""The loop on a cluster, closed: an alert starts a run, and what the run registers takes over all requests by itself, or is taken back, by the chart of the trigger.

The environment is that of `test_model_serving_on_a_cluster.py`, and beside it our image of the trigger and an address of this machine that pods reach:

MILLRACE_E2E_TRIGGER_IMAGE=REPOSITORY:TAG MILLRACE_E2E_HERE=ADDRESS pytest tests/e2e/test_automatic_rollout_on_a_cluster.py

Trigger, servers and gateways are pods. PostgreSQL, MLflow, Prometheus and what plays Kubeflow Pipelines run here, at that address; the run itself trains nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import programs
import served_models
import serving_release
import typed_kubectl
from cluster_release import CHARTS
from control_plane import free_ports
from kubeflow_api import KubeflowApi, kubeflow_api
from mlserving.rollout.aliases import RUN, client_at
from postgres import postgres_server, url_of
from prometheus_server import PrometheusServer
from relays import relayed
from serving_release import NAME, ServingRelease, Steady, installed, stable, store_here
from triggers import TOKEN, an_alert
from typed_commands import millrace
from typed_platform import surroundings
from waiting import eventually

HERE, IMAGE = (os.environ.get(f"MILLRACE_E2E_{name}", "") for name in ("HERE", "TRIGGER_IMAGE"))
HOME = "cards-trigger"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PLAN = {"steps": [10, 50, 100], "min_requests": 200, "min_seconds": 5, "every_seconds": 2, "keep_warm_seconds": 5}
NEVER = {1: 0.0, 2: 0.0, 3: 500.0}
"""By version, above which amount it says something else: version 3 does so for half of what the others call `in`."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.prometheus,
    pytest.mark.postgres,
    pytest.mark.timeout(1500),
    serving_release.NEEDED,
    pytest.mark.skipif(not (HERE and IMAGE), reason="name the trigger's image and an address of this machine that pods reach: MILLRACE_E2E_TRIGGER_IMAGE, MILLRACE_E2E_HERE"),
]  # fmt: skip
kubectl = partial(typed_kubectl.kubectl, serving_release.KUBECONFIG)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingRelease]:
    """Version 1 answers; 2 and 3 are published."""
    folder = tmp_path_factory.mktemp("saved")
    digests = {
        version: served_models.publish(store_here(), NAME, version, folder / str(version), above=above) for version, above in NEVER.items()
    }
    with installed(stable(digests, 1)) as release:
        yield release


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the trigger asks, by the addresses that pods know."""

    kubeflow: KubeflowApi
    registry: str
    """As it is known here."""
    values: dict[str, Any]
    database: str


@pytest.fixture(scope="module")
def around(release: ServingRelease, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("around")
        kubeflow, database, registry = (
            stack.enter_context(kubeflow_api()),
            stack.enter_context(postgres_server()),
            stack.enter_context(mlflow(folder)),
        )
        prometheus = stack.enter_context(PrometheusServer(folder, scrape=[gateways(release)]))
        port = {
            name: stack.enter_context(relayed(HERE, there))
            for name, there in {
                "kubeflow": kubeflow.port,
                "database": database,
                "registry": registry,
                "prometheus": int(prometheus.url.rpartition(":")[2]),
            }.items()
        }
        values = {
            "kubeflow": {"url": f"http://{HERE}:{port['kubeflow']}", "image": f"registry.example/steps@sha256:{64 * 'a'}"},
            "rollouts": {
                "releases": {NAME: {"release": NAME, "namespace": NAME}},
                "prometheus": f"http://{HERE}:{port['prometheus']}",
            },
            "registry": {"url": f"http://{HERE}:{port['registry']}"},
        }
        url = url_of(database).replace(f"127.0.0.1:{database}", f"{HERE}:{port['database']}")
        yield Surroundings(kubeflow=kubeflow, registry=f"http://127.0.0.1:{registry}", values=values, database=url)


@contextmanager
def mlflow(folder: Path) -> Iterator[int]:
    """A registry; who asks is not asked who they are."""
    (port,) = free_ports(1)
    place = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts", "--workers=1"]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", *place, "--allowed-hosts=*"]
    settings = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "mlflow.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, env=settings, cwd=folder, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        programs.wait("MLflow", process, log, answers, seconds=300)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def gateways(release: ServingRelease) -> dict[str, Any]:
    """How Prometheus, here, scrapes the gateways there: through the API server, with the labels that an operator would give. None comes or goes meanwhile."""
    page = "/api/v1/namespaces/{}/pods/{}:8502/proxy/metrics"
    targets = [
        {
            "targets": [release.client.url.removeprefix("http://")],
            "labels": {"__metrics_path__": page.format(NAME, pod), "instance": pod, "namespace": NAME},
        }
        for pod in sorted(release.ready_pods("gateway"))
    ]
    return {"job_name": "gateways", "scrape_interval": "1s", "static_configs": targets}


class Trigger:
    """The chart's pods, in a namespace that takes restricted ones only."""

    def __init__(self, around: Surroundings, folder: Path) -> None:
        self._around, self._folder = around, folder

    def install(self) -> None:
        """With the project, the Secrets and rights for nothing but the release."""
        kubectl("apply", "-f-", given={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME, "labels": RESTRICTED}})
        for name, key, value in (("trigger-token", "token", TOKEN), ("trigger-database", "url", self._around.database)):
            kubectl(
                "apply",
                "-f-",
                given={"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": HOME}, "stringData": {key: value}},
            )
        for thing in _claimed_projects(_project_folder(self._folder)):
            kubectl("apply", "-f-", given=thing)
        repository, _, tag = IMAGE.rpartition(":")
        values = {
            "image": {"repository": repository, "tag": tag},
            "every": 2,
            "workspace": {"claim": ""},
            "projects": {"claim": "projects"},
            "database": {"secretName": "trigger-database"},
            "token": {"secretName": "trigger-token"},
            "networkPolicy": {"egress": [{}]},  # what stands in for a cluster's services is outside of it
            **self._around.values,
        }
        (self._folder / "values.yaml").write_text(yaml.safe_dump(values))
        done = self._helm(
            "install", "retraining", str(CHARTS / "retraining"), "--values", str(self._folder / "values.yaml"), "--wait", "--timeout=300s"
        )
        assert done.returncode == 0, f"{done.stderr}\n{kubectl('get', 'pods', '--namespace', HOME)}\n{self.said()}"

    def remove(self) -> None:
        self._helm("uninstall", "retraining", "--ignore-not-found", "--wait", "--timeout=60s")
        kubectl("delete", "namespace", HOME, "--wait", "--timeout=90s")
        kubectl("delete", "persistentvolume", f"{HOME}-projects", "--wait=false")

    def post(self, fingerprint: str) -> str:
        """An alert about the model; the decision on it."""
        message = {"version": "4", "groupKey": "g", "alerts": [an_alert(NAME, fingerprint)]}
        ask = (
            "import sys, urllib.request as u; print(u.urlopen(u.Request('http://127.0.0.1:9096/alerts', sys.stdin.buffer.read(), "
            f"{{'Authorization': 'Bearer {TOKEN}', 'Content-Type': 'application/json'}})).read().decode())"
        )
        said = kubectl("exec", "--stdin", "deployment/retraining", "--namespace", HOME, "--", "python3", "-c", ask, given=message)
        return str(json.loads(said)["decisions"][0]["reason"])

    def rollouts(self) -> list[dict[str, Any]]:
        """As `millrace why` tells them, the newest first."""
        said = kubectl("exec", "deployment/retraining", "--namespace", HOME, "--", "python3", "-m", "mlpipelines", "why", NAME, "--json")
        found: list[dict[str, Any]] = json.loads(said)["rollouts"]
        return found

    def comes_into(self, version: int, *phases: str, seconds: float = 400) -> dict[str, Any]:
        """The rollout of a version, the newest, once it is in one of these phases."""
        seen: list[dict[str, Any]] = []

        def there() -> bool:
            seen[:] = self.rollouts()[:1]
            return bool(seen) and seen[0]["version"] == version and seen[0]["phase"] in phases

        try:
            eventually(f"the rollout of version {version} is {' or '.join(phases)}", there, seconds, every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.said()}") from error
        return seen[0]

    def kill(self) -> None:
        """All its pods, as if their nodes were lost; others come."""
        kubectl("delete", "pods", "--namespace", HOME, "--selector=app.kubernetes.io/name=retraining", "--grace-period=0", "--force")
        kubectl("rollout", "status", "deployment/retraining", "--namespace", HOME, "--timeout=300s")

    def said(self) -> str:
        return kubectl("logs", "--namespace", HOME, "--selector=app.kubernetes.io/name=retraining", "--tail=40", "--prefix")

    def _helm(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = surroundings(serving_release.KUBECONFIG)
        return subprocess.run(
            [environment["HELM"], "--namespace", HOME, *words], env=environment, capture_output=True, text=True, check=False
        )


def _project_folder(scratch: Path) -> str:
    """A project of the model's name that rolls out by itself, beside the store; where nodes see it."""
    ours, nodes = (f"{side}-projects" for side in serving_release.STORE.split("=", 1))
    shutil.rmtree(Path(ours) / NAME, ignore_errors=True)  # a test before this one may have been killed
    millrace("new", NAME, "--team", "web", "--into", ours, workspace=scratch / "workspace")
    file = Path(ours) / NAME / "project.yaml"
    project = yaml.safe_load(file.read_text())
    project["deployment"] = {**project.get("deployment", {}), "track": "canary", "rollout": PLAN, "log": {"share": 1}}
    project["retraining"] = {"rollout": "automatic", "cooldown_hours": 0}
    file.write_text(yaml.safe_dump(project))
    for path in (Path(ours), *Path(ours).rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return nodes


def _claimed_projects(path: str) -> list[dict[str, Any]]:
    size, name = {"storage": "1Gi"}, f"{HOME}-projects"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    claim = {"namespace": HOME, "name": "projects"}
    volume = {**common, "capacity": size, "hostPath": {"path": path}, "claimRef": claim}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": claim,
            "spec": {**common, "volumeName": name, "resources": {"requests": size}},
        },
    ]


@pytest.fixture(scope="module")
def registered(around: Surroundings) -> Any:
    """MLflow's client, with version 1 as the champion."""
    client = client_at(around.registry)
    client.create_registered_model(NAME)
    client.create_model_version(NAME, source="s3://models/1")
    client.set_registered_model_alias(NAME, "champion", "1")
    return client


@pytest.fixture(scope="module")
def trigger(around: Surroundings, registered: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trigger]:
    found = Trigger(around, tmp_path_factory.mktemp("trigger"))
    try:
        found.install()
        yield found
    finally:
        found.remove()


def train(trigger: Trigger, around: Surroundings, registered: Any, version: int) -> None:
    """An alert starts a run, which ends having registered the version."""
    before = len(around.kubeflow.runs)
    assert trigger.post(f"alert-{version}") == "started"
    eventually("a run was started", lambda: len(around.kubeflow.runs) > before, 60, every=0.2)
    run = around.kubeflow.runs[-1]["run_id"]
    made = registered.create_model_version(NAME, source=f"s3://models/{version}", tags={RUN: run})
    assert int(made.version) == version
    registered.set_registered_model_alias(NAME, "challenger", str(version))
    around.kubeflow.end("SUCCEEDED", run=-1)


def test_what_an_alert_brought_answers_everything_though_the_trigger_s_pods_are_killed_on_the_way(
    release: ServingRelease, around: Surroundings, registered: Any, trigger: Trigger
) -> None:
    with Steady(release, "promoted") as steady:
        train(trigger, around, registered, 2)
        begun = trigger.comes_into(2, "canary", "promoting")
        trigger.kill()
        ended = trigger.comes_into(2, "done", "aborted")
    assert (ended["run"], ended["phase"], ended["version"]) == (begun["run"], "done", 2), ended["text"]
    assert not steady.failures
    assert steady.versions == {"1", "2"}
    assert steady.last(2) > steady.last(1)
    assert registered.get_registered_model(NAME).aliases == {"champion": "2", "previous": "1"}
    assert not release.of_track("canary") or all("deletionTimestamp" in pod["metadata"] for pod in release.of_track("canary"))
    print(f"\n{steady.count} answers, none failed; {ended['text']}")


def test_what_predicts_otherwise_is_taken_back_by_itself_and_nobody_notices(
    release: ServingRelease, around: Surroundings, registered: Any, trigger: Trigger
) -> None:
    with Steady(release, "aborted") as steady:
        train(trigger, around, registered, 3)
        ended = trigger.comes_into(3, "done", "aborted")
    assert (ended["phase"], ended["version"]) == ("aborted", 3)
    assert "classes" in ended["text"]
    assert not steady.failures
    assert registered.get_registered_model(NAME).aliases["champion"] == "2"
    print(f"\naborted by: {ended['text']}")
