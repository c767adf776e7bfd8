"""The gateway before real model servers (`millrace serve`, TensorFlow), from the request to the row of the prediction log."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gateways import Server, call, channel, config, gateway
from mlserving import store, wire
from mlserving.client.ask import PredictRequest
from mlserving.client.grpc_client import GrpcClient
from mlserving.client.signature import ModelSpec, Tensor
from mlserving.predictions import reading
from waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(saved: Path, start_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """`demo` 1, served; more may be published to the store."""
    folder = tmp_path_factory.mktemp("tensorflow")
    store.publish_version(folder / "models", "demo", 1, saved / "demo" / "1")
    with start_server(folder, "--store", folder / "models") as running:
        yield running, folder / "models"


def test_our_client_asks_through_the_gateway_and_a_new_version_takes_over_without_a_failed_or_wrong_answer(
    models: tuple[Any, Path], saved: Path, tmp_path: Path
) -> None:
    server, published = models
    settings = config("demo", stable=((server.grpc, server.rest), 100), more="    log: {share: 1, features: [merchant, amount]}\n")
    folders = ["--spool", str(tmp_path / "spool"), "--predictions", str(tmp_path / "predictions")]
    with gateway(tmp_path / "g", settings, *folders) as front:
        with asking(front) as asked:
            asked.more(40)
            store.publish_version(published, "demo", 2, saved / "demo" / "2")
            eventually("version 2 is up", lambda: front.metric("millrace_gateway_endpoint_up", version="2") == 1, 60)
            asked.more(40)
        assert asked.failures == []
        assert {version for _, version in asked.answers} == {1, 2}
        total = sum(asked.answers.values())
        connection = HTTPConnection(front.rest, timeout=30)
        assert call(connection, "GET", "/v1/models/demo/metadata")[0] == 200
        assert (
            call(connection, "POST", "/v1/labels", {"model": "demo", "labels": [{"prediction_id": "g-0-0", "label": "travel"}]})[0] == 200
        )
        connection.close()
        eventually("all answers are spooled", lambda: front.metric("millrace_gateway_spooled_total") == total, 20)
        assert front.stop(60) == 0
    rows = [row for batch in reading.log(tmp_path / "predictions", "demo").batches() for row in batch.to_pylist()]
    assert len(rows) == total
    for row in rows:
        assert row["feature/merchant"] == row["prediction_id"]
        assert row["output/version"] == row["version"]  # the model's own word against ours
    joined = [row for batch in reading.joined(tmp_path / "predictions", "demo") for row in batch.to_pylist()]
    assert [row["prediction_id"] for row in joined] == ["g-0-0"]


class Asking:
    """Callers of both protocols, whose request carries their prediction's id."""

    def __init__(self, front: Server) -> None:
        self.failures: list[str] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=target, args=(front, n)) for n in range(2) for target in (self._grpc, self._rest)]

    def more(self, count: int) -> None:
        before = sum(self.answers.values())
        eventually(f"{count} more answers, after {self.failures[-3:]}", lambda: sum(self.answers.values()) >= before + count, 60)

    def _grpc(self, front: Server, number: int) -> None:
        with channel(front.grpc) as opened:
            predict = opened.unary_unary("/tensorflow.serving.PredictionService/Predict")
            for n in range(100_000):
                if self.ending.is_set():
                    return
                identity = f"g-{number}-{n}"
                message = wire.PredictRequest()
                message.model_spec.name = "demo"
                message.inputs["merchant"].MergeFrom(_tensor("DT_STRING", [identity]))
                message.inputs["amount"].MergeFrom(_tensor("DT_FLOAT", [float(n)]))
                try:
                    body, told = predict.with_call(message.SerializeToString(), timeout=30, metadata=(("x-prediction-id", identity),))
                except Exception as error:  # noqa: BLE001  shown by the test
                    self.failures.append(repr(error))
                    continue
                answer, headers = wire.PredictResponse.FromString(body), dict(told.initial_metadata())
                version = (
                    answer.outputs["version"].int64_val[0]
                    if answer.outputs["version"].int64_val
                    else int.from_bytes(answer.outputs["version"].tensor_content, "little")
                )
                if (headers["x-model-version"], headers["x-prediction-id"]) != (str(version), identity):
                    self.failures.append(f"{identity}: {headers} but {version}")
                self.answers["grpc", version] += 1

    def _rest(self, front: Server, number: int) -> None:
        connection = HTTPConnection(front.rest, timeout=30)
        for n in range(100_000):
            if self.ending.is_set():
                break
            identity = f"r-{number}-{n}"
            status, headers, answer = call(
                connection,
                "POST",
                "/v1/models/demo:predict",
                {"instances": [{"merchant": identity, "amount": n}]},
                x_prediction_id=identity,
            )
            if (
                status != 200
                or headers["x-model-version"] != str(answer["predictions"][0]["version"])
                or headers["x-prediction-id"] != identity
            ):
                self.failures.append(f"{identity}: {status} {headers} {answer}")
            self.answers["rest", int(headers.get("x-model-version", 0))] += 1
        connection.close()


def _tensor(kind: str, values: list[Any]) -> Any:
    from mlserving.client.grpc_client import tensor_to_wire

    return tensor_to_wire(Tensor.of(kind, values))


@contextlib.contextmanager
def asking(front: Server) -> Iterator[Asking]:
    found = Asking(front)
    for thread in found.threads:
        thread.start()
    try:
        yield found
    finally:
        found.ending.set()
        for thread in found.threads:
            thread.join()


def test_our_own_client_finds_signatures_status_and_predictions_behind_the_gateway(models: tuple[Any, Path], tmp_path: Path) -> None:
    server, _ = models
    with gateway(tmp_path, config("demo", stable=((server.grpc, server.rest), 100))) as front, GrpcClient(front.grpc) as client:
        assert set(client.signatures(ModelSpec(name="demo"))) == {"serving_default", "classify", "regress"}
        assert [state.state for state in client.status(ModelSpec(name="demo"))].count("AVAILABLE") >= 1
        inputs = {"merchant": Tensor.of("DT_STRING", ["a travel agent"]), "amount": Tensor.of("DT_FLOAT", [1.0])}
        answer = client.predict(PredictRequest(model=ModelSpec(name="demo"), inputs=inputs))
        assert answer.outputs["label"].values == (b"other",)
