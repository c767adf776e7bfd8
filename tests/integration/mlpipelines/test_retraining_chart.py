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
from retraining_values import Values
from triggers import until

pytestmark = pytest.mark.control_plane

CHART = ROOT / "helm" / "retraining"
_, NAMESPACE = RELEASES["retraining"]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
FOREIGN = {*operator_kinds.KINDS, "PodMonitoring", "Rules"}
"""Kinds that an API server does not know by itself."""


def rendered(case: str) -> list[Any]:
    return [thing for thing in yaml.safe_load_all(render(cases("retraining")[case])) if thing]


def deployment(case: str) -> Any:
    return next(thing for thing in rendered(case) if thing["kind"] == "Deployment")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """An API server with a namespace for restricted pods only."""
    if not binaries.ready([*ControlPlane.programs(), "helm"]):
        pytest.skip(f"no control plane: type `{binaries.COMMAND}`")
    with ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}}
        running.client.request("POST", "/api/v1/namespaces", namespace)
        yield running.client


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
    for name in ("serving", "fraud"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def established() -> bool:
        found = [api.request("GET", api.path(definition)) for definition in definitions]
        named = [{each["type"] for each in thing["status"].get("conditions") or [] if each["status"] == "True"} for thing in found]
        return all("Established" in types for types in named)

    until(established, 60)
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
