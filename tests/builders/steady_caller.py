"""Asks a served model without a pause until /tmp/stop is there, then prints what it saw: run inside a cluster, by the interpreter of our image.

Nothing here forgives: each REST request has a connection of its own, the gRPC channel does not retry. Answers are checked, too.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from mlserving import wire

STOP = Path("/tmp/stop")
PAUSE = 0.01
MOST_TOLD = 20


class Caller:
    """One kind of caller."""

    def __init__(self, protocol: str, host: str, model: str) -> None:
        self.protocol, self.host, self.model = protocol, host, model
        self.answers: dict[str, list[float]] = {}
        """By version: how many, and when the first and the last came."""
        self.failures: list[str] = []
        self.failed = 0

    def run(self) -> None:
        """Ask until it is time to stop."""
        ask = self.rest if self.protocol == "rest" else self._grpc()
        number = 0
        while not STOP.exists():
            number += 1
            try:
                version, doubled = ask(float(number % 1000))
            except Exception as error:  # noqa: BLE001  whatever it is, it is what a caller gets
                self.failed += 1
                self.failures = [*self.failures, f"{time.time():.2f} {type(error).__name__}: {error}"[:400]][-MOST_TOLD:]
            else:
                if doubled != 2.0 * (number % 1000):
                    self.failed += 1
                    self.failures.append(f"wrong answer: {doubled} to {number % 1000}")
                seen = self.answers.setdefault(str(version), [0, time.time(), 0])
                seen[0] += 1
                seen[2] = time.time()
            time.sleep(PAUSE)

    def rest(self, amount: float) -> tuple[int, float]:
        """One REST request."""
        connection = http.client.HTTPConnection(self.host, 8501, timeout=10)
        try:
            body = json.dumps({"instances": [{"amount": amount}]})
            connection.request("POST", f"/v1/models/{self.model}:predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise OSError(f"{answer.status} {text.decode(errors='replace')}")
            row = json.loads(text)["predictions"][0]
            if str(row["version"]) != answer.headers["x-model-version"]:
                raise OSError(f"version {row['version']} answered, and the header says {answer.headers['x-model-version']}")
            return int(row["version"]), float(row["doubled"])
        finally:
            connection.close()

    def _grpc(self) -> Any:
        channel = grpc.insecure_channel(f"{self.host}:8500", options=[("grpc.enable_retries", 0)])
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=wire.PredictRequest.SerializeToString,
            response_deserializer=wire.PredictResponse.FromString,
        )

        def ask(amount: float) -> tuple[int, float]:
            request = wire.PredictRequest(model_spec=wire.ModelSpec(name=self.model, signature_name="serving_default"))
            request.inputs["amount"].dtype = 1
            request.inputs["amount"].tensor_shape.dim.add(size=1)
            request.inputs["amount"].float_val.append(amount)
            answer = predict(request, timeout=10)
            doubled = answer.outputs["doubled"]
            value = struct.unpack("<f", doubled.tensor_content)[0] if doubled.tensor_content else doubled.float_val[0]
            return int(answer.model_spec.version.value), float(value)

        return ask


def address(name: str) -> str:
    """A Service's address, once: whether cluster DNS answers in time on a busy node is not what is tried here."""
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError:
            time.sleep(0.2)


def main() -> int:
    """Two callers of each kind; the report is the last line."""
    name, model = sys.argv[1:]
    host = address(name)
    callers = [Caller(protocol, host, model) for protocol in ("rest", "grpc", "rest", "grpc")]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    for thread in threads:
        thread.start()
    while not all(caller.answers or caller.failed for caller in callers):
        time.sleep(0.05)
    print("asking", flush=True)
    for thread in threads:
        thread.join()
    print(
        json.dumps([{"protocol": c.protocol, "answers": c.answers, "failed": c.failed, "failures": c.failures} for c in callers]),
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
