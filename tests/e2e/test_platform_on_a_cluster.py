"""The environment `laptop` on any cluster: deployed, ready, asked for a prediction, in line for a GPU, deployed again, and taken away.

With our images on its nodes as REGISTRY/NAME:TAG (`make images`), a folder that its nodes see under the same or another path, and, for the line, a node
with two GPUs and the label cloud.google.com/gke-accelerator=nvidia-l4:

MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_REGISTRY=REGISTRY MILLRACE_E2E_TAG=TAG MILLRACE_E2E_DISKS=OUR_PATH=NODES_PATH \
pytest tests/e2e/test_platform_on_a_cluster.py

Kubeflow Pipelines is left out: its release is fetched from where test machines do not reach. Where the public image of PostgreSQL cannot be pulled,
`tests/e2e/images/postgres` is one like it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import binaries
import node_disks
import served_models
import typed_kubectl
from mlplatform.google_names import database_user
from restricted_pod import restricted_pod
from typed_platform import ROOT, typed_for
from waiting import eventually

KUBECONFIG, REGISTRY, TAG, DISKS = (os.environ.get(f"MILLRACE_E2E_{name}", "") for name in ("KUBECONFIG", "REGISTRY", "TAG", "DISKS"))
WITHOUT = "--without=kubeflow-pipelines"
ACCELERATOR = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not (KUBECONFIG and REGISTRY and TAG and DISKS),
        reason="name a cluster, our images and disks: MILLRACE_E2E_KUBECONFIG, MILLRACE_E2E_REGISTRY, MILLRACE_E2E_TAG, MILLRACE_E2E_DISKS",
    ),
]


kubectl = partial(typed_kubectl.kubectl, KUBECONFIG)
platform = partial(typed_for, KUBECONFIG, seconds=900)


@pytest.fixture(scope="module")
def disks() -> Iterator[Path]:
    """A new disk for each claim; gone afterwards: a database that is found keeps the passwords of its own run."""
    Path(DISKS.partition("=")[0]).mkdir(parents=True, exist_ok=True)
    ours = Path(tempfile.mkdtemp(prefix="run-", dir=DISKS.partition("=")[0]))
    ours.chmod(0o755)
    made = node_disks.make(KUBECONFIG, ours, Path(DISKS.partition("=")[2]) / ours.name, node_disks.PLATFORM)
    yield ours
    kubectl("delete", "persistentvolume", "--wait=false", *made)
    shutil.rmtree(ours, ignore_errors=True)  # what pods wrote is theirs: only root can remove it


@pytest.fixture(scope="module")
def laptop(disks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The environment, deployed with the images of this test and a version of its model; gone afterwards."""
    served_models.publish(disks / "fraud-models", "transactions", 1, tmp_path_factory.mktemp("saved") / "1")
    file = tmp_path_factory.mktemp("environments") / "laptop.yaml"
    text = (ROOT / "platform" / "environments" / "laptop.yaml").read_text()
    file.write_text(re.sub(r"^images: .*$", f"images: {{registry: {REGISTRY}, tag: {TAG}}}", text, flags=re.MULTILINE))
    try:
        done = platform("deploy", str(file), WITHOUT)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{said}\n{platform('status', str(file), WITHOUT).stdout}"
        assert "laptop is ready" in said
        print(said)
        yield file
    finally:
        with contextlib.suppress(AssertionError):
            kubectl("delete", "pods", "--all", "--namespace=fraud", "--grace-period=0", "--force")
        gone = platform("destroy", str(file), said="laptop\n")
        sys.stdout.write(gone.stdout + gone.stderr)


def test_every_pod_is_ready_and_the_second_deployment_writes_nothing(laptop: Path) -> None:
    again = platform("deploy", str(laptop), WITHOUT)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("as it should be") == 10
    looked = platform("status", str(laptop), WITHOUT)
    assert (looked.returncode, looked.stdout.count(" healthy"), looked.stdout.count("NOT")) == (0, 10, 0)


def test_a_prediction_is_answered_through_the_service(laptop: Path) -> None:
    helm = [str(binaries.paths(["helm"])["helm"]), "test", "transactions", "--namespace=fraud", "--logs", "--timeout=150s"]
    done = subprocess.run(helm, env=os.environ | {"KUBECONFIG": KUBECONFIG}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 golden requests of transactions version 1" in done.stdout


def test_the_registry_knows_who_asks(laptop: Path) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:5000/{}').status)"
    inside = ("exec", "deployment/mlflow", "--namespace=mlflow", "--", "python3", "-c")
    assert kubectl(*inside, ask.format("health")).strip() == "200"
    with pytest.raises(AssertionError, match="401"):
        kubectl(*inside, ask.format("api/2.0/mlflow/registered-models/search"))


ASK = """
import base64, json, os, urllib.error, urllib.request, uuid
who = base64.b64encode('{username}:{password}'.format(**os.environ).encode()).decode()
headers = {'Authorization': 'Basic ' + who, 'Content-Type': 'application/json', 'X-MLFLOW-WORKSPACE': os.environ['asked']}
body = json.dumps({'name': str(uuid.uuid4())}).encode()
asked = urllib.request.Request(os.environ['url'] + '/api/2.0/mlflow/experiments/create', data=body, headers=headers)
try: print(urllib.request.urlopen(asked).status)
except urllib.error.HTTPError as error: print(error.code)
"""


def makes_an_experiment(namespace: str, workspace: str) -> str:
    """What the registry says to a pod of a team's that wants to make one in a workspace, with the keys that a step of a pipeline has."""
    pod = restricted_pod("asks", namespace, f"{REGISTRY}/serving:{TAG}", command=["/usr/bin/python3", "-c", ASK], resources=SMALL)
    kept = {key: {"secretKeyRef": {"name": "registry-account", "key": key}} for key in ("url", "username", "password")}
    told = [{"name": key, "valueFrom": source} for key, source in kept.items()]
    pod["spec"]["containers"][0]["env"] = [*told, {"name": "asked", "value": workspace}]

    def phase() -> str:
        return str(json.loads(kubectl("get", "pod", "asks", f"--namespace={namespace}", "--output=json"))["status"]["phase"])

    kubectl("apply", "-f-", given=pod)
    try:
        eventually("the pod has asked", lambda: phase() in {"Succeeded", "Failed"}, 90, every=0.2)
        return str(kubectl("logs", "asks", f"--namespace={namespace}")).strip()
    finally:
        kubectl("delete", "pod", "asks", f"--namespace={namespace}", "--grace-period=0", "--force")


def test_pods_of_a_team_write_their_teams_part_of_the_registry_and_no_others(laptop: Path) -> None:
    teams = {"fraud": "fraud", "search": "search", "search-dev": "search"}
    said = {(place, asked): makes_an_experiment(place, asked) for place in teams for asked in ("fraud", "search")}
    assert said == {(place, asked): "200" if team == asked else "403" for place, team in teams.items() for asked in ("fraud", "search")}


def test_an_account_of_the_registry_gets_another_password_and_nothing_is_restarted_for_it(laptop: Path) -> None:
    file = laptop.parent / ".secrets-laptop" / "mlflow-fraud-runs"
    file.write_text("another0word0for0the0pods0of0fraud")
    told = platform("deploy", str(laptop), WITHOUT)
    assert "set the password of fraud.runs" in told.stdout, told.stdout + told.stderr
    assert makes_an_experiment("fraud", "fraud") == "200"


def test_the_administrators_password_is_taken_up_by_a_restart(laptop: Path) -> None:
    file = laptop.parent / ".secrets-laptop" / "mlflow-admin"
    file.write_text("another0word0for0the0administrator")
    refused = platform("deploy", str(laptop), WITHOUT)
    assert (refused.returncode, "kubectl --namespace mlflow rollout restart deployment/mlflow" in refused.stderr) == (2, True)
    kubectl("rollout", "restart", "--namespace=mlflow", "deployment/mlflow")
    kubectl("rollout", "status", "--namespace=mlflow", "deployment/mlflow", "--timeout=240s")
    assert platform("deploy", str(laptop), WITHOUT).returncode == 0
    assert platform("status", str(laptop), WITHOUT).returncode == 0


def test_a_password_is_changed_as_the_handbook_says(laptop: Path) -> None:
    file = laptop.parent / ".secrets-laptop" / database_user("mlflow")
    assert file.exists()
    file.write_text("another0word0for0the0registry")
    assert platform("deploy", str(laptop), WITHOUT).returncode == 0
    for workload in ("--namespace=databases statefulset/postgresql", "--namespace=mlflow deployment/mlflow"):
        kubectl("rollout", "restart", *workload.split())
        kubectl("rollout", "status", *workload.split(), "--timeout=240s")
    assert platform("status", str(laptop), WITHOUT).returncode == 0


def test_what_is_backed_up_comes_back(laptop: Path) -> None:
    for job, verb in (("backup-now", "backup"), ("back", "restore")):
        kubectl("--namespace=databases", "create", "job", job, f"--from=cronjob/postgresql-{verb}")
        kubectl("--namespace=databases", "wait", f"job/{job}", "--for=condition=complete", "--timeout=120s")
    assert "mlflow is as in 20" in kubectl("--namespace=databases", "logs", "job/back")
    eventually("the registry answers again", lambda: platform("status", str(laptop), WITHOUT).returncode == 0, 120, every=0.2)


def gpu_pod(name: str, gpus: int) -> dict[str, Any]:
    return restricted_pod(
        name,
        "fraud",
        f"{REGISTRY}/serving:{TAG}",
        node=ACCELERATOR,
        command=["/usr/bin/python3", "-c", "import time; time.sleep(3600)"],
        resources={"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"cpu": "10m", "memory": "32Mi"}},
    )


def test_a_gpu_pod_waits_for_its_team_and_starts_when_the_gpus_are_free(laptop: Path) -> None:
    nodes = json.loads(kubectl("get", "nodes", "--output=json", "--selector", ",".join(f"{k}={v}" for k, v in ACCELERATOR.items())))[
        "items"
    ]
    if not any(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) >= 2 for node in nodes):
        pytest.skip("no node has two GPUs and the label of their type")

    def pod(name: str) -> Any:
        return json.loads(kubectl("get", "pod", name, "--namespace=fraud", "--output=json"))

    kubectl("apply", "-f-", given=gpu_pod("first", 2))
    eventually("the first runs", lambda: pod("first")["status"]["phase"] == "Running", 90, every=0.2)
    kubectl("apply", "-f-", given=gpu_pod("second", 1))
    eventually(
        "the second knows why it waits", lambda: "quota" in json.dumps(pod("second")["status"].get("conditions", [])).lower(), 30, every=0.2
    )
    assert pod("second")["spec"]["schedulingGates"]
    kubectl("delete", "pod", "first", "--namespace=fraud")
    eventually("the second runs", lambda: pod("second")["status"]["phase"] == "Running", 90, every=0.2)
    kubectl("delete", "pod", "second", "--namespace=fraud")
