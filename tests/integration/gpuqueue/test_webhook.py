"""The webhook beside a real API server: down, doubled, with certificates that change, and with somebody else's."""

from __future__ import annotations

import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpu_objects as make
from api_client import Client, Refused
from certificates import Authority
from control_plane import ControlPlane
from waiting import eventually
from webhooks import CONFIGURATION, SECRET, Webhook

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def plane(plane_that_asks: ControlPlane) -> ControlPlane:
    for namespace, managed in (("managed", True), ("unmanaged", False)):
        plane_that_asks.client.apply(make.namespace(namespace, managed=managed))
    return plane_that_asks


@pytest.fixture
def webhook(plane: ControlPlane, tmp_path: Path) -> Iterator[Webhook]:
    """No replica yet, and no certificate of tests before."""
    plane.client.request("PATCH", SECRET, {"data": None})
    trust(plane.client, "")
    with Webhook(plane, tmp_path) as running:
        yield running


@pytest.fixture
def api(plane: ControlPlane) -> Client:
    return plane.client


def trust(api: Client, bundle: str) -> None:
    api.request(
        "PATCH", CONFIGURATION, {"webhooks": [{"name": "gate.gpu-queue.dev", "clientConfig": {"caBundle": bundle}}]}, patch="strategic"
    )


def create(api: Client, *, gpus: int, namespace: str = "managed") -> bool:
    """Whether such a pod comes into being (by dry run), behind the gate."""
    pod = api.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", make.pod(gpus=gpus))
    return "schedulingGates" in pod["spec"]


def is_gated(api: Client) -> bool:
    try:
        return create(api, gpus=1)
    except Refused:
        return False


def test_while_nobody_answers_gpu_pods_are_refused_and_all_others_are_created(webhook: Webhook, api: Client) -> None:
    replica = webhook.start()
    webhook.ask(replica)
    eventually("the gate", lambda: is_gated(api), 30)
    replica.kill()
    with pytest.raises(Refused, match=r"failed calling webhook \"gate\.gpu-queue\.dev\""):
        create(api, gpus=1)
    assert create(api, gpus=0) is False
    assert create(api, gpus=1, namespace="unmanaged") is False


def test_any_replica_answers_and_none_needs_a_leader(webhook: Webhook, api: Client) -> None:
    both = [webhook.start(), webhook.start()]
    eventually("both are ready", lambda: [replica.readiness() for replica in both] == ["ok", "ok"], 30)
    bundle = webhook.bundle()
    for replica in both:
        webhook.ask(replica)
        eventually("the gate", lambda: is_gated(api), 5)
    assert webhook.bundle() == bundle
    both[0].kill()
    assert is_gated(api)


def test_whom_the_api_server_stops_trusting_mends_it(webhook: Webhook, api: Client, tmp_path: Path) -> None:
    replica = webhook.start()
    webhook.ask(replica)
    eventually("the gate", lambda: is_gated(api), 30)
    before = webhook.bundle()
    trust(api, make.inline(Authority(tmp_path / "another").certificate))
    eventually("it is as it was", lambda: webhook.bundle() == before, 15)
    eventually("the gate", lambda: is_gated(api), 5)


@pytest.mark.slow
def test_certificates_change_and_no_request_fails(webhook: Webhook, api: Client) -> None:
    lives = ("--host", "127.0.0.1", "--authority-life", "24s", "--life", "8s", "--renew-before", "4s")
    replicas = [webhook.start(*lives), webhook.start(*lives)]
    eventually("both are ready", lambda: [replica.readiness() for replica in replicas] == ["ok", "ok"], 30)
    webhook.ask(replicas[0])
    eventually("the gate", lambda: is_gated(api), 30)
    bundles, shown, failures, asked = {webhook.bundle()}, set(), list[str](), 0
    deadline = time.monotonic() + 60
    while (len(bundles) < 4 or len(shown) < 10) and time.monotonic() < deadline:
        try:
            assert create(api, gpus=1)
        except Refused as error:
            failures.append(str(error))
        asked += 1
        bundles.add(webhook.bundle())
        shown |= {ssl.get_server_certificate(("127.0.0.1", replica.port)) for replica in replicas}
        time.sleep(0.02)
    assert not failures, f"{len(failures)} of {asked}: {failures[0]}\n{webhook.logs()}"
    assert len(bundles) >= 4, "authorities did not change"
    assert len(shown) >= 10, "certificates did not change"
    assert len({replica.process.poll() for replica in replicas}) == 1


def test_an_end_that_is_announced_fails_nobody(webhook: Webhook, api: Client) -> None:
    old, new = webhook.start(), webhook.start()
    webhook.ask(old)
    eventually("the gate", lambda: is_gated(api), 30)
    eventually("the other is ready", lambda: new.readiness() == "ok", 30)
    ending = threading.Thread(target=old.end)
    ending.start()
    eventually("it says so", lambda: old.readiness() == "is about to end", 2)
    assert create(api, gpus=1), "it went before anybody could know"
    webhook.ask(new)
    ending.join()
    eventually("the other is asked", lambda: is_gated(api), 2)
    assert old.process.returncode == 0


def test_a_certificate_that_somebody_else_renews_is_taken_up_without_a_restart(webhook: Webhook, api: Client, tmp_path: Path) -> None:
    theirs, folder = Authority(tmp_path / "cert-manager"), tmp_path / "mounted"
    folder.mkdir()
    replica = webhook.start("--certificates", str(folder))
    eventually("it says what is missing", lambda: "no certificate yet" in replica.readiness(), 30)
    put(theirs, folder, "first")
    eventually("it waits to be trusted", lambda: "does not trust" in replica.readiness(), 30)
    trust(api, make.inline(theirs.certificate))
    webhook.ask(replica)
    eventually("the gate", lambda: is_gated(api), 30)
    first = ssl.get_server_certificate(("127.0.0.1", replica.port))
    put(theirs, folder, "second")
    eventually("the new one is shown", lambda: ssl.get_server_certificate(("127.0.0.1", replica.port)) != first, 15)
    assert create(api, gpus=1)
    assert replica.readiness() == "ok"


def put(authority: Authority, folder: Path, name: str) -> None:
    """What cert-manager does to a Secret, and the kubelet to a folder."""
    files = (*authority.issue(name, user="gpu-queue-webhook", hosts=("gpu-queue-webhook.gpu-queue.svc",)), authority.certificate)
    for file, known in zip(files, ("tls.crt", "tls.key", "ca.crt"), strict=True):
        shutil.copy(file, folder / known)
