"""The platform as the release before deployed it, by its own code, upgraded to this one on a real API server while things go on in it.

GPU pods run and wait, a rollout is half way, people have made Secrets and Jobs of their own. Kubeflow Pipelines is left out: its release is fetched from
where tests do not reach.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import binaries
import gpu_objects as make
import rollouts
from control_plane import ControlPlane
from gpu_team import Team
from mlserving.gateway.settings import Track
from mlserving.rollout.document import Desired, Wanted, steered, with_canary
from mlserving.rollout.helm import HelmDriver
from platform_things import Key, identities, passwords, precious, things, written
from previous_release import VERSION, PreviousRelease
from replicas import Replicas
from typed_platform import ROOT, command, surroundings, typed
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WITHOUT_BEFORE = "--without=kubeflow-pipelines"
WITHOUT = (WITHOUT_BEFORE, "--without=registry-rights")
"""What is asked of a registry that answers is left out too: pods are played here."""
OURS = yaml.safe_load((ROOT / "platform" / "release.yaml").read_text())["version"]
SYSTEM = "/api/v1/namespaces/millrace-system"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> PreviousRelease:
    """The repository of the release before."""
    return PreviousRelease.unpacked(tmp_path_factory.mktemp("release-before"))


@pytest.fixture(scope="module")
def environment(before: PreviousRelease, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment `laptop` as it was then, in a folder of its own, in which its secrets are made too."""
    file = tmp_path_factory.mktemp("environments") / "laptop.yaml"
    file.write_text(before.environment("laptop"))
    return file


@pytest.fixture(scope="module")
def controller(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The GPU queue's, which the pods of this control plane only pretend to be."""
    with Replicas(plane, tmp_path_factory.mktemp("controller")):
        yield


@pytest.fixture
def at_hand(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is that of whoever types helm here."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))


@dataclass(frozen=True)
class Kept:
    """What an upgrade has to keep."""

    credentials: dict[str, str]
    """By name, as the files hold them."""
    passwords: set[tuple[Key, str, str]]
    precious: dict[Key, Any]
    who: dict[Key, str]

    @classmethod
    def of(cls, plane: ControlPlane, environment: Path) -> Kept:
        """As it is now."""
        files = {file.name: file.read_text() for file in (environment.parent / ".secrets-laptop").iterdir()}
        return cls(files, passwords(plane, files), precious(plane), identities(plane))


def release(plane: ControlPlane) -> dict[str, str]:
    """What the cluster says of its release."""
    notes = plane.client.request("GET", SYSTEM)["metadata"].get("annotations", {})
    return {key.removeprefix("millrace.dev/release"): text for key, text in notes.items() if key.startswith("millrace.dev/release")}


def rollout(chart: Path) -> HelmDriver:
    """Who writes a rollout's steps into the release of the model, with the chart that is installed."""
    programs = binaries.paths(["helm", "kubectl"])
    chart = chart / "helm" / "model-serving"
    return HelmDriver(
        release="transactions", namespace="fraud", chart=str(chart), helm=str(programs["helm"]), kubectl=str(programs["kubectl"])
    )


def half_way(desired: Desired) -> Desired:
    """Version 2 answers one request in ten."""
    started = rollouts.rollout(rollouts.plan(steps=[10, 50, 100]))
    return steered(with_canary(desired, Wanted(version=2)), started)


def tracks(plane: ControlPlane) -> dict[str, Any]:
    """Versions as the release has them, with the weights that the gateways read."""
    found = plane.client.request("GET", "/api/v1/namespaces/fraud/configmaps/transactions-gateway")
    told = yaml.safe_load(found["data"]["gateway.yaml"])["models"]["transactions"]["tracks"]
    wanted = rollout(ROOT).read("transactions").tracks
    assert {track.value: wanted[track].weight for track in wanted} == {track: each["weight"] for track, each in told.items()}
    return {track.value: (each.version, each.weight) for track, each in wanted.items()}


@pytest.mark.usefixtures("at_hand")
def test_the_release_before_is_upgraded_while_things_go_on_in_it(
    plane: ControlPlane, before: PreviousRelease, environment: Path, controller: None, tmp_path: Path
) -> None:
    first = before.typed(plane, "deploy", str(environment), WITHOUT_BEFORE)
    assert first.returncode == 0, first.stdout + first.stderr
    assert release(plane) == {}
    things_go_on(plane, before)
    environment.write_text((ROOT / "platform" / "environments" / "laptop.yaml").read_text())
    at_first, theirs = Kept.of(plane, environment), written(plane)

    refused_before_anything_runs(plane, environment, tmp_path)
    planned(plane, environment)
    assert written(plane) == theirs, "neither a refusal nor a plan writes anything"
    killed_in_the_middle_and_gone_on_with(plane, environment)

    nothing_precious_changed(plane, environment, at_first)
    assert release(plane)[""] == OURS
    assert "-next" not in release(plane)
    again_writes_nothing(plane, environment)
    back_and_forth(plane, before, environment, at_first)


def things_go_on(plane: ControlPlane, before: PreviousRelease) -> None:
    team = Team(plane.client, "fraud")
    for name in ("running-1", "running-2", "waiting"):
        team.submit(name)
        eventually(f"{name} has its answer", lambda name=name: team.is_open(name) or team.told(name) != "", 30)  # type: ignore[misc]
    assert team.open_pods() >= {"running-1", "running-2"}
    assert not team.is_open("waiting")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "fraud"}, "stringData": {"key": "value"}}
    plane.client.apply(secret)
    plane.client.apply(make.job("nightly", "fraud", parallelism=1, gpus=0))
    driver = rollout(before.root)
    driver.write(half_way(driver.read("transactions")))
    assert tracks(plane) == {"stable": (1, 90), "canary": (2, 10)}


def other_repository(folder: Path, **numbers: str) -> Path:
    """This repository, as if it were another release."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "platform").mkdir(parents=True)
    for name in ("helm", "k8s"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "platform" / "release.yaml").write_text(yaml.safe_dump(numbers))
    return folder


def refused_before_anything_runs(plane: ControlPlane, environment: Path, folder: Path) -> None:
    def refusal(*arguments: str, text: str | None = None) -> str:
        file = environment
        if text is not None:
            file = folder / "laptop.yaml"
            file.write_text(text)
            shutil.copytree(environment.parent / ".secrets-laptop", folder / ".secrets-laptop", dirs_exist_ok=True)
        done = typed(plane, "deploy", str(file), *WITHOUT, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stderr

    # A release is skipped; the repository is older than the cluster; the environment names another release.
    skipping = other_repository(folder / "later", version="0.9.0", upgrades_from="0.8.0", back_to="0.8.0")
    assert "Deploy 0.8.0 first: git checkout 0.8.0" in refusal(f"--root={skipping}")
    older = other_repository(folder / "older", version="0.1.0", upgrades_from="0.1.0", back_to="0.1.0")
    assert "this repository is older: 0.1.0" in refusal(f"--root={older}")
    assert "the way back ends at 0.2.0" in refusal(f"--root={older}", "--back")
    text = environment.read_text()
    pinned = text.replace("versions: {", "versions: {millrace: 0.2.0, ")
    assert f"versions.millrace: is 0.2.0, and this repository is {OURS}" in refusal(text=pinned)

    # The repository has lost what holds the databases, and the file has a volume shrink: all of it is told at once.
    careless = other_repository(folder / "careless", version=OURS, upgrades_from=VERSION, back_to=VERSION)
    (careless / "helm").unlink()
    shutil.copytree(ROOT / "helm", careless / "helm")
    (careless / "helm" / "postgresql" / "templates" / "server.yaml").unlink()
    said = refusal(f"--root={careless}", text=text.replace("claim: 5Gi", "claim: 4Gi"))
    assert "postgresql: StatefulSet databases/postgresql: would be deleted, with the data in it" in said
    assert "team-fraud: PersistentVolumeClaim fraud/models: " in said
    assert "can not be less than" in said
    assert "nothing was written" in said
    # What cannot be changed in place, in the words of the API server.
    (folder / "laptop.yaml").write_text(text.replace("disk_gb: 10", "disk_gb: 20"))
    steps = json.loads(typed(plane, "plan", str(folder / "laptop.yaml"), *WITHOUT, "--json").stdout)["steps"]
    (told,) = [text for step in steps for text in step["refused"]]
    assert told.startswith("StatefulSet databases/postgresql: ")
    assert "Forbidden: updates to statefulset spec" in told


def planned(plane: ControlPlane, environment: Path) -> None:
    told = json.loads(typed(plane, "plan", str(environment), *WITHOUT, "--json").stdout)
    assert told["release"] == {"here": OURS, "there": VERSION, "under_way_to": None, "way": "upgrade"}
    steps = {step["name"]: step for step in told["steps"]}
    assert steps["mlflow"]["chart"] == {"from": "mlflow-0.1.0", "to": f"mlflow-{OURS}"}
    assert steps["mlflow"]["restarts"] == ["Deployment mlflow/mlflow (1 pod)"]
    assert steps["postgresql"]["restarts"] == ["StatefulSet databases/postgresql (1 pod)"]
    assert not any(steps[name]["restarts"] for name in ("foundation", "roles", "secrets", "team-fraud", "team-search"))
    assert not any(step["refused"] for step in steps.values())


def killed_in_the_middle_and_gone_on_with(plane: ControlPlane, environment: Path) -> None:
    deploy = command("deploy", str(environment), *WITHOUT, "--take-over=5")
    for step in ("postgresql", "serving-transactions"):
        with subprocess.Popen(
            deploy, cwd=ROOT, env=surroundings(plane.kubeconfig), stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as running:
            assert running.stdout
            for line in running.stdout:
                if f"] {step}" in line and "changed" in line:
                    break
            time.sleep(0.3)  # helm is somewhere in the middle; wherever that is, nothing may be lost
            os.killpg(running.pid, signal.SIGKILL)
        noted = release(plane)
        assert (noted.get("", VERSION), noted["-next"]) == (VERSION, OURS)
    looked = typed(plane, "status", str(environment), *WITHOUT)
    assert f"{VERSION}, under way to {OURS} since" in looked.stdout
    last = typed(plane, "deploy", str(environment), *WITHOUT, "--take-over=5")
    assert last.returncode == 0, last.stdout + last.stderr
    assert f"upgrade from {VERSION} to {OURS}" in last.stdout


def nothing_precious_changed(plane: ControlPlane, environment: Path, at_first: Kept) -> None:
    now = Kept.of(plane, environment)
    assert at_first.credentials.items() <= now.credentials.items()
    assert at_first.passwords <= now.passwords
    assert at_first.precious.items() <= now.precious.items()
    assert at_first.who.items() <= now.who.items(), "nothing was deleted, or deleted and made anew"
    assert tracks(plane) == {"stable": (1, 90), "canary": (2, 10)}
    team = Team(plane.client, "fraud")
    assert team.open_pods() >= {"running-1", "running-2"}
    assert not team.is_open("waiting")


def again_writes_nothing(plane: ControlPlane, environment: Path) -> None:
    once = written(plane)
    second = typed(plane, "deploy", str(environment), *WITHOUT)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("as it should be") == 9
    assert written(plane) == once
    looked = typed(plane, "status", str(environment), *WITHOUT)
    assert (looked.returncode, looked.stdout.count("NOT")) == (0, 0), looked.stdout
    assert f"{OURS} since" in looked.stdout


def back_and_forth(plane: ControlPlane, before: PreviousRelease, environment: Path, at_first: Kept) -> None:
    # The way back: the release before deploys, with its own environment. The next one upgrades again.
    ours = environment.read_text()
    environment.write_text(before.environment("laptop"))
    back = before.typed(plane, "deploy", str(environment), WITHOUT_BEFORE)
    assert back.returncode == 0, back.stdout + back.stderr
    assert release(plane) == {}, "it knows no such note, and so the cluster is of that release again"
    nothing_precious_changed(plane, environment, at_first)
    assert ("/api/v1/persistentvolumeclaims", "databases", "postgresql-backup") in things(plane), "what the newer one made of data stays"
    environment.write_text(ours)
    once_more = typed(plane, "deploy", str(environment), *WITHOUT)
    assert once_more.returncode == 0, once_more.stdout + once_more.stderr
    nothing_precious_changed(plane, environment, at_first)
    assert release(plane)[""] == OURS
    # A rollout goes on from where it was.
    driver = rollout(ROOT)
    desired = driver.read("transactions")
    assert desired.rollout is not None
    driver.write(desired.model_copy(update={"tracks": {Track.STABLE: Wanted(version=2, weight=100)}}))
    assert tracks(plane) == {"stable": (2, 100)}
