"""The compiled pipeline on Kubeflow Pipelines itself: from rows to a published version through its drivers, launchers, object store and cache, with our
steps as pods of a team's namespace; refused rows, runs of one name and ended runs as its API tells them.

On a cluster with our platform, Kubeflow Pipelines and the registry in it (the environment `laptop`; how where nothing can be fetched, says CONTRIBUTING.md),
a way to Kubeflow's API server, and the steps image by digest:

kubectl -n kubeflow port-forward svc/ml-pipeline 8888 &
MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_KUBEFLOW=http://127.0.0.1:8888 MILLRACE_E2E_STEPS_DIGEST=REPOSITORY@sha256:… pytest tests/e2e/test_pipeline_on_kubeflow.py

MILLRACE_E2E_NAMESPACE is the team's, `fraud` unless it says otherwise. It is the tests' own: what the workspace there holds of the project `transactions` is
removed before they begin. What they leave, stays: runs, a model of a name by chance, the workspace.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import typed_kubectl
from mlpipelines import pipeline
from mlpipelines.kubeflow import TOKEN_FILE, ClusterRun, Kubeflow
from mlpipelines.triggers.kubeflow_runs import KubeflowRuns
from mlpipelines.triggers.ledger import WantedRun
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starts import Ended
from mlpipelines.workspace import Workspace
from restricted_pod import restricted_pod
from serving_release import eventually
from typed_commands import millrace
from typed_platform import ROOT

KUBECONFIG, HOST, IMAGE = (os.environ.get(f"MILLRACE_E2E_{name}", "") for name in ("KUBECONFIG", "KUBEFLOW", "STEPS_DIGEST"))
NAMESPACE = os.environ.get("MILLRACE_E2E_NAMESPACE", "fraud")
PROJECT, ACCOUNT, STARTER = "transactions", "registry-account", "millrace-e2e-starter"
MODEL = f"e2e-{uuid.uuid4().hex[:8]}"
"""Nobody's yet, so that there is no champion to beat."""
SECONDS = 1200
ROWS = 6000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + 120),
    pytest.mark.skipif(
        not (KUBECONFIG and HOST and IMAGE),
        reason="name a cluster with Kubeflow Pipelines: MILLRACE_E2E_KUBECONFIG, MILLRACE_E2E_KUBEFLOW, MILLRACE_E2E_STEPS_DIGEST",
    ),
]


kubectl = partial(typed_kubectl.kubectl, KUBECONFIG, f"--namespace={NAMESPACE}")


@pytest.fixture(scope="module", autouse=True)
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An account with the one role that a team's trigger has, and its token, which Kubeflow's own client takes from the environment."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "millrace-runner"}
    who = {"kind": "ServiceAccount", "name": STARTER, "namespace": NAMESPACE}
    kubectl("apply", "--filename=-", given={"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": STARTER}})
    binding = {"apiVersion": role["apiGroup"] + "/v1", "kind": "RoleBinding", "metadata": {"name": STARTER}}
    kubectl("apply", "--filename=-", given={**binding, "roleRef": role, "subjects": [who]})
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(kubectl("create", "token", STARTER, "--audience=pipelines.kubeflow.org", "--duration=4h"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_FILE, str(file))
        yield file
    kubectl("delete", f"rolebinding/{STARTER}", f"serviceaccount/{STARTER}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in small: few rows that no other day's runs have seen, one epoch, a baseline that is easily beaten, pods for a small node."""
    inside(CLEAR)
    folder = tmp_path_factory.mktemp("projects") / PROJECT
    shutil.copytree(ROOT / "pipelines" / "projects" / PROJECT, folder)
    file = folder / "project.yaml"
    told = yaml.safe_load(file.read_text())
    told["source"]["options"] |= {"rows": ROWS, "seed": uuid.uuid4().int % 2**31}
    told["training"]["epochs"] = 1
    told["evaluation"] = {"metric": "accuracy", "baseline": {"kind": "majority"}}
    told["deployment"]["model"] = MODEL
    small = {"cpu": "100m", "memory": "2Gi"}
    steps = ("ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish", "report")
    told["resources"] = {step: small | ({"retries": 1} if step == "train" else {}) for step in steps}
    file.write_text(yaml.safe_dump(told))
    return folder


@pytest.fixture(scope="module")
def kubeflow() -> Kubeflow:
    return Kubeflow(HOST, NAMESPACE)


@pytest.fixture(scope="module")
def runs(kubeflow: Kubeflow, project: Path, tmp_path_factory: pytest.TempPathFactory) -> KubeflowRuns:
    """As the trigger has them; the workspace of the pods cannot be seen from here."""
    return KubeflowRuns(kubeflow, Projects(project.parent), IMAGE, Workspace(tmp_path_factory.mktemp("nothing")), registry=ACCOUNT)


def wanted(reason: str) -> WantedRun:
    return WantedRun(name=f"e2e-{uuid.uuid4().hex[:12]}", model=MODEL, cause={"signal": "asked", "summary": reason})


def ended(runs: KubeflowRuns, run: WantedRun) -> Ended:
    """How it ended, once it has."""
    found: list[Ended | None] = [None]

    def over() -> bool:
        found[0] = runs.ended(run.name, run.model)
        return found[0] is not None

    eventually(f"{run.name} has ended", over, SECONDS)
    assert found[0] is not None
    return found[0]


def one_of(kubeflow: Kubeflow, run_id: str) -> ClusterRun:
    (found,) = (run for run in kubeflow.newest(PROJECT) if run.run_id == run_id)
    return found


def pods_of(run: ClusterRun) -> list[str]:
    """The steps that ran as pods of this run: what comes from the cache has none."""
    pods = json.loads(kubectl("get", "pods", f"--selector=pipeline/runid={run.run_id}", "--output=json"))["items"]
    arguments = [
        " ".join([*container.get("command", []), *container.get("args", [])]) for pod in pods for container in pod["spec"]["containers"]
    ]
    return sorted(text.partition("--function_to_execute ")[2].split()[0] for text in arguments if "--function_to_execute " in text)


def inside(code: str) -> Any:
    """What a program says in JSON that runs in the steps image, with the workspace of the runs and the team's account."""
    pod = restricted_pod("millrace-e2e-looks", NAMESPACE, IMAGE, command=["/usr/bin/python3", "-c", code])
    it = pod["spec"]["containers"][0]
    it["env"] = [{"name": name, "valueFrom": {"secretKeyRef": {"name": ACCOUNT, "key": key}}} for key, name in pipeline.ACCOUNT.items()]
    it["resources"] = {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    it["volumeMounts"].append({"name": "workspace", "mountPath": "/millrace"})
    pod["spec"]["volumes"].append({"name": "workspace", "persistentVolumeClaim": {"claimName": "millrace-workspace"}})
    kubectl("apply", "--filename=-", given=pod)
    try:
        kubectl("wait", "pod/millrace-e2e-looks", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", "--timeout=180s")
        return json.loads(kubectl("logs", "millrace-e2e-looks").splitlines()[-1])
    finally:
        kubectl("delete", "pod/millrace-e2e-looks", "--grace-period=0", "--force")


LOOK = """
import json, os
from mlpipelines.publishing.registry import champion_of
from mlpipelines.workspace import find_workspace
workspace = find_workspace("/millrace")
champion, store = champion_of(workspace, "MODEL"), workspace.model_store / "MODEL"
number = champion.version if champion else 0
print(json.dumps({"champion": number, "saved": (store / str(number) / "saved_model.pb").is_file(), "run": champion.tags.get("run_id", "") if champion else ""}))
""".replace("MODEL", MODEL)
CLEAR = """
import json, shutil
from mlpipelines.workspace import find_workspace
shutil.rmtree(find_workspace("/millrace").project("transactions").root, ignore_errors=True)
print(json.dumps(True))
"""


@pytest.fixture(scope="module")
def first(runs: KubeflowRuns) -> WantedRun:
    """A run of the trigger's, asked for twice, as after an answer that was lost."""
    run = wanted("the first")
    assert runs.start(run) == runs.start(run)
    return run


def test_who_shows_no_token_is_told_which_one(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_FILE)
    done = millrace("submit", project, "--host", HOST, "--namespace", NAMESPACE, "--image", IMAGE, workspace=tmp_path, code=4)
    assert "create token" in done.stderr


def test_rows_become_a_published_version(runs: KubeflowRuns, kubeflow: Kubeflow, first: WantedRun) -> None:
    how = ended(runs, first)
    (run,) = kubeflow.named(PROJECT, first.name)
    assert (how.outcome, how.trouble) == ("succeeded", "")
    assert how.facts == {"page": kubeflow.address(run), "run_id": run.run_id}
    assert pods_of(run) == ["evaluate", "ingest", "labels", "publish", "register", "report", "statistics", "train", "transform", "validate"]
    found = inside(LOOK)
    assert (found["saved"], found["run"]) == (True, run.run_id)
    assert runs.last_trained(MODEL) is not None


def test_what_has_not_changed_comes_from_kubeflows_cache(
    project: Path, kubeflow: Kubeflow, runs: KubeflowRuns, first: WantedRun, tmp_path: Path
) -> None:
    assert ended(runs, first).outcome == "succeeded"
    words = ["--host", HOST, "--namespace", NAMESPACE, "--image", IMAGE, "--registry", ACCOUNT]
    told = json.loads(millrace("submit", project, *words, "--reason", "again", "--json", workspace=tmp_path).stdout)
    found = partial(one_of, kubeflow, told["run"])
    assert told["url"] == kubeflow.address(found())
    eventually("it has ended", lambda: not found().open, SECONDS)
    again = found()
    assert (again.state, again.error) == ("SUCCEEDED", "")
    assert not {"ingest", "statistics", "transform", "train"} & set(pods_of(again))
    assert {"labels", "validate", "evaluate", "report"} <= set(pods_of(again))


def test_rows_that_are_refused_end_a_run_at_the_step_that_refuses_them(
    project: Path, kubeflow: Kubeflow, runs: KubeflowRuns, first: WantedRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert ended(runs, first).outcome == "succeeded"
    folder = tmp_path_factory.mktemp("many") / PROJECT
    shutil.copytree(project, folder)
    told = yaml.safe_load((folder / "project.yaml").read_text())
    told["source"]["options"]["rows"] = 10 * ROWS
    (folder / "project.yaml").write_text(yaml.safe_dump(told))
    run = wanted("ten times as many rows")
    KubeflowRuns(kubeflow, Projects(folder.parent), IMAGE, Workspace(folder), registry=ACCOUNT).start(run)
    how = ended(runs, run)
    assert (how.outcome, how.trouble) == ("failed", "The step validate failed: its log has why.")
    (cluster_run,) = kubeflow.named(PROJECT, run.name)
    assert "report" in pods_of(cluster_run), "the report is written all the same"


def test_what_somebody_ends_is_told_as_such(kubeflow: Kubeflow, runs: KubeflowRuns) -> None:
    run = wanted("not for long")
    runs.start(run)
    (cluster_run,) = kubeflow.named(PROJECT, run.name)
    assert runs.open_run(MODEL, ()) == run.name
    eventually("it is under way", lambda: kubeflow.named(PROJECT, run.name)[0].state == "RUNNING", 120)
    kubeflow.terminate(cluster_run)
    assert ended(runs, run).outcome == "canceled"
