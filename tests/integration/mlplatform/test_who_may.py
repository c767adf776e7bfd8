"""Roles of an environment as Kubernetes enforces them: who may run, approve, roll out and see, asked of a real API server."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from api_client import Client
from control_plane import ControlPlane
from mlplatform.environment import read_environment
from mlplatform.plan.order import plan
from typed_platform import ROOT, typed

AUTOMATIC = {
    "retraining": {"enabled": True},
    "images": {"registry": "localhost/millrace", "digests": {"steps": f"sha256:{64 * 'a'}"}},
    "monitoring": {"kind": "none", "prometheus": "https://prometheus.example"},
    "models": {"transactions": {"team": "fraud", "namespace": "fraud", "rollout": "automatic"}},
    "access": {"admins": ["group:ml-infra@example.com"]},
}
NEEDED = {"foundation", "roles", "secrets", "mlflow", "gpu-queue", "team-fraud", "team-search", "retraining-fraud"}

# what, of which group, verb: who may in the team's namespace
MATRIX: list[tuple[str, str, str, set[str]]] = [
    ("pods", "", "list", {"viewer", "runner", "approver", "releaser", "infra"}),
    ("pods/log", "", "get", {"viewer", "runner", "approver", "releaser", "infra"}),
    ("runs", "pipelines.kubeflow.org", "list", {"viewer", "runner", "approver", "releaser", "trigger", "infra"}),
    ("runs", "pipelines.kubeflow.org", "get", {"viewer", "runner", "approver", "releaser", "trigger", "infra"}),
    ("experiments", "pipelines.kubeflow.org", "list", {"viewer", "runner", "approver", "releaser", "trigger", "infra"}),
    ("experiments", "pipelines.kubeflow.org", "create", {"runner", "trigger", "infra"}),
    ("runs", "pipelines.kubeflow.org", "create", {"runner", "trigger", "infra"}),
    ("runs", "pipelines.kubeflow.org", "terminate", {"runner", "trigger", "infra"}),
    ("jobs", "batch", "create", {"runner", "releaser", "trigger", "infra"}),
    ("models", "millrace.dev", "approve", {"approver", "infra"}),
    ("models", "millrace.dev", "roll-out", {"releaser", "infra"}),
    ("deployments", "apps", "patch", {"releaser", "trigger", "infra"}),
    ("secrets", "", "get", {"releaser", "trigger", "infra"}),
    ("secrets", "", "list", {"releaser", "trigger", "infra"}),
    ("rolebindings", "rbac.authorization.k8s.io", "create", {"releaser", "trigger", "infra"}),
    ("clusterroles", "rbac.authorization.k8s.io", "create", {"infra"}),
    ("gpuqueues", "gpu-queue.dev", "get", {"viewer", "runner", "approver", "releaser", "infra"}),
    ("gpuqueues", "gpu-queue.dev", "patch", {"infra"}),
    ("namespaces", "", "patch", {"infra"}),
    ("resourcequotas", "", "patch", {"infra"}),
    ("networkpolicies", "networking.k8s.io", "patch", {"releaser", "trigger", "infra"}),
    ("pods/exec", "", "create", {"infra"}),
    ("deployments", "apps", "watch", {"viewer", "runner", "approver", "releaser", "trigger", "infra"}),
    ("models/transactions", "millrace.dev", "roll-out", {"releaser", "trigger", "infra"}),
    ("models/another", "millrace.dev", "roll-out", {"releaser", "infra"}),
    ("serviceaccounts/token", "", "create", {"infra"}),
]
PEOPLE = {
    "viewer": ("vic@example.com", ["finance@example.com"]),
    "runner": ("ana@example.com", []),
    "approver": ("ben@example.com", []),
    "releaser": ("rob@example.com", []),
    "infra": ("ina@example.com", ["ml-infra@example.com"]),
    "trigger": ("system:serviceaccount:fraud:retraining", ["system:serviceaccounts", "system:serviceaccounts:fraud"]),
    "stranger": ("sam@example.com", ["everybody@example.com"]),
}


@pytest.fixture(scope="module")
def api(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Deployed as far as roles reach, with a trigger that rolls out."""
    file = tmp_path_factory.mktemp("environments") / "laptop.yaml"
    laptop = yaml.safe_load((ROOT / "platform" / "environments" / "laptop.yaml").read_text())
    laptop["teams"]["fraud"]["members"]["releaser"] = ["user:rob@example.com"]
    file.write_text(yaml.safe_dump({**laptop, **AUTOMATIC}))
    others = [step.name for step in plan(read_environment(file)) if step.name not in NEEDED]
    done = typed(plane, "deploy", str(file), *(f"--without={name}" for name in others))
    assert done.returncode == 0, done.stdout + done.stderr
    return plane.client


def may(api: Client, who: str, *, verb: str, resource: str, group: str, namespace: str = "fraud") -> bool:
    user, groups = PEOPLE[who]
    kind, _, part = resource.partition("/")
    of_it = {"name": part} if group == "millrace.dev" else {"subresource": part}  # its models are told apart by name
    asked: dict[str, Any] = {"verb": verb, "resource": kind, "group": group, "namespace": namespace, **of_it}
    body = {"spec": {"user": user, "groups": [*groups, "system:authenticated"], "resourceAttributes": asked}}
    return bool(api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])


@pytest.mark.parametrize(("resource", "group", "verb", "allowed"), MATRIX, ids=lambda value: str(value) if isinstance(value, str) else "")
def test_who_may_in_a_team(api: Client, resource: str, group: str, verb: str, allowed: set[str]) -> None:
    assert {who for who in PEOPLE if may(api, who, verb=verb, resource=resource, group=group)} == allowed


@pytest.mark.parametrize(("resource", "group", "verb", "allowed"), MATRIX, ids=lambda value: str(value) if isinstance(value, str) else "")
def test_nobody_may_in_another_team(api: Client, resource: str, group: str, verb: str, allowed: set[str]) -> None:
    of_the_cluster = {"viewer", "runner", "approver", "releaser"} if (group, verb) == ("gpu-queue.dev", "get") else set()
    assert {who for who in PEOPLE if may(api, who, verb=verb, resource=resource, group=group, namespace="search")} == of_the_cluster | {
        "infra"
    }


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("registry-fraud-viewer", {"viewer", "runner", "approver", "releaser", "infra"}),
        ("registry-fraud-approver", {"approver", "infra"}),
        ("registry-fraud-releaser", {"releaser", "infra"}),
        ("registry-search-viewer", {"infra"}),
        ("mlflow-auth", {"infra"}),
    ],
)
def test_who_may_read_the_password_of_an_account_of_the_registry(api: Client, name: str, readers: set[str]) -> None:
    def may_read(who: str) -> bool:
        user, groups = PEOPLE[who]
        asked = {"verb": "get", "resource": "secrets", "name": name, "namespace": "mlflow"}
        body = {"spec": {"user": user, "groups": [*groups, "system:authenticated"], "resourceAttributes": asked}}
        return bool(api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])

    assert {who for who in PEOPLE if may_read(who)} == readers
    assert api.request("GET", f"/api/v1/namespaces/mlflow/secrets/{name}")["data"]["password"]


def test_a_run_may_do_little_and_read_one_secret(api: Client) -> None:
    runs = "system:serviceaccount:fraud:pipeline-runner"

    def allowed(verb: str, resource: str, name: str = "", namespace: str = "fraud", group: str = "") -> bool:
        asked = {"verb": verb, "resource": resource, "name": name, "namespace": namespace, "group": group}
        body = {"spec": {"user": runs, "groups": ["system:serviceaccounts:fraud"], "resourceAttributes": asked}}
        return bool(api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])

    assert allowed("get", "secrets", "mlpipeline-minio-artifact")
    assert not allowed("get", "secrets", "transactions-review")
    assert not allowed("list", "secrets")
    assert allowed("create", "workflowtaskresults", group="argoproj.io")
    assert not allowed("create", "pods")
    assert not allowed("get", "secrets", "mlpipeline-minio-artifact", "search")
    assert not allowed("patch", "gpuqueues", group="gpu-queue.dev")
