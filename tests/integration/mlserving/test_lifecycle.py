"""Versions come, go and break while requests keep coming, and nobody gets an error for it."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from mlserving import store
from mlserving.client.ask import Client, PredictRequest, connect
from mlserving.client.signature import ModelSpec, Tensor
from mlserving.errors import NotServed, ServingError
from waiting import eventually

pytestmark = pytest.mark.slow

INPUTS = {"merchant": Tensor.of("DT_STRING", ["tools"]), "amount": Tensor.of("DT_FLOAT", [1.0])}


def version_request(model: str) -> PredictRequest:
    return PredictRequest(model=ModelSpec(name=model), inputs=INPUTS, outputs=["version"])


class Callers:
    """Threads that ask without a pause, two over gRPC and two over REST, and count which versions answered."""

    def __init__(self, server: Any, model: str) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._request = version_request(model)
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
                    self.answers[client.predict(self._request).outputs["version"].values[0]] += 1
                except ServingError as error:
                    self.failures.append(str(error))


@dataclass(frozen=True)
class Model:
    """One test's own model in the store that the shared server watches."""

    name: str
    store: Path
    saved: Path
    client: Client

    def publish(self, version: int, source: Path | None = None) -> None:
        store.publish_version(self.store, self.name, version, source or self.saved / "demo" / str(version))

    def states(self) -> dict[int, str]:
        try:
            return {status.version: status.state for status in self.client.status(ModelSpec(name=self.name))}
        except NotServed:
            return {}

    def error(self, version: int) -> str:
        return self.client.status(ModelSpec(name=self.name, version=version))[0].error

    def answers(self) -> int:
        """The version that answers now."""
        return int(self.client.predict(version_request(self.name)).outputs["version"].values[0])


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, saved: Path) -> Path:
    folder = tmp_path_factory.mktemp("lifecycle") / "models"
    store.publish_version(folder, "demo", 1, saved / "demo" / "1")
    return folder


@pytest.fixture(scope="module")
def watching(watched: Path, start_server: Any) -> Iterator[Any]:
    with start_server(watched.parent, "--store", watched) as server:
        yield server


@pytest.fixture
def model(request: pytest.FixtureRequest, watching: Any, watched: Path, saved: Path) -> Iterator[Model]:
    """A model of which version 1 is served."""
    with connect(watching.grpc, grpc=True) as client:
        own = Model(request.node.name, watched, saved, client)
        own.publish(1)
        eventually("version 1 is served", lambda: own.states() == {1: "AVAILABLE"}, 30)
        yield own


def test_new_versions_take_over_without_a_failed_request(watching: Any, model: Model) -> None:
    with Callers(watching, model.name) as callers:
        eventually("version 1 answers", lambda: callers.answers[1] > 50, 30)
        model.publish(2)
        eventually("version 2 answers", lambda: callers.answers[2] > 50, 30)
        model.publish(3)
        eventually("version 3 answers", lambda: callers.answers[3] > 50, 30)
        eventually("only version 3 is served", lambda: model.states() == {1: "END", 2: "END", 3: "AVAILABLE"}, 30)
    assert callers.failures == []
    assert model.answers() == 3


def test_a_version_that_does_not_load_is_reported_and_the_old_one_stays(model: Model) -> None:
    broken = model.store / model.name / "2"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"this is no protocol buffer")
    eventually("version 2 is given up", lambda: model.states().get(2) == "END", 30)
    assert "/2 is no SavedModel" in model.error(2)
    assert model.answers() == 1


def test_a_version_that_cannot_answer_its_warm_up_requests_is_not_served_until_it_is_repaired(model: Model, unanswerable: Path) -> None:
    model.publish(2, unanswerable)
    eventually("version 2 is given up", lambda: model.states().get(2) == "END", 30)
    assert "missing: amount; unknown: amnt" in model.error(2)
    assert model.answers() == 1
    (model.store / model.name / "2" / "assets.extra" / "tf_serving_warmup_requests").unlink()
    eventually("version 2 is served", lambda: model.states()[2] == "AVAILABLE", 30)


def test_a_model_that_is_deleted_is_no_longer_served(model: Model) -> None:
    shutil.rmtree(model.store / model.name)
    eventually("version 1 is gone", lambda: model.states()[1] == "END", 30)
    with pytest.raises(NotServed, match=r"Models served here: .*demo"):
        model.answers()


def test_removing_the_newest_version_goes_back_to_the_one_before(watching: Any, model: Model) -> None:
    model.publish(2)
    eventually("version 2 answers", lambda: model.answers() == 2, 30)
    with Callers(watching, model.name) as callers:
        assert store.prune(model.store, model.name, keep=2, protect=set()) == []
        shutil.rmtree(model.store / model.name / "2")
        eventually("version 1 answers", lambda: callers.answers[1] > 10, 30)
    assert callers.failures == []


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory, saved: Path, start_server: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("configured")
    for version in (1, 2):
        store.publish_version(folder / "models", "demo", version, saved / "demo" / str(version))
    config = folder / "models.config"
    config.write_text(config_text(folder, "all {}"))
    with start_server(folder, "--model-config", config) as server:
        yield server


def config_text(folder: Path, policy: str, **labels: int) -> str:
    lines = "".join(f" version_labels {{ key: '{label}' value: {version} }}" for label, version in labels.items())
    return f"model_config_list {{ config {{ name: 'demo' base_path: '{folder}/models/demo' model_version_policy {{ {policy} }}{lines} }} }}"


def label_answers(server: Any, label: str) -> int | None:
    request = PredictRequest(model=ModelSpec(name="demo", label=label), inputs=INPUTS, outputs=["version"])
    with connect(server.rest, grpc=False) as client:
        try:
            return int(client.predict(request).outputs["version"].values[0])
        except ServingError:
            return None


def test_a_changed_configuration_is_followed_and_a_broken_one_is_not(configured: Any) -> None:
    folder = configured.output.parent
    config = folder / "models.config"
    config.write_text(config_text(folder, "specific { versions: 1 }", stable=1))
    eventually(
        "only the stable label answers", lambda: (label_answers(configured, "stable"), label_answers(configured, "canary")) == (1, None), 30
    )
    with Callers(configured, "demo") as callers:
        config.write_text(config_text(folder, "all {}", stable=1, canary=2))
        eventually("the canary label answers", lambda: label_answers(configured, "canary") == 2, 30)
        config.write_text("model_config_list { nonsense }")
        eventually("it says what is wrong with the file", lambda: "is no model_config_list" in configured.output.read_text(), 30)
        config.write_text(config_text(folder, "latest {}", stable=2))
        eventually("the stable label is moved", lambda: label_answers(configured, "stable") == 2, 30)
    assert callers.failures == []


def test_a_configuration_can_come_over_grpc(configured: Any) -> None:
    folder = configured.output.parent
    request = model_management_pb2.ReloadConfigRequest()
    for name in ("demo", "copy"):
        request.config.model_config_list.config.add(name=name, base_path=f"{folder}/models/demo", model_platform="tensorflow")
    with grpc.insecure_channel(configured.grpc) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        stub.HandleReloadConfigRequest(request, timeout=60)
        with connect(configured.grpc, grpc=True) as client:
            assert client.status(ModelSpec(name="copy"))[0].state == "AVAILABLE"
        request.config.model_config_list.config.add(name="demo", base_path="elsewhere")
        with pytest.raises(grpc.RpcError) as caught:
            stub.HandleReloadConfigRequest(request, timeout=60)
    assert "more than one config named demo" in caught.value.details()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_requests_under_way_are_finished_on_a_signal(
    tmp_path: Path, saved: Path, start_server: Any, number: signal.Signals, code: int
) -> None:
    store.publish_version(tmp_path / "models", "spin", 1, saved / "spin" / "1")
    with start_server(tmp_path, "spin", "--store", tmp_path / "models") as server:
        turns = turns_for(3, server)
        answers: dict[str, int] = {}
        threads = [threading.Thread(target=lambda p=p: answers.update({p: spin(server, p, turns)})) for p in ("grpc", "rest")]
        for thread in threads:
            thread.start()
        time.sleep(0.7)  # long enough to be sent, far shorter than the answer takes
        server.process.send_signal(number)
        assert server.process.wait(timeout=60) == code
        for thread in threads:
            thread.join()
        assert answers == {"grpc": turns, "rest": turns}
        assert not (tmp_path / "ready.json").exists()
        assert "Traceback" not in server.output.read_text()


def turns_for(seconds: float, server: Any) -> int:
    """How many turns keep this machine busy for about that long."""
    turns = 2_000
    started = time.monotonic()
    spin(server, "rest", turns)
    return int(turns * max(1.0, seconds / (time.monotonic() - started)))


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
