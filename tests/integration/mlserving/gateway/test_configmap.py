"""Settings from a ConfigMap through a real API server, as the pod's service account: in force within seconds, and no right is needed but `get`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import binaries
from control_plane import ControlPlane
from gateways import Server, ask, channel, config, gateway, model_server
from waiting import eventually

pytestmark = [
    pytest.mark.control_plane,
    pytest.mark.skipif(
        not binaries.ready(ControlPlane.programs()) and shutil.which("go") is None,
        reason=f"no control plane: install Go and type `{binaries.COMMAND}`",
    ),
    pytest.mark.timeout(600 if binaries.ready(ControlPlane.programs()) else 3600),
]

_CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as found:
        yield found


@pytest.fixture
def account(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod of the chart finds: a token that may get one ConfigMap, and where the API server is."""
    client = plane.client
    meta = {"name": "gateway", "namespace": "default"}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["m-gateway"], "verbs": ["get"]}]
    client.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    client.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules})
    client.apply({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gateway"},
        "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": "default"}],
    })  # fmt: skip
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(token(plane))
    shutil.copy(plane.folder / "certificates" / "ca.crt", folder / "ca.crt")
    host, port = client.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setenv("MILLRACE_SERVICE_ACCOUNT", str(folder))
    return folder


def token(plane: ControlPlane) -> str:
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = plane.client.request("POST", "/api/v1/namespaces/default/serviceaccounts/gateway/token", wanted)
    return str(answer["status"]["token"])


def write(plane: ControlPlane, text: str) -> None:
    plane.client.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m-gateway", "namespace": "default"}, "data": {"gateway.yaml": text}}
    )


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with model_server(tmp_path / "one", "--version", "1") as one, model_server(tmp_path / "two", "--version", "2") as two:
        yield one, two


def test_a_rollback_in_the_configmap_is_in_force_within_seconds_and_an_outage_of_the_api_changes_nothing(
    plane: ControlPlane, account: Path, servers: tuple[Server, Server], tmp_path: Path
) -> None:
    one, two = servers
    write(plane, config(stable=(one, 100)))
    with gateway(tmp_path / "g", "", "--config", "configmap:default/m-gateway") as front, channel(front.grpc) as opened:
        assert front.tracks()["config"]["source"] == "ConfigMap default/m-gateway, gateway.yaml"
        assert ask(opened, "a").version == 1
        write(plane, config(stable=(two, 100)))
        started = time.monotonic()
        eventually("version 2 answers", lambda: ask(opened, "b").version == 2, 20)
        assert time.monotonic() - started < 10  # what a rollback may take
        write(plane, "models: [")
        eventually("it says that the file is no YAML", lambda: "no YAML" in (front.tracks()["config"]["error"] or ""), 20)
        plane.pause("kube-apiserver")
        try:
            eventually("it says that a server did not answer", lambda: "did not answer" in (front.tracks()["config"]["error"] or ""), 20)
            assert ask(opened, "c").version == 2
        finally:
            plane.resume("kube-apiserver")
        (account / "token").write_text(token(plane))  # as the kubelet does
        write(plane, config(stable=(one, 100)))
        eventually("version 1 answers", lambda: ask(opened, "d").version == 1, 20)
        assert front.tracks()["config"]["error"] is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("configmap:default/other", "403"),
        ("configmap:default/m-gateway/nothing.yaml", "there is no such key"),
        ("configmap:m-gateway", "configmap:NAMESPACE/NAME"),
    ],
)
def test_what_cannot_be_had_at_the_start_is_told(plane: ControlPlane, account: Path, tmp_path: Path, name: str, told: str) -> None:
    write(plane, "models: {}")
    code, output = refused(tmp_path, name)
    assert (code, told in output) == (4 if told == "403" else 2, True), output


def refused(folder: Path, name: str) -> tuple[int, Any]:

    ports = ["--grpc-port", "0", "--rest-port", "0", "--admin-port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "mlserving", "gateway", "--config", name, *ports], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr
