"""A platform from nothing to nothing on a real API server: deployed, looked at, harmed, mended, killed in the middle, and taken away.

Kubeflow Pipelines is left out: its release is fetched from where tests do not reach. So is what is asked of a registry that answers: nodes here only say that
pods run (`test_registry_of_a_platform.py` has one).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from api_client import Refused
from control_plane import ControlPlane
from platform_things import but_for_releases, things, written
from typed_platform import ROOT, command, surroundings, typed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WITHOUT = ("--without=kubeflow-pipelines", "--without=registry-rights")


def test_a_platform_from_nothing_to_nothing_and_once_more_by_two_people(plane: ControlPlane, laptop: Path) -> None:
    before = set(things(plane))
    planned_and_deployed(plane, laptop)
    harmed_and_mended(plane, laptop)
    changed_with_its_file(plane, laptop)
    taken_away(plane, laptop, before)
    deployed_by_two_people_and_killed(plane, laptop)
    kept_for_its_environment_and_those_who_wait(plane, laptop)


def planned_and_deployed(plane: ControlPlane, laptop: Path) -> None:
    # A plan writes nothing, not even a secret on this machine.
    before = set(things(plane))
    planned = typed(plane, "plan", str(laptop), *WITHOUT)
    assert planned.returncode == 0, planned.stderr
    assert "35 new" in planned.stdout
    assert set(things(plane)) == before
    assert list(laptop.parent.iterdir()) == [laptop]

    first = typed(plane, "deploy", str(laptop), *WITHOUT)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "laptop is ready" in first.stdout
    secrets = laptop.parent / ".secrets-laptop"
    assert {oct(file.stat().st_mode & 0o777) for file in secrets.iterdir()} == {"0o600"}
    assert all(file.read_text() not in first.stdout for file in secrets.iterdir())

    # Again: nothing is written.
    once = written(plane)
    second = typed(plane, "deploy", str(laptop), *WITHOUT)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("as it should be") == 9
    assert written(plane) == once

    looked = typed(plane, "status", str(laptop), *WITHOUT)
    assert (looked.returncode, looked.stdout.count(" healthy"), looked.stdout.count("NOT")) == (0, 9, 0)


def harmed_and_mended(plane: ControlPlane, laptop: Path) -> None:
    # Somebody does harm: it is told, and mended by the same command.
    client, once = plane.client, written(plane)
    client.request("DELETE", "/apis/rbac.authorization.k8s.io/v1/namespaces/fraud/rolebindings/millrace-viewer")
    client.request("PATCH", "/apis/apps/v1/namespaces/mlflow/deployments/mlflow/scale", {"spec": {"replicas": 0}})
    client.request("PATCH", "/api/v1/namespaces/mlflow", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}})
    looked = typed(plane, "status", str(laptop), *WITHOUT)
    assert looked.returncode == 4
    assert "RoleBinding fraud/millrace-viewer is not there" in looked.stdout
    assert looked.stdout.count("is not as it should be") == 3
    assert "make deploy-platform ENV=laptop" in looked.stdout
    mended = typed(plane, "deploy", str(laptop), *WITHOUT)
    assert mended.returncode == 0, mended.stderr
    assert but_for_releases(written(plane)) == but_for_releases(once)
    assert client.request("GET", "/apis/apps/v1/namespaces/mlflow/deployments/mlflow")["spec"]["replicas"] == 1
    assert client.request("GET", "/api/v1/namespaces/mlflow")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def changed_with_its_file(plane: ControlPlane, laptop: Path) -> None:
    # A team loses a namespace and its quota changes: what the file says is what is there.
    client = plane.client
    laptop.write_text(laptop.read_text().replace("[search, search-dev]", "[search]").replace("quota: 1}", "quota: 2}"))
    changed = typed(plane, "deploy", str(laptop), *WITHOUT)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    queue = client.request("GET", "/apis/gpu-queue.dev/v1/gpuqueues/search")["spec"]
    assert (queue["namespaces"], queue["lanes"][0]["quota"]) == (["search"], 2)
    with pytest.raises(Refused, match="NotFound"):
        client.request("GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/search-dev/rolebindings/millrace-runner")

    # A model goes: its release is named, and removed when that is asked for.
    text = laptop.read_text()
    laptop.write_text(text[: text.index("models:")])
    told = typed(plane, "deploy", str(laptop), *WITHOUT)
    assert "release fraud/transactions is in no step any more" in told.stdout
    assert client.request("GET", "/apis/apps/v1/namespaces/fraud/deployments/transactions-gateway")
    assert "removed  release fraud/transactions" in typed(plane, "deploy", str(laptop), *WITHOUT, "--remove-orphans").stdout
    with pytest.raises(Refused, match="NotFound"):
        client.request("GET", "/apis/apps/v1/namespaces/fraud/deployments/transactions-gateway")
    assert client.request("GET", "/api/v1/namespaces/fraud/persistentvolumeclaims/predictions")
    laptop.write_text(text)


def taken_away(plane: ControlPlane, laptop: Path, before: set[tuple[str, str, str]]) -> None:
    # Not its name: nothing goes. Its name: everything goes, and nothing else.
    refused = typed(plane, "destroy", str(laptop), said="yes\n")
    assert (refused.returncode, "Nothing was removed" in refused.stderr) == (2, True)
    assert "with data   PersistentVolumeClaim fraud/models" in refused.stdout
    plane.client.request("POST", "/api/v1/namespaces", {"metadata": {"name": "strangers"}})
    # Killed when no release is left that would name what it kept, it is gone on with.
    killed = command("destroy", str(laptop))
    environment = surroundings(plane.kubeconfig)
    with subprocess.Popen(
        killed, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        assert first.stdin
        assert first.stdout
        first.stdin.write("laptop\n")
        first.stdin.close()
        assert any("removed  release millrace-system/foundation" in line for line in first.stdout)
        os.killpg(first.pid, signal.SIGKILL)
    gone = typed(plane, "destroy", str(laptop), said="laptop\n")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "with data   PersistentVolumeClaim fraud/models" in gone.stdout
    left = set(things(plane)) - before
    # search-dev is not the environment's any more, and data is only deleted by name.
    assert {name for name in left if "strangers" not in name and "search-dev" not in name} == set()


def deployed_by_two_people_and_killed(plane: ControlPlane, laptop: Path) -> None:
    environment = surroundings(plane.kubeconfig)
    deploy = command("deploy", str(laptop), *WITHOUT, "--take-over=5")
    for step in ("postgresql", "gpu-queue", "serving-transactions"):
        with subprocess.Popen(deploy, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
            assert first.stdout
            for line in first.stdout:
                if f"] {step}" in line and "new" in line:
                    break
            if step == "postgresql":
                other = typed(plane, "deploy", str(laptop), *WITHOUT)
                assert other.returncode == 5
                assert f"process {first.pid} deploys to this cluster since" in other.stderr
            time.sleep(0.3)  # helm is somewhere in the middle; wherever that is, nothing may be lost
            os.killpg(first.pid, signal.SIGKILL)
    last = typed(plane, "deploy", str(laptop), *WITHOUT, "--take-over=5")
    assert last.returncode == 0, last.stdout + last.stderr
    assert typed(plane, "status", str(laptop), *WITHOUT).returncode == 0


def kept_for_its_environment_and_those_who_wait(plane: ControlPlane, laptop: Path) -> None:
    # The cluster knows whose it is.
    other = laptop.parent / "other.yaml"
    other.write_text(laptop.read_text().replace("name: laptop", "name: other"))
    wrong = typed(plane, "deploy", str(other), *WITHOUT)
    assert wrong.returncode == 2
    assert "This cluster holds the environment laptop, and you asked for other" in wrong.stderr

    # Pods that wait for GPUs would wait for ever.
    pod = {
        "metadata": {"name": "waits"},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
    }
    plane.client.request("POST", "/api/v1/namespaces/fraud/pods", pod)
    refused = typed(plane, "destroy", str(laptop), said="laptop\n")
    assert refused.returncode == 2
    assert "fraud/waits" in refused.stderr
    plane.client.request("DELETE", "/api/v1/namespaces/fraud/pods/waits?gracePeriodSeconds=0")
