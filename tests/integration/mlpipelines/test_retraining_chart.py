"""The chart of the trigger on a real API server, and the command that it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import binaries
import operator_kinds
from api_client import Client
from chart_renders import RELEASES, ROOT, cases, render
from control_plane import ControlPlane
from mlpipelines.triggers.places import FILE
from retraining_values import Values
from waiting import eventually

pytestmark = pytest.mark.control_plane

CHART = ROOT / "helm" / "retraining"
BEFORE = ROOT / "tests" / "charts" / "retraining-0.1.0.tgz"
"""The chart of the version before, as `helm package` made it."""
_, NAMESPACE = RELEASES["retraining"]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
FOREIGN = {*operator_kinds.KINDS, "PodMonitoring", "Rules"}
"""Kinds that an API server does not know by itself."""


def rendered(case: str) -> list[Any]:
    return [thing for thing in yaml.safe_load_all(render(cases("retraining")[case])) if thing]


def deployment(case: str) -> Any:
    return next(thing for thing in rendered(case) if thing["kind"] == "Deployment")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with a namespace for restricted pods only, and those where models are served."""
    if not binaries.ready([*ControlPlane.programs(), "helm"]):
        pytest.skip(f"no control plane: type `{binaries.COMMAND}`")
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        for name, labels in ((NAMESPACE, RESTRICTED), ("serving", {}), ("growth", {})):
            running.client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        yield running


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> Client:
    return plane.client


@pytest.mark.parametrize("case", cases("retraining"))
def test_the_api_server_accepts_every_object_and_knows_every_field(api: Client, case: str) -> None:
    things = [thing for thing in rendered(case) if thing["kind"] not in FOREIGN]
    assert len(things) >= 4
    for thing in things:
        api.request("PATCH", f"{api.path(thing)}?fieldManager=tests&force=true&dryRun=All&fieldValidation=Strict", thing, patch="apply")


@pytest.fixture(scope="module")
def operator(api: Client) -> Client:
    """The same with the Prometheus operator's kinds, and the other namespaces that objects are for."""
    try:
        definitions = operator_kinds.definitions()
    except binaries.ToolsMissing as missing:
        pytest.skip(str(missing))
    for definition in definitions:
        api.apply(definition)
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fraud"}})

    def established() -> bool:
        found = [api.request("GET", api.path(definition)) for definition in definitions]
        named = [{each["type"] for each in thing["status"].get("conditions") or [] if each["status"] == "True"} for thing in found]
        return all("Established" in types for types in named)

    eventually("the kinds are established", established, 60)
    return api


@pytest.mark.parametrize(("chart", "case"), [(chart, case) for chart in RELEASES for case in cases(chart)])
def test_the_operator_s_kinds_have_every_field_that_the_charts_set(operator: Client, chart: str, case: str) -> None:
    things = [thing for thing in yaml.safe_load_all(render(cases(chart)[case])) if thing and thing["kind"] in operator_kinds.KINDS]
    assert things or case not in ("everything", "mounted"), "these render some"
    for thing in things:
        query = "fieldManager=tests&force=true&dryRun=All&fieldValidation=Strict"
        operator.request("PATCH", f"{operator.path(thing)}?{query}", thing, patch="apply")


@pytest.mark.parametrize("case", cases("retraining"))
def test_a_namespace_for_restricted_pods_takes_the_pod(api: Client, case: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "retraining", "namespace": NAMESPACE}}
    api.apply(account)
    spec = deployment(case)["spec"]["template"]["spec"]
    spec.pop("priorityClassName", None)  # the class is the cluster's, and not on this one
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "retraining"}, "spec": spec}
    api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod)


@pytest.mark.parametrize("case", cases("retraining"))
def test_the_command_takes_what_the_chart_tells_it(case: str, tmp_path: Path) -> None:
    (container,) = deployment(case)["spec"]["template"]["spec"]["containers"]
    assert "command" not in container  # the image's own, which is `python3 -m mlpipelines`
    said = subprocess.run(
        [sys.executable, "-m", "mlpipelines", *container["args"]], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert said.returncode == 4, said.stderr
    assert "The token file /etc/millrace/token/token cannot be read" in said.stderr  # the first thing that is not here
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = [word.partition("=")[2] for word in container["args"] if "=/etc/" in word]
    assert all(str(Path(file).parent) in mounted for file in files)


def kinds(case: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for thing in rendered(case):
        found.setdefault(thing["kind"], []).append(thing)
    return found


def test_the_trigger_reads_the_releases_as_the_chart_writes_them(tmp_path: Path) -> None:
    given = yaml.safe_load(cases("retraining")["everything"].read_text())["rollouts"]
    (file,) = (thing["data"]["rollouts.yaml"] for thing in kinds("everything")["ConfigMap"] if "rollouts.yaml" in thing["data"])
    read = FILE.parse(file, "rollouts.yaml")
    for model, place in given["releases"].items():
        cluster = read.of(model)
        assert (cluster.release, cluster.namespace) == (place["release"], place["namespace"])
        assert (cluster.prometheus, cluster.chart, cluster.by_namespace) == (given["prometheus"], given["chart"], given["byNamespace"])


RESOURCES = {"ConfigMap": "configmaps", "CronJob": "cronjobs", "Deployment": "deployments", "HorizontalPodAutoscaler": "horizontalpodautoscalers", "NetworkPolicy": "networkpolicies", "PodDisruptionBudget": "poddisruptionbudgets", "PodMonitor": "podmonitors", "PodMonitoring": "podmonitorings", "PrometheusRule": "prometheusrules", "Role": "roles", "RoleBinding": "rolebindings", "Rules": "rules", "Service": "services", "ServiceAccount": "serviceaccounts"}  # fmt: skip
"""Of what helm/model-serving renders beside hooks, which an upgrade leaves out: by kind, as rights name it."""


def test_in_each_namespace_of_a_release_the_account_may_write_whatever_the_serving_chart_renders_and_no_pods() -> None:
    served = {
        (thing["apiVersion"].rpartition("/")[0], RESOURCES[thing["kind"]])
        for values in cases("model-serving").values()
        for thing in yaml.safe_load_all(render(values))
        if thing and "helm.sh/hook" not in thing["metadata"].get("annotations", {})
    }
    roles = {role["metadata"]["namespace"]: role for role in kinds("everything")["Role"]}
    assert roles.keys() == {"serving", "growth"}
    assert kinds("everything").keys().isdisjoint({"ClusterRole", "ClusterRoleBinding"})
    for namespace, role in roles.items():
        may = {
            (group, resource): set(rule["verbs"]) for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
        }
        writes = {place for place, verbs in may.items() if verbs >= {"get", "create", "patch", "delete"}}
        assert writes == served | {("", "secrets")}, "and helm's own records"
        assert {place for place in may if place not in writes} == {("millrace.dev", "models")}
        (binding,) = (each for each in kinds("everything")["RoleBinding"] if each["metadata"]["namespace"] == namespace)
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "retraining", "namespace": NAMESPACE}]


@pytest.mark.parametrize("case", ["smallest", "google"])
def test_who_rolls_nothing_out_has_no_rights_and_no_token(case: str) -> None:
    assert kinds(case).keys().isdisjoint({"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
    pod = deployment(case)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert not any("rollouts" in word for word in container["args"])
    assert deployment("everything")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_an_upgrade_from_the_chart_before_changes_only_limit_and_volumes_and_what_is_new_can_be_switched_on(
    plane: ControlPlane, api: Client, tmp_path: Path
) -> None:
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "upgraded"}})

    def helm(*words: str) -> None:
        command = [binaries.paths(["helm"])["helm"], *words, "--namespace=upgraded", "--kubeconfig", plane.kubeconfig]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def spec() -> Any:
        return api.request("GET", "/apis/apps/v1/namespaces/upgraded/deployments/retraining")["spec"]["template"]["spec"]

    # The image is named, for by default it is another one with each release.
    helm("install", "retraining", str(BEFORE), "--values", str(cases("retraining")["smallest"]), "--set-string", "image.tag=1")
    before = spec()
    helm("upgrade", "retraining", str(CHART), "--reset-then-reuse-values")
    after = spec()
    assert after["containers"][0].pop("resources") != before["containers"][0].pop("resources")
    mounted = [{mount.pop("mountPath") for mount in each["containers"][0].pop("volumeMounts")} for each in (before, after)]
    assert mounted[0] ^ mounted[1] == {"/millrace", "/millrace/projects", "/millrace/predictions"}
    claims = [{each["name"] for each in pod.pop("volumes") if "persistentVolumeClaim" in each} for pod in (before, after)]
    assert claims == [{"workspace"}, {"workspace", "predictions"}]
    assert after == before
    told = yaml.safe_load(cases("retraining")["everything"].read_text())["rollouts"]
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"rollouts": told}))
    helm("upgrade", "retraining", str(CHART), "--reset-then-reuse-values", "--values", str(tmp_path / "more.yaml"))
    assert "--rollouts=/etc/millrace/rollouts/rollouts.yaml" in spec()["containers"][0]["args"]
    helm("uninstall", "retraining")
    roles = api.request("GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/serving/roles")["items"]
    assert roles == [], "rights go with the release"


def test_the_values_are_those_that_are_modelled() -> None:
    msgspec.convert(yaml.safe_load((CHART / "values.yaml").read_text()), Values)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("kubeflow.image=steps:latest", "kubeflow/image"),
        ("kubeflow.image=", "kubeflow.image"),
        ("database.secretName=", "database.secretName"),
        ("token.secretName=", "token.secretName"),
        ("replica=3", "replica"),
        ("every=0", "every"),
        ("kubeflow.url=ml-pipeline:8888", "kubeflow/url"),
        ("rollouts.prometheus=prometheus:9090", "rollouts/prometheus"),
        ("rollouts.releases.cards.release=cards", "namespace"),
        ("rollouts.releases.cards.release=cards,rollouts.releases.cards.namespace=serving", "rollouts.prometheus"),
    ],
)
def test_what_cannot_be_meant_is_refused(value: str, complaint: str) -> None:
    program = binaries.paths(["helm"])["helm"]
    command = [program, "template", "retraining", CHART, "--values", cases("retraining")["smallest"], "--set", value]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert complaint in refused.stderr


def test_no_secret_is_in_what_is_rendered() -> None:
    for case in cases("retraining"):
        assert not re.search(r"kind: Secret\b", render(cases("retraining")[case]))
