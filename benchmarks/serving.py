"""How many requests a second the local model server answers, and how long one takes.

A small model (text and number in, label and 60 scores out) over loopback, the callers in a process of their own on the same
cores. Beside `millrace serve` runs the obvious alternative, measured the same way: a gRPC server that calls the concrete
function of `tf.saved_model.load`, which is what one would write first.

    python benchmarks/serving.py [--seconds 6] [--output benchmarks/results/serving.json]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc

from mlserving import wire
from mlserving.client.grpc_client import tensor_to_wire
from mlserving.client.signature import Tensor
from mlserving.server.ready_file import write_ready_file

ROOT = Path(__file__).resolve().parent.parent
CALLERS = (1, 8)
ROUNDS = 4
WARM_UP_SECONDS = 0.5
START_SECONDS = 180
ROW = {"merchant": "ACME TOOLS 0042", "amount": 12.5}

Ask = Callable[[], None]


def main() -> int:
    """Measure, print, write. `--model` and `--plain` are how it starts its own other processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement, in several turns")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "serving.json")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.model:
        return save_model(arguments.model)
    if arguments.plain:
        return serve_plainly(arguments.plain)
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        rows = measure_all(Path(folder), arguments.seconds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    arguments.output.write_text(json.dumps({"machine": machine, "seconds": arguments.seconds, "runs": rows}, indent=2) + "\n")
    print_rows(rows)
    print(f"Written to {arguments.output}")
    return 0


def measure_all(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Each server with each protocol it speaks and each number of callers, in turns, so that a busy machine is unfair to none."""
    itself = [sys.executable, str(Path(__file__).resolve())]
    subprocess.run([*itself, "--model", str(folder)], check=True, stderr=subprocess.DEVNULL)
    options = ["--implementation", "python", "--grpc-port", "0", "--rest-port", "0", "--store", str(folder / "models")]
    ours = [sys.executable, "-m", "mlserving", "serve", *options, "--ready-file", str(folder / "ours.json")]
    with started(ours, folder / "ours.json") as first, started([*itself, "--plain", str(folder)], folder / "plain.json") as second:
        servers = {"millrace serve": first, "concrete function": second}
        cases = [case for case in itertools.product(servers, ("grpc", "rest"), CALLERS) if servers[case[0]][case[1]]]
        latencies: dict[tuple[str, str, int], list[float]] = {case: [] for case in cases}
        for case in cases * ROUNDS:
            server, protocol, callers = case
            latencies[case] += measure(protocol, servers[server][protocol], callers, seconds / ROUNDS)
        return [
            {"server": server, "protocol": protocol, "callers": callers, **summary(latencies[server, protocol, callers], seconds)}
            | {"resident_mb": resident_mb(servers[server]["pid"])}
            for server, protocol, callers in cases
        ]


def measure(protocol: str, address: str, callers: int, seconds: float) -> list[float]:
    """Let `callers` threads ask without a pause for `seconds`, after a short warm-up. How long each answer took, in seconds."""
    latencies: list[float] = []
    until = time.perf_counter() + WARM_UP_SECONDS + seconds

    def call() -> None:
        ask, mine = (grpc_caller if protocol == "grpc" else rest_caller)(address), []
        while (before := time.perf_counter()) < until:
            ask()
            if before > until - seconds:
                mine.append(time.perf_counter() - before)
        latencies.extend(mine)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def summary(latencies: list[float], seconds: float) -> dict[str, float]:
    """Throughput and percentiles of what was measured during `seconds`."""
    ordered = sorted(latencies)
    return {
        "requests_per_second": round(len(ordered) / seconds, 1),
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 3),
    }


def grpc_caller(address: str) -> Ask:
    """Sends the same bytes and looks at none of the answer: the server is what is measured."""
    message = wire.PredictRequest()
    message.model_spec.name = "small"
    message.inputs["merchant"].CopyFrom(tensor_to_wire(Tensor.of("DT_STRING", [ROW["merchant"]])))
    message.inputs["amount"].CopyFrom(tensor_to_wire(Tensor.of("DT_FLOAT", [ROW["amount"]])))
    content = message.SerializeToString()
    channel = grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))  # a connection for each caller
    predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    return lambda: predict(content, timeout=60)


def rest_caller(address: str) -> Ask:
    """The same over one kept connection."""
    connection = HTTPConnection(address)
    body = json.dumps({"instances": [ROW]})

    def ask() -> None:
        connection.request("POST", "/v1/models/small:predict", body)
        response = connection.getresponse()
        response.read()
        assert response.status == 200

    return ask


@contextlib.contextmanager
def started(command: list[str], ready_file: Path) -> Iterator[dict[str, Any]]:
    """A server process and what it wrote when it was ready."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start: {' '.join(command)}")
                time.sleep(0.1)
            yield json.loads(ready_file.read_text())
        finally:
            process.terminate()
            process.wait(timeout=60)


def resident_mb(pid: int) -> float:
    """Memory of the server process, in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def save_model(folder: Path) -> int:
    """A model of the size of a small classifier: hashed text and a number, an embedding, three layers, 60 classes."""
    import tensorflow as tf

    class Small(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.embedding = tf.Variable(tf.random.normal([5000, 64], seed=1))
            self.layers = [tf.Variable(tf.random.normal([64, width], stddev=0.1, seed=2)) for width in (64, 64, 60)]

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[tf.TensorSpec([None], tf.string, name="merchant"), tf.TensorSpec([None], tf.float32, name="amount")]
        )
        def predict(self, merchant: Any, amount: Any) -> Any:
            words = tf.strings.split(merchant).to_tensor()
            hidden = tf.reduce_mean(tf.gather(self.embedding, tf.strings.to_hash_bucket_fast(words, 5000)), axis=1)
            hidden += tf.math.log1p(tf.abs(amount))[:, None]
            for layer in self.layers:
                hidden = tf.nn.relu(hidden) @ layer
            scores = tf.nn.softmax(hidden)
            return {"scores": scores, "label": tf.as_string(tf.argmax(scores, axis=1)), "confidence": tf.reduce_max(scores, axis=1)}

    model = Small()
    tf.saved_model.save(model, str(folder / "models" / "small" / "1"), signatures={"serving_default": model.predict})
    return 0


def serve_plainly(folder: Path) -> int:
    """The alternative: TensorFlow's loader, its concrete function, its own conversions, the same number of threads."""
    from concurrent.futures import ThreadPoolExecutor

    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    model = tf.saved_model.load(str(folder / "models" / "small" / "1"))
    function = model.signatures["serving_default"]

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]
        def Predict(self, request: Any, _: Any) -> Any:  # noqa: N802  gRPC's name
            outputs = function(**{name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()})
            response = predict_pb2.PredictResponse()
            for name, tensor in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor))
            return response

    server = grpc.server(ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    write_ready_file(folder / "plain.json", f"127.0.0.1:{port}", "", os.getpid())
    server.wait_for_termination()
    return 0


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="The local model server with a small model")
    for column in ("server", "protocol", "callers", "requests/s", "p50 ms", "p99 ms", "MB"):
        table.add_column(column, no_wrap=True, justify="left" if column in {"server", "protocol"} else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
