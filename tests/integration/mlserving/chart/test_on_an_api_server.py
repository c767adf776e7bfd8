"""The chart on a real API server: what it accepts, who may do what, and what an upgrade touches."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
from api_client import Client, Person, Refused
from chart_renders import cases
from control_plane import ControlPlane
from mlpipelines.commands import rollout
from mlserving.errors import ConfigError
from mlserving.gateway.settings import FILE

CHART = Path(__file__).resolve().parents[4] / "helm" / "model-serving"
BEFORE = Path(__file__).resolve().parents[3] / "charts" / "model-serving-0.1.0.tgz"
"""The chart of the version before, as `helm package` made it."""
NAMESPACE = "fraud"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
FOREIGN = {"PodMonitor", "PodMonitoring", "PrometheusRule", "Rules"}
"""Kinds that this API server does not know."""
VALUES = ["--set", "model.name=cards,tracks.stable.version=7"]
CANARY = ["--set", "tracks.canary.enabled=true,tracks.canary.version=8,tracks.canary.weight=10,tracks.stable.weight=90"]

Helm = Callable[..., subprocess.CompletedProcess[str]]


def rendered(case: str) -> list[Any]:
    program = binaries.paths(["helm"])["helm"]
    command = [program, "template", "cards", CHART, "--namespace", NAMESPACE, "--values", cases()[case]]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [thing for thing in yaml.safe_load_all(text) if thing]


@pytest.mark.parametrize("case", cases())
def test_the_api_server_accepts_every_object_and_knows_every_field(api: Client, case: str) -> None:
    for thing in rendered(case):
        if thing["kind"] not in FOREIGN:
            api.request("PATCH", f"{api.path(thing)}?fieldManager=tests&force=true&dryRun=All&fieldValidation=Strict", thing, patch="apply")


@pytest.mark.parametrize("case", cases())
def test_a_namespace_for_restricted_pods_takes_every_pod(api: Client, case: str) -> None:
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": thing["metadata"]["name"]}, "spec": spec_of(thing)}
        for thing in rendered(case)
        if thing["kind"] in {"Pod", "Deployment", "CronJob"}
    ]
    assert len(pods) >= 3
    for pod in pods:
        pod["spec"].pop("priorityClassName", None)  # the class is the cluster's, and not on this one
        api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod)


def spec_of(thing: Any) -> Any:
    match thing["kind"]:
        case "Pod":
            return thing["spec"]
        case "CronJob":
            return spec_of(thing["spec"]["jobTemplate"] | {"kind": "Job"})
        case _:
            return thing["spec"]["template"]["spec"]


def test_the_gateway_reads_its_own_config_map_and_may_do_nothing_else(api: Client, release: Helm, plane: ControlPlane) -> None:
    installed = release("install", "cards", str(CHART), *VALUES)
    assert installed.returncode == 0, installed.stderr
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": NAMESPACE}}
    api.apply(other)
    gateway = Person(user=f"system:serviceaccount:{NAMESPACE}:cards-gateway")
    server = Person(user=f"system:serviceaccount:{NAMESPACE}:cards-server")
    maps = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    assert "models:" in api.request("GET", f"{maps}/cards-gateway", person=gateway)["data"]["gateway.yaml"]
    for person, method, path in (
        (gateway, "GET", f"{maps}/other"),
        (gateway, "GET", maps),
        (gateway, "DELETE", f"{maps}/cards-gateway"),
        (gateway, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets"),
        (server, "GET", f"{maps}/cards-gateway"),
        (server, "GET", f"/api/v1/namespaces/{NAMESPACE}/pods"),
    ):
        with pytest.raises(Refused, match="Forbidden"):
            api.request(method, path, person=person)


def test_the_notes_name_the_command_for_the_next_version_as_it_is_typed(release: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = release("install", "cards", str(CHART), *VALUES, "--dry-run=server")
    assert installed.returncode == 0, installed.stderr
    typed = re.search(r"^The next version: millrace rollout (start .*)$", installed.stdout, re.MULTILINE)
    assert typed is not None
    monkeypatch.delenv("MILLRACE_PROMETHEUS", raising=False)
    with pytest.raises(ConfigError, match="Name it: --prometheus"):  # what it says once it has understood every word
        rollout.main(typed[1].replace(" N ", " 8 ").split())


def generations(api: Client) -> dict[str, int]:
    """By Deployment, how often its spec has changed: no change, no new pods."""
    return {thing["metadata"]["name"]: thing["metadata"]["generation"] for thing in api.request("GET", DEPLOYMENTS)["items"]}


def settings(api: Client) -> Any:
    found = api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/cards-gateway")
    return yaml.safe_load(found["data"]["gateway.yaml"])["models"]["cards"]["tracks"]


def test_upgrades_touch_what_they_must_and_no_more(api: Client, release: Helm) -> None:
    def upgrade(*values: str) -> dict[str, int]:
        done = release("upgrade", "--install", "cards", str(CHART), *VALUES, *values)
        assert done.returncode == 0, done.stderr
        return generations(api)

    assert upgrade() == {"cards-gateway": 1, "cards-stable": 1}
    assert upgrade(*CANARY) == {"cards-gateway": 1, "cards-stable": 1, "cards-canary": 1}, "a canary beside what answers"
    assert settings(api)["canary"]["weight"] == 10
    heavier = [*CANARY, "--set", "tracks.canary.weight=50,tracks.stable.weight=50"]
    assert upgrade(*heavier) == {"cards-gateway": 1, "cards-stable": 1, "cards-canary": 1}, "weights alone start no pod"
    assert settings(api)["canary"]["weight"] == 50
    assert upgrade("--set", "tracks.stable.version=8") == {"cards-gateway": 1, "cards-stable": 2}, "the canary is gone"
    assert set(settings(api)) == {"stable"}
    assert upgrade("--set", "tracks.stable.version=8,rollout.step=3") == {"cards-gateway": 1, "cards-stable": 2}
    rolled = release("rollback", "cards", "2")
    assert rolled.returncode == 0, rolled.stderr
    assert generations(api)["cards-stable"] == 3
    assert settings(api)["canary"]["weight"] == 10


def test_an_upgrade_from_the_chart_before_keeps_what_was_set_and_starts_no_server_anew(api: Client, release: Helm) -> None:
    # The image is named, for by default it is another one with each release, and servers begin by fetching their version with it.
    installed = release("install", "cards", str(BEFORE), *VALUES, *CANARY, "--set-string", "gateway.image.tag=1")
    assert installed.returncode == 0, installed.stderr
    upgraded = release("upgrade", "cards", str(CHART), "--reset-then-reuse-values")
    assert upgraded.returncode == 0, upgraded.stderr
    assert {name: count for name, count in generations(api).items() if name != "cards-gateway"} == {"cards-stable": 1, "cards-canary": 1}
    assert {track: each["weight"] for track, each in settings(api).items()} == {"stable": 90, "canary": 10}
    FILE.parse(api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/cards-gateway")["data"]["gateway.yaml"], "the chart")
    back = release("rollback", "cards", "1")
    assert back.returncode == 0, back.stderr


def test_pods_that_an_autoscaler_added_survive_an_upgrade(api: Client, release: Helm) -> None:
    scaled = [*VALUES, "--set", "tracks.stable.autoscaling.enabled=true"]
    assert release("install", "cards", str(CHART), *scaled).returncode == 0
    scale = {"spec": {"replicas": 5}}
    api.request("PATCH", f"{DEPLOYMENTS}/cards-stable/scale", scale)
    assert release("upgrade", "cards", str(CHART), *scaled, "--set", "tracks.stable.version=8").returncode == 0
    assert api.request("GET", f"{DEPLOYMENTS}/cards-stable")["spec"]["replicas"] == 5


def test_helm_finds_nothing_to_complain_of() -> None:
    command = [binaries.paths(["helm"])["helm"], "lint", "--strict", CHART, "--values", cases()["google"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
