"""Kubeconfigs as people have them, and what they are told about those that are broken."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from certificates import Authority
from gpuqueue.cluster import access
from gpuqueue.cluster.access import Access, find
from gpuqueue.errors import ConfigError, Unavailable

Config = dict[str, Any]


def config(user: Config | None = None, cluster: Config | None = None, **context: str) -> Config:
    return {
        "current-context": "work",
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1/"} | (cluster or {})}],
        "users": [{"name": "me", "user": user or {}}],
        "contexts": [{"name": "work", "context": {"cluster": "here", "user": "me"} | context}],
    }


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def write(file: Path, content: object) -> str:
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(file)


def found(folder: Path, content: object, context: str | None = None) -> Access:
    return find(write(folder / "config", content), context)


def headers(of: Access) -> dict[str, str]:
    return dict(asyncio.run(of.headers()))


def test_a_token_goes_with_each_request(tmp_path: Path) -> None:
    one = found(tmp_path, config({"token": "s3cret"}, namespace="fraud"))
    assert (one.server, one.namespace) == ("http://127.0.0.1:1", "fraud")
    assert headers(one) == {"Authorization": "Bearer s3cret"}


def test_nobody_in_particular_sends_nothing(tmp_path: Path) -> None:
    one = found(tmp_path, config() | {"users": None, "contexts": [{"name": "work", "context": {"cluster": "here"}}]})
    assert (headers(one), one.namespace) == ({}, "default")


def test_a_token_file_lies_beside_the_kubeconfig_and_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = found(tmp_path, config({"tokenFile": "token"}))
    with pytest.raises(Unavailable, match="token cannot be read"):
        headers(one)
    (tmp_path / "token").write_text("first\n")
    assert headers(one)["Authorization"] == "Bearer first"
    (tmp_path / "token").write_text("rotated")
    assert headers(one)["Authorization"] == "Bearer first"
    monkeypatch.setattr(access, "_TOKEN_SECONDS", -1.0)
    assert headers(one)["Authorization"] == "Bearer rotated"


def test_who_impersonates_says_as_whom_and_in_which_groups(tmp_path: Path) -> None:
    one = found(tmp_path, config({"as": "alice", "as-groups": ["team", "admins"]}))
    said = asyncio.run(one.headers())
    assert (said["Impersonate-User"], said.getall("Impersonate-Group")) == ("alice", ["team", "admins"])


def test_certificates_may_be_inline_or_in_files_beside_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    certificate, key = authority.issue("me", user="me")
    inline = {
        f"client-{kind}-data": base64.b64encode(file.read_bytes()).decode() for kind, file in (("certificate", certificate), ("key", key))
    }
    files = {"client-certificate": f"pki/{certificate.name}", "client-key": f"pki/{key.name}"}
    trusted = base64.b64encode(authority.certificate.read_bytes()).decode()
    for user, cluster in (
        (inline, {"certificate-authority-data": trusted}),
        (files, {"certificate-authority": f"pki/{authority.certificate.name}"}),
    ):
        one = found(tmp_path, config(user, {"server": "https://127.0.0.1:1", **cluster}))
        assert not isinstance(one.tls, bool)
        assert len(one.tls.get_ca_certs()) == 1


def test_the_parts_may_be_in_several_files_and_the_first_that_names_something_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config({"token": "first"})
    parts = [{"contexts": whole["contexts"]}, {"users": whole["users"], "current-context": "work"}, config({"token": "later"})]
    files = [write(tmp_path / f"part-{number}", part) for number, part in enumerate(parts)]
    monkeypatch.setenv("KUBECONFIG", ":".join(["/nowhere/config", *files]))
    assert headers(find())["Authorization"] == "Bearer first"


def test_a_context_can_be_chosen(tmp_path: Path) -> None:
    two = config()
    two["contexts"].append({"name": "play", "context": {"cluster": "here", "namespace": "toys"}})
    assert found(tmp_path, two, "play").namespace == "toys"
    with pytest.raises(ConfigError, match=r"config: contexts has no 'rest'.*kubectl config view"):
        found(tmp_path, two, "rest")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("", "Expected `object`"),
        ("[1, 2]", "Expected `object`"),
        ("a: b: c", "mapping values"),
        ("\x00", "control characters"),
        (config() | {"current-context": ""}, "current-context is not set.*kubectl config use-context"),
        (config() | {"current-context": 5}, r"current-context"),
        (config() | {"contexts": [{"name": "work"}]}, r"context.*contexts\[0\]"),
        (config() | {"clusters": None}, "clusters has no 'here'"),
        (config() | {"clusters": [{"name": "here", "cluster": {}}]}, r"server.*clusters\[0\]\.cluster"),
        (config(cluster={"server": ""}), r"clusters\[0\]\.cluster\.server"),
        (config() | {"users": ["me"]}, r"users\[0\]"),
        (config({"exec": {"args": []}}), r"command.*users\[0\]\.user\.exec"),
        (config(cluster={"server": "https://x", "certificate-authority-data": "?"}), r"clusters\[here\]\.cluster\.certificate-authority"),
        (
            config(cluster={"server": "https://x", "certificate-authority-data": "bm9uZQ=="}),
            r"clusters\[here\]\.cluster\.certificate-authority",
        ),
        (config(cluster={"server": "https://x", "certificate-authority": "gone.crt"}), r"clusters\[here\]\.cluster\.certificate-authority"),
        (config({"client-certificate": "gone.crt", "client-key": "gone.key"}, {"server": "https://x"}), "client-certificate"),
        (config({"client-certificate-data": "bm8=", "client-key-data": "bm8="}, {"server": "https://x"}), "client-certificate"),
    ],
)
def test_an_error_names_the_file_and_the_field(tmp_path: Path, broken: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        found(tmp_path, broken)
    assert str(tmp_path / "config") in str(caught.value)


def test_without_any_kubeconfig_the_next_thing_to_type_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no kubeconfig at .*\.kube/config\. Name one: KUBECONFIG="):
        find()


def test_inside_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "pki")
    for name, text in (("token", "pod-token"), ("namespace", "gpu-queue\n"), ("ca.crt", authority.certificate.read_text())):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    one = find()
    assert (one.server, one.namespace, headers(one)["Authorization"]) == ("https://[fd00::1]:443", "gpu-queue", "Bearer pod-token")


def program(folder: Path, code: str, **more: Any) -> Access:
    """A kubeconfig whose user is a program."""
    file = folder / "sign-in"
    file.write_text(f"#!{sys.executable}\nimport json, os, sys\n{code}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    said = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(file), "args": ["--quiet"]}
    return found(folder, config({"exec": said | more}))


PRINTS = """
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert asked["apiVersion"] == "client.authentication.k8s.io/v1beta1" and sys.argv[1:] == ["--quiet"]
count = len(open("{count}", "a+").write("x") and open("{count}").read())
print(json.dumps({{"status": {{"token": os.environ["PREFIX"] + str(count), {expires}}}}}))
"""


def test_a_program_prints_the_token_which_is_kept_until_it_expires(tmp_path: Path) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    code = PRINTS.format(count=tmp_path / "count", expires=f'"expirationTimestamp": "{later}"')
    one = program(tmp_path, code, env=[{"name": "PREFIX", "value": "t"}])
    assert [headers(one)["Authorization"] for _ in range(2)] == ["Bearer t1", "Bearer t1"]


def test_a_token_that_is_about_to_expire_is_asked_for_again(tmp_path: Path) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    code = PRINTS.format(count=tmp_path / "count", expires=f'"expirationTimestamp": "{soon}"')
    one = program(tmp_path, code, env=[{"name": "PREFIX", "value": "t"}])
    assert [headers(one)["Authorization"] for _ in range(2)] == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("sys.exit('your session is over')", "your session is over"),
        ("print('hello')", "gave no token"),
        ("print(json.dumps({'status': None}))", "gave no token"),
        ("print(json.dumps({'status': {'token': ''}}))", "gave no token"),
        ("print(json.dumps({'status': {'token': 't', 'expirationTimestamp': 'tomorrow'}}))", "gave no token"),
    ],
)
def test_a_program_that_fails_says_what_it_said_and_what_to_type(tmp_path: Path, code: str, told: str) -> None:
    with pytest.raises(Unavailable, match=told) as caught:
        headers(program(tmp_path, code))
    assert "kubectl get namespaces" in str(caught.value)


def test_a_program_that_is_not_installed_says_how_to(tmp_path: Path) -> None:
    one = program(tmp_path, "", command="gke-plugin-of-nobody", installHint="Install it: apt install it")
    with pytest.raises(Unavailable, match=r"gke-plugin-of-nobody of the kubeconfig is not installed\. Install it: apt install it"):
        headers(one)


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuqueue.cluster.credentials._PROGRAM_SECONDS", 0.5)
    with pytest.raises(Unavailable, match="TimeoutError"):
        headers(program(tmp_path, "import time; open('" + str(tmp_path / "pid") + "', 'w').write(str(os.getpid())); time.sleep(600)"))
    pid = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
    state = Path(f"/proc/{pid}/stat").read_text().split()[2] if pid and Path(f"/proc/{pid}/stat").exists() else "gone"
    assert state in ("Z", "gone", "X")


def test_json_is_yaml_too(tmp_path: Path) -> None:
    assert found(tmp_path, json.dumps(config({"token": "t"}))).token == "t"
