"""What `helm test` and `helm uninstall` ask, tried where the answer is yes and where it is no."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpu_objects as make
from api_client import Client
from control_plane import ControlPlane, free_ports
from replicas import Replicas
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def kubeconfig(own_plane: ControlPlane, tmp_path: Path) -> Path:
    """Of a service account that may do everything: like the pods of the hooks it shows a token."""
    api = own_plane.client
    account = {"kind": "ServiceAccount", "name": "visitor", "namespace": "canaries"}
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "visitor", "namespace": "canaries"}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "visitor"}}
    api.apply(binding | {"roleRef": role, "subjects": [account]})
    token = api.request("POST", "/api/v1/namespaces/canaries/serviceaccounts/visitor/token", {"spec": {}})["status"]["token"]
    config = json.loads(own_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "visitor.kubeconfig").write_text(json.dumps(config))
    return tmp_path / "visitor.kubeconfig"


@pytest.fixture
def page(own_plane: ControlPlane, tmp_path: Path) -> Iterator[str]:
    """Address of a controller's page and API."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with Replicas(own_plane, tmp_path, count=0) as replicas:
        replicas.start("--listen", address)
        eventually("somebody leads", lambda: replicas.leader() != "", 30)
        yield f"http://{address}"


def ask(module: str, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"gpuqueue.hooks.{module}", "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_an_installation_that_works_is_told_from_one_that_does_not(own_plane: ControlPlane, kubeconfig: Path, page: str) -> None:
    own_plane.client.apply(make.namespace("forgotten", managed=False))
    arguments = ("--namespace", make.RELEASE_NAMESPACE, "--api", page)

    well = ask("installed", kubeconfig, *arguments, "--try-in", "canaries")
    assert well.returncode == 0, well.stdout
    assert well.stdout.count("ok      ") == 7

    ungated = ask("installed", kubeconfig, *arguments, "--try-in", "forgotten", "--seconds", "1")
    assert ungated.returncode == 1
    assert "FAILED  a GPU pod waits at the gate and carries our label: gates [], label None" in ungated.stdout
    assert "FAILED  a GPU pod that names its node is refused: it was accepted" in ungated.stdout
    assert "ok      a pod without GPUs stays as it is" in ungated.stdout


def test_a_controller_that_is_not_there_is_missed(kubeconfig: Path) -> None:
    missed = ask(
        "installed",
        kubeconfig,
        "--namespace",
        make.RELEASE_NAMESPACE,
        "--try-in",
        "canaries",
        "--api",
        "http://127.0.0.1:9",
        "--seconds",
        "1",
    )
    assert missed.returncode == 1
    assert "FAILED  a replica of the controller leads" in missed.stdout
    assert "FAILED  the API tells strangers nothing: http://127.0.0.1:9 did not answer" in missed.stdout


def test_uninstalling_is_refused_while_a_pod_waits(own_plane: ControlPlane, kubeconfig: Path) -> None:
    api: Client = own_plane.client
    assert ask("uninstall", kubeconfig).returncode == 0
    api.request("POST", "/api/v1/namespaces/canaries/pods", make.pod("early", gpus=1))
    refused = ask("uninstall", kubeconfig)
    assert refused.returncode == 3
    assert "pods wait at the gate and nobody would be left to open it (1): canaries/early" in refused.stderr
    api.request("DELETE", "/api/v1/namespaces/canaries/pods/early?gracePeriodSeconds=0")
    assert ask("uninstall", kubeconfig).returncode == 0
