"""The compiled pipeline on Kubeflow Pipelines itself: from rows to a published version through its drivers, launchers, object store and cache, with our
steps as pods of a team's namespace; refused rows, runs of one name and ended runs as its API tells them; the version served by what the platform deploys, and
what it answered learned from.

On a cluster with our platform, Kubeflow Pipelines and the registry in it (the environment `laptop`; how where nothing can be fetched, says CONTRIBUTING.md),
a way to Kubeflow's API server, and the steps image by digest:

kubectl -n kubeflow port-forward svc/ml-pipeline 8888 &
MILLRACE_E2E_KUBECONFIG=… MILLRACE_E2E_KUBEFLOW=http://127.0.0.1:8888 MILLRACE_E2E_STEPS_DIGEST=REPOSITORY@sha256:… pytest tests/e2e/test_pipeline_on_kubeflow.py

With our images as REGISTRY/NAME:TAG too (MILLRACE_E2E_REGISTRY, MILLRACE_E2E_TAG), the version is served. MILLRACE_E2E_NAMESPACE is the team's, `fraud` unless it says otherwise, and MILLRACE_E2E_OTHER_NAMESPACE another team's, `search`. The first is the tests' own: what the workspace there holds of the project `transactions` is
removed before they begin. What they leave, stays: runs, a model of a name by chance, the workspace.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
import typed_kubectl
from mlpipelines import pipeline
from mlpipelines.errors import Unavailable
from mlpipelines.kubeflow import TOKEN_FILE, ClusterRun, Kubeflow
from mlpipelines.triggers.kubeflow_runs import KubeflowRuns
from mlpipelines.triggers.ledger import WantedRun
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starts import Ended
from mlpipelines.workspace import Workspace
from mlplatform.environment import parse_environment
from mlplatform.plan import values_of_teams
from restricted_pod import restricted_pod
from typed_commands import millrace
from typed_platform import ROOT
from waiting import eventually

KUBECONFIG, HOST, IMAGE = (os.environ.get(f"MILLRACE_E2E_{name}", "") for name in ("KUBECONFIG", "KUBEFLOW", "STEPS_DIGEST"))
REGISTRY, TAG = (os.environ.get(f"MILLRACE_E2E_{name}", "") for name in ("REGISTRY", "TAG"))
NAMESPACE = os.environ.get("MILLRACE_E2E_NAMESPACE", "fraud")
OTHERS = os.environ.get("MILLRACE_E2E_OTHER_NAMESPACE", "search")
PROJECT, ACCOUNT, STARTER = "transactions", "registry-account", "millrace-e2e-starter"
MODEL = f"e2e-{uuid.uuid4().hex[:8]}"
"""Nobody's yet, so that there is no champion to beat."""
GPU, QUOTA = "nvidia-l4", 2
"""What the team's lane is for, and how many of it the team may have at once: as the environment `laptop` says."""
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
    told["source"]["learn_from"] = ["labels"]
    told["training"]["epochs"] = 1
    told["evaluation"] = {"metric": "accuracy", "baseline": {"kind": "majority"}}
    told["deployment"]["model"] = MODEL
    small = {"cpu": "100m", "memory": "2Gi"}
    steps = ("ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish", "report", "batch")
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

    eventually(f"{run.name} has ended", over, SECONDS, every=0.2)
    assert found[0] is not None
    return found[0]


def one_of(kubeflow: Kubeflow, run_id: str) -> ClusterRun:
    (found,) = (run for run in kubeflow.newest(PROJECT) if run.run_id == run_id)
    return found


def all_pods(run: ClusterRun) -> list[Any]:
    found: list[Any] = json.loads(kubectl("get", "pods", f"--selector=pipeline/runid={run.run_id}", "--output=json"))["items"]
    return found


def pods_of(run: ClusterRun) -> list[str]:
    """The steps that ran as pods of this run: what comes from the cache has none."""
    arguments = [told_to(pod) for pod in all_pods(run)]
    return sorted(text.partition("--function_to_execute ")[2].split()[0] for text in arguments if "--function_to_execute " in text)


def pods_doing(run: ClusterRun, step: str) -> list[Any]:
    """The pods of a run that do a step."""
    return [pod for pod in all_pods(run) if f"--function_to_execute {step} " in told_to(pod) + " "]


def log_of(run: ClusterRun, step: str) -> str:
    """What they wrote."""
    return "\n".join(kubectl("logs", pod["metadata"]["name"], "--container=main") for pod in pods_doing(run, step))


def told_to(pod: Any) -> str:
    """The command lines of a pod's containers."""
    return " ".join(word for container in pod["spec"]["containers"] for word in [*container.get("command", []), *container.get("args", [])])


def inside(code: str) -> Any:
    """What a program says in JSON that runs in the steps image, with the workspace of the runs and the team's account."""
    pod = restricted_pod("millrace-e2e-looks", NAMESPACE, IMAGE, command=["/usr/bin/python3", "-c", code])
    it = pod["spec"]["containers"][0]
    it["env"] = [{"name": name, "valueFrom": {"secretKeyRef": {"name": ACCOUNT, "key": key}}} for key, name in pipeline.ACCOUNT.items()]
    it["resources"] = {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    for folder, claim in pipeline.CLAIMS.items():
        it["volumeMounts"].append({"name": claim, "mountPath": f"/millrace/{folder}".rstrip("/")})
        pod["spec"]["volumes"].append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
    pod["spec"]["securityContext"]["fsGroup"] = 65532
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


def test_a_team_neither_sees_nor_starts_runs_of_another(project: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="answers 403"):
        Kubeflow(HOST, OTHERS).newest(PROJECT)
    words = ["--host", HOST, "--namespace", OTHERS, "--image", IMAGE]
    assert "answers 403" in millrace("submit", project, *words, workspace=tmp_path, code=4).stderr


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
    eventually("it has ended", lambda: not found().open, SECONDS, every=0.2)
    again = found()
    assert (again.state, again.error) == ("SUCCEEDED", "")
    assert not {"ingest", "statistics", "transform", "train"} & set(pods_of(again))
    assert {"labels", "validate", "evaluate", "report"} <= set(pods_of(again))


@pytest.fixture(scope="module")
def served(runs: KubeflowRuns, first: WantedRun, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The version as a platform serves it, with every feature logged; gone afterwards."""
    if not (REGISTRY and TAG):
        pytest.skip("name our images: MILLRACE_E2E_REGISTRY, MILLRACE_E2E_TAG")
    assert ended(runs, first).outcome == "succeeded"
    told = yaml.safe_load((ROOT / "platform" / "environments" / "laptop.yaml").read_text())
    told["images"] = {"registry": REGISTRY, "tag": TAG}
    features = list(yaml.safe_load((project / "project.yaml").read_text())["features"])
    about = {
        "team": "fraud",
        "namespace": NAMESPACE,
        "replicas": 1,
        "cpu": "50m",
        "memory": "512Mi",
        "features": features,
        "log_share": 1.0,
    }
    told["teams"]["fraud"]["namespaces"] = [NAMESPACE]
    told["models"] = {MODEL: about | {"first_version": inside(LOOK)["champion"]}}
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(yaml.safe_dump(values_of_teams.serving(parse_environment(yaml.safe_dump(told), "laptop.yaml"), MODEL)))
    chart, small = str(ROOT / "helm" / "model-serving"), "--set=gateway.resources.requests.cpu=20m"
    helm("install", MODEL, chart, f"--values={file}", small, "--wait", "--timeout=300s")
    try:
        yield
    finally:
        helm("uninstall", MODEL, "--wait", "--timeout=60s")


def helm(*words: str) -> str:
    command = [str(binaries.paths(["helm"])["helm"]), f"--namespace={NAMESPACE}", *words]
    done = subprocess.run(command, env=os.environ | {"KUBECONFIG": KUBECONFIG}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ASK = """
import json, os, time, urllib.request
def post(path, body):
    with urllib.request.urlopen("http://MODEL.NAMESPACE.svc:8501" + path, json.dumps(body).encode(), timeout=60) as answer:
        return answer.headers["x-prediction-id"], json.load(answer)
rows = [
    {"merchant": f"KIOSK {n}", "amount": 3.5 + n, "booked_at": int(time.time()) - n, "vat": "20", "team": "web", "cost_centre": "7"}
    for n in range(40)
]
number, answer = post("/v1/models/MODEL:predict", {"instances": rows})
labels = [{"prediction_id": number, "row": n, "label": told["label"]} for n, told in enumerate(answer["predictions"])]
print(json.dumps(post("/v1/labels", {"model": "MODEL", "labels": labels})[1]))
""".replace("MODEL", MODEL).replace("NAMESPACE", NAMESPACE)
LOGGED = """
import json
from mlserving.predictions import reading
from mlpipelines.workspace import find_workspace
print(json.dumps(sum(batch.num_rows for batch in reading.joined(find_workspace("/millrace").predictions, "MODEL", columns=[]))))
""".replace("MODEL", MODEL)

LOGGED_ALL = """
import json
from pathlib import Path
import pyarrow.parquet as pq
print(json.dumps(sum(pq.read_metadata(file).num_rows for file in Path("/millrace/predictions/log/model=MODEL").rglob("[!.]*.parquet"))))
""".replace("MODEL", MODEL)


def test_the_version_is_served_and_what_it_answered_is_learned_from(
    served: None, project: Path, kubeflow: Kubeflow, runs: KubeflowRuns
) -> None:
    assert "all are answered as published" in helm("test", MODEL, "--logs", "--timeout=150s")
    assert inside(ASK) == {"stored": 40, "refused": []}
    eventually("predictions and labels are in the log", lambda: inside(LOGGED) == 40, 120, every=0.2)
    run = wanted("labels came")
    runs.start(run)
    assert ended(runs, run).outcome == "succeeded"
    (cluster_run,) = kubeflow.named(PROJECT, run.name)
    assert "ingest" in pods_of(cluster_run), "what is in the cache knows none of the labels"
    assert "40 predictions among them, 40 labelled otherwise" in log_of(cluster_run, "ingest")


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
    eventually("it is under way", lambda: kubeflow.named(PROJECT, run.name)[0].state == "RUNNING", 120, every=0.2)
    kubeflow.terminate(cluster_run)
    assert ended(runs, run).outcome == "canceled"


EXPORT = """
import json, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
sys.path.insert(0, "/projects/transactions")
from generator import rows
table = pa.Table.from_batches(rows(rows=500, seed=5)).drop_columns(["category"])
folder = Path("/millrace/exports/MODEL")
folder.mkdir(parents=True)
for number in range(2):
    pq.write_table(table.slice(250 * number, 250), folder / f"{number}.parquet")
print(json.dumps(table.num_rows))
""".replace("MODEL", MODEL)
SCORED = """
import json
from pathlib import Path
import pyarrow.parquet as pq
print(json.dumps({file.name: [file.stat().st_mtime_ns, pq.read_metadata(file).num_rows] for file in Path("/millrace/scores/MODEL").glob("*.parquet")}))
""".replace("MODEL", MODEL)


def test_files_are_scored_once_and_logged_where_gateways_log(
    project: Path, kubeflow: Kubeflow, runs: KubeflowRuns, first: WantedRun, tmp_path: Path
) -> None:
    assert ended(runs, first).outcome == "succeeded"
    logged_before = inside(LOGGED_ALL)
    assert inside(EXPORT) == 500
    file = tmp_path / "batch.yaml"
    chosen = ["--pipeline", "batch", "--image", IMAGE, "--registry", ACCOUNT, "--output", str(file)]
    millrace("compile", project, *chosen, workspace=tmp_path)

    def score(name: str) -> dict[str, list[int]]:
        arguments = {"input": f"/millrace/exports/{MODEL}", "output": f"/millrace/scores/{MODEL}", "log_share": 1.0}
        run = kubeflow.create(experiment=PROJECT, name=f"{MODEL} {name}", reason="", pipeline=file, arguments=arguments)
        eventually("it has ended", lambda: not one_of(kubeflow, run.run_id).open, SECONDS, every=0.2)
        ended_as = one_of(kubeflow, run.run_id)
        assert (ended_as.state, ended_as.error) == ("SUCCEEDED", "")
        found: dict[str, list[int]] = inside(SCORED)
        return found

    scored = score("the first")
    assert {name: count for name, (_, count) in scored.items()} == {"0.parquet": 250, "1.parquet": 250}
    assert inside(LOGGED_ALL) - logged_before == 500
    assert score("once more") == scored, "no file is written again"
    assert inside(LOGGED_ALL) - logged_before == 500


def test_a_step_that_asks_for_a_gpu_stands_in_its_teams_line_and_says_why(
    project: Path, kubeflow: Kubeflow, runs: KubeflowRuns, first: WantedRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nodes = json.loads(kubectl("get", "nodes", "--output=json", f"--selector={pipeline.GPU_NODE_LABEL}={GPU}"))["items"]
    if not any(int(node["status"]["allocatable"].get(pipeline.GPU_RESOURCE, 0)) >= QUOTA for node in nodes):
        pytest.skip(f"no node has {QUOTA} GPUs and the label {pipeline.GPU_NODE_LABEL}={GPU}")
    assert ended(runs, first).outcome == "succeeded"
    folder = tmp_path_factory.mktemp("on-a-gpu") / PROJECT
    shutil.copytree(project, folder)
    told = yaml.safe_load((folder / "project.yaml").read_text())
    told["resources"]["train"] |= {"accelerator": {"type": GPU}, "cache": False}
    (folder / "project.yaml").write_text(yaml.safe_dump(told))

    holder = restricted_pod(
        "millrace-e2e-holds",
        NAMESPACE,
        IMAGE,
        node={pipeline.GPU_NODE_LABEL: GPU},
        command=["/usr/bin/python3", "-c", "import time; time.sleep(3600)"],
        resources={"limits": {pipeline.GPU_RESOURCE: str(QUOTA)}, "requests": {"cpu": "10m", "memory": "32Mi"}},
    )
    kubectl("apply", "--filename=-", given=holder)
    try:
        running = "--for=jsonpath={.status.phase}=Running"
        kubectl("wait", "pod/millrace-e2e-holds", running, "--timeout=120s")
        run = wanted("on a GPU")
        KubeflowRuns(kubeflow, Projects(folder.parent), IMAGE, Workspace(folder), gpu_image=IMAGE, registry=ACCOUNT).start(run)
        (cluster_run,) = kubeflow.named(PROJECT, run.name)
        eventually(
            "the step knows why it waits",
            lambda: "QuotaInUse: 1st of 1 in " in str([pod["status"] for pod in pods_doing(cluster_run, "train")]),
            SECONDS,
            every=0.2,
        )
        (waiting,) = pods_doing(cluster_run, "train")
        assert waiting["spec"]["schedulingGates"]
        assert one_of(kubeflow, cluster_run.run_id).state == "RUNNING"
    finally:
        kubectl("delete", "pod/millrace-e2e-holds", "--grace-period=1")
    assert ended(runs, run).outcome == "succeeded"
    (trained,) = pods_doing(cluster_run, "train")
    assert (trained["metadata"]["uid"], trained["status"]["phase"]) == (waiting["metadata"]["uid"], "Succeeded")
