"""Versions come, go and break while requests keep coming, and nobody gets an error for it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from mlserving import store
from mlserving.client import Client, PredictRequest, connect
from mlserving.errors import NotServed, ServingError
from mlserving.signature import ModelSpec, Tensor

pytestmark = pytest.mark.slow

DEMO = ModelSpec(name="demo")
REQUEST = PredictRequest(
    model=DEMO, inputs={"merchant": Tensor.of("DT_STRING", ["tools"]), "amount": Tensor.of("DT_FLOAT", [1.0])}, outputs=["version"]
)


class Callers:
    """Threads that ask without a pause, two over gRPC and two over REST, and count which versions answered."""

    def __init__(self, server: Any) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(getattr(server, protocol), protocol)) for protocol in ("grpc", "grpc", "rest", "rest")
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str, protocol: str) -> None:
        with connect(address, grpc=protocol == "grpc") as client:
            while not self._stop.is_set():
                try:
                    self.answers[client.predict(REQUEST).outputs["version"].values[0]] += 1
                except ServingError as error:
                    self.failures.append(str(error))


def eventually(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def states(client: Client) -> dict[int, str]:
    return {status.version: status.state for status in client.status(DEMO)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, saved: Path) -> Path:
    folder = tmp_path_factory.mktemp("lifecycle") / "models"
    store.publish_version(folder, "demo", 1, saved / "demo" / "1")
    return folder


@pytest.fixture(scope="module")
def watching(models: Path, start_server: Any) -> Iterator[Any]:
    with start_server(models.parent, "--store", models) as server:
        yield server


@pytest.fixture
def client(watching: Any) -> Iterator[Client]:
    with connect(watching.grpc, grpc=True) as opened:
        yield opened


def test_new_versions_take_over_without_a_failed_request(watching: Any, client: Client, models: Path, saved: Path) -> None:
    with Callers(watching) as callers:
        eventually(lambda: callers.answers[1] > 50)
        for version in (2, 3):
            store.publish_version(models, "demo", version, saved / "demo" / str(version))
            eventually(lambda version=version: callers.answers[version] > 50)  # type: ignore[misc]
        eventually(lambda: states(client) == {1: "END", 2: "END", 3: "AVAILABLE"})
    assert callers.failures == []
    assert client.predict(REQUEST).outputs["version"].values == (3,)


def test_a_version_that_does_not_load_is_reported_and_the_old_one_stays(client: Client, models: Path) -> None:
    (models / "demo" / "4").mkdir()
    (models / "demo" / "4" / "saved_model.pb").write_bytes(b"this is no protocol buffer")
    eventually(lambda: states(client).get(4) == "END")
    newest = client.status(DEMO)[0]
    assert "demo/4 is no SavedModel" in newest.error
    assert client.predict(REQUEST).outputs["version"].values == (3,)


def test_a_version_that_cannot_answer_its_warm_up_requests_never_becomes_available(
    client: Client, models: Path, unanswerable: Path
) -> None:
    store.publish_version(models, "demo", 5, unanswerable)
    eventually(lambda: states(client).get(5) == "END")
    assert "missing: amount; unknown: amnt" in client.status(DEMO)[0].error
    assert client.predict(REQUEST).outputs["version"].values == (3,)


def test_a_broken_version_that_is_repaired_is_loaded(client: Client, models: Path, saved: Path) -> None:
    shutil.copytree(saved / "demo" / "2", models / "demo" / "5", dirs_exist_ok=True)
    (models / "demo" / "5" / "assets.extra" / "tf_serving_warmup_requests").unlink()
    eventually(lambda: states(client)[5] == "AVAILABLE")


def test_a_new_model_is_served_and_a_deleted_one_is_not(client: Client, models: Path, saved: Path) -> None:
    store.publish_version(models, "second", 1, saved / "demo" / "1")
    second = ModelSpec(name="second")

    def served() -> bool:
        try:
            return bool(client.signatures(second))
        except NotServed:
            return False

    eventually(served)
    shutil.rmtree(models / "second")
    eventually(lambda: not served())


def test_removing_the_newest_version_goes_back_to_the_one_before(client: Client, models: Path) -> None:
    shutil.rmtree(models / "demo" / "5")
    eventually(lambda: client.predict(REQUEST).outputs["version"].values == (3,))


def test_ctrl_c_stops_the_server_with_its_exit_code(watching: Any) -> None:
    import signal

    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(timeout=30) == 130
    assert "Traceback" not in watching.output.read_text()


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory, saved: Path, start_server: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("configured")
    for model, version in (("demo", 1), ("demo", 2), ("spin", 1)):
        store.publish_version(folder / "models", model, version, saved / model / str(version))
    config = folder / "models.config"
    config.write_text(config_text(folder, "specific { versions: 1 }", stable=1))
    with start_server(folder, "--model-config", config) as server:
        yield server


def config_text(folder: Path, policy: str, **labels: int) -> str:
    lines = "".join(f" version_labels {{ key: '{label}' value: {version} }}" for label, version in labels.items())
    return (
        f"model_config_list {{ config {{ name: 'demo' base_path: '{folder}/models/demo' model_version_policy {{ {policy} }}{lines} }}"
        f" config {{ name: 'spin' base_path: '{folder}/models/spin' }} }}"
    )


def label_answers(server: Any, label: str) -> int | None:
    request = PredictRequest(model=ModelSpec(name="demo", label=label), inputs=REQUEST.inputs, outputs=["version"])
    with connect(server.rest, grpc=False) as client:
        try:
            return int(client.predict(request).outputs["version"].values[0])
        except ServingError:
            return None


def test_a_changed_configuration_is_followed_and_a_broken_one_is_not(configured: Any) -> None:
    folder = configured.output.parent
    assert (label_answers(configured, "stable"), label_answers(configured, "canary")) == (1, None)
    with Callers(configured) as callers:
        (folder / "models.config").write_text(config_text(folder, "all {}", stable=1, canary=2))
        eventually(lambda: label_answers(configured, "canary") == 2)
        (folder / "models.config").write_text("model_config_list { nonsense }")
        eventually(lambda: "is no model_config_list" in configured.output.read_text())
        (folder / "models.config").write_text(config_text(folder, "latest {}", stable=2))
        eventually(lambda: label_answers(configured, "stable") == 2)
    assert callers.failures == []


def test_a_configuration_can_come_over_grpc(configured: Any) -> None:
    folder = configured.output.parent
    request = model_management_pb2.ReloadConfigRequest()
    for name in ("demo", "spin", "copy"):
        base = "demo" if name == "copy" else name
        request.config.model_config_list.config.add(name=name, base_path=f"{folder}/models/{base}", model_platform="tensorflow")
    with grpc.insecure_channel(configured.grpc) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        stub.HandleReloadConfigRequest(request, timeout=60)
        with connect(configured.grpc, grpc=True) as client:
            assert client.status(ModelSpec(name="copy"))[0].state == "AVAILABLE"
        request.config.model_config_list.config.add(name="demo", base_path="elsewhere")
        with pytest.raises(grpc.RpcError) as caught:
            stub.HandleReloadConfigRequest(request, timeout=60)
    assert "more than one config named demo" in caught.value.details()


def test_requests_under_way_are_finished_on_sigterm(configured: Any) -> None:
    turns = 2_000
    started = time.monotonic()
    spin(configured, "rest", turns)
    turns = int(turns * max(1.0, 3 / (time.monotonic() - started)))  # about three seconds on this machine
    answers: dict[str, int] = {}
    threads = [threading.Thread(target=lambda p=p: answers.update({p: spin(configured, p, turns)})) for p in ("grpc", "rest")]
    for thread in threads:
        thread.start()
    time.sleep(0.7)  # long enough to be sent, far shorter than the answer takes
    assert configured.stop() == 0
    for thread in threads:
        thread.join()
    assert answers == {"grpc": turns, "rest": turns}
    assert not (configured.output.parent / "ready.json").exists()


def spin(server: Any, protocol: str, turns: int) -> int:
    request = PredictRequest(model=ModelSpec(name="spin"), inputs={"turns": Tensor.of("DT_INT32", [turns])})
    with connect(getattr(server, protocol), grpc=protocol == "grpc", timeout=120) as client:
        return int(client.predict(request).outputs["done"].values[0])


def test_the_ready_file_names_both_ports_and_the_log_shows_requests_to_type(server: Any) -> None:
    text = server.output.read_text()
    assert server.grpc in text
    assert (
        f"curl -d '{json.dumps({'instances': [{'amount': 1.5, 'merchant': 'text'}]})}' http://{server.rest}/v1/models/demo:predict" in text
    )
    assert f"millrace predict demo --address {server.rest} amount=1.5 merchant=text" in text
