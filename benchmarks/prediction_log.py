"""What the prediction log costs: on the gateway's way, in the recorder, on the disk, and when labels arrive.

Exchanges of about 1.2 KB (twelve inputs, one row; JSON over REST, tensors over gRPC) are appended to a spool, and recorded from there. Beside the
spool's writer runs the obvious alternative, a line of JSON to a file that is flushed to the operating system each time; beside Parquet
stand the bytes as they came. Labels are stored in a thread, as the gateway does, and on the event loop itself.

    python benchmarks/prediction_log.py [--exchanges 100000] [--output benchmarks/results/prediction_log.json]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import dataclasses
import json
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlserving import wire
from mlserving.client.grpc_client import tensor_to_wire
from mlserving.client.signature import Signature, Tensor, TensorSpec
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.labels import LabelStore, collect
from mlserving.predictions.reading import log
from mlserving.predictions.recorder import Options, Recorder
from mlserving.predictions.signatures import Signatures
from mlserving.predictions.spool import SpoolWriter, segments

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("merchant", "city", "country", "channel", "code", "note")
NUMBERS = ("amount", "balance", "age_days", "hour", "count_7d", "mean_7d")
INPUTS = {name: TensorSpec(name=name, dtype="DT_STRING", shape=(-1,)) for name in NAMES} | {
    name: TensorSpec(name=name, dtype="DT_FLOAT", shape=(-1,)) for name in NUMBERS
}
OUTPUTS = {
    "label": TensorSpec(name="label", dtype="DT_STRING", shape=(-1,)),
    "confidence": TensorSpec(name="confidence", dtype="DT_FLOAT", shape=(-1,)),
    "scores": TensorSpec(name="scores", dtype="DT_FLOAT", shape=(-1, 60)),
}
SIGNATURE = {"serving_default": Signature(name="serving_default", method="tensorflow/serving/predict", inputs=INPUTS, outputs=OUTPUTS)}
SPOOL_BYTES = 4 << 30
LABELS = 20_000
MOST_DISTINCT = 20_000


class Known(Signatures):
    """Signatures without a server, which this does not measure."""

    def of(self, settings: Any, model: str, version: int, track: str) -> Mapping[str, Signature]:  # noqa: ARG002  the class it stands for
        """See Signatures."""
        return SIGNATURE


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--exchanges", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "prediction_log.json")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for protocol in ("rest", "grpc"):
        chance = random.Random(7)
        exchanges = [an_exchange(chance, protocol) for _ in range(min(arguments.exchanges, MOST_DISTINCT))]
        with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
            found[protocol] = measure(Path(folder), exchanges, arguments.exchanges)
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        found["labels"] = measure_labels(Path(folder))
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform(), "load": os.getloadavg()[0]}
    for name, figures in found.items():
        print(name, *(f"  {figure}: {value:,.2f}" for figure, value in figures.items()), sep="\n")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": machine, "exchanges": arguments.exchanges} | found, indent=2) + "\n")
    return 0


def an_exchange(chance: random.Random, protocol: str) -> Exchange:
    """A request of one row and its answer, like no other."""
    row: dict[str, Any] = {name: f"{name} {chance.randrange(5000):04d} of some length, which varies" for name in NAMES}
    row |= {name: round(chance.expovariate(0.01), 2) for name in NUMBERS}
    answer: dict[str, Any] = {"label": f"class {chance.randrange(60)}", "confidence": round(chance.random(), 6)}
    answer["scores"] = [round(chance.random(), 6) for _ in range(60)]
    if protocol == "rest":
        request, response = json.dumps({"instances": [row]}).encode(), json.dumps({"predictions": [answer]}).encode()
    else:
        request, response = (
            _message(wire.PredictRequest(), "inputs", row, INPUTS),
            _message(wire.PredictResponse(), "outputs", answer, OUTPUTS),
        )
    return Exchange(
        prediction_id=f"{chance.getrandbits(128):032x}", time_us=1_767_182_400_000_000 + chance.randrange(3600 * 10**6), model="cards", version=3, track="stable",
        protocol="rest" if protocol == "rest" else "grpc", method="predict" if protocol == "rest" else "Predict", latency_us=2300,
        request=request, response=response,
    )  # fmt: skip


def _message(message: Any, field: str, values: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> bytes:
    for name, value in values.items():
        getattr(message, field)[name].CopyFrom(tensor_to_wire(Tensor.of(specs[name].dtype, [value])))
    content: bytes = message.SerializeToString()
    return content


def measure(folder: Path, exchanges: list[Exchange], count: int) -> dict[str, float]:
    """Append `count` exchanges both ways, and record them."""
    size = sum(len(each.request) + len(each.response) for each in exchanges) / len(exchanges)
    writer = SpoolWriter(folder / "spool", SPOOL_BYTES)
    spool = _appending(exchanges, count, writer.append, lambda: writer.drain(30))
    writer.close()
    with (folder / "lines.jsonl").open("ab") as file:
        lines = _appending(exchanges, min(count, 20_000), lambda each: _write_line(file, each), lambda: None)
    spooled = sum(path.stat().st_size for path in segments(folder / "spool"))
    seconds, processor = _record(folder)
    files = list((folder / "predictions" / "log").rglob("*.parquet"))
    rows = log(folder / "predictions", "cards").count()
    assert rows == count, f"{rows} rows of {count} exchanges"
    return {
        "bytes an exchange": size, "µs an append, spool": spool[0], "µs of processor in all, spool": spool[1],
        "µs an append, a line of JSON each": lines[0], "µs of processor in all, a line of JSON each": lines[1],
        "bytes an exchange in the spool": spooled / count, "rows a second recorded": count / seconds,
        "µs of processor a row recorded": processor / count * 1e6, "bytes a row in Parquet": sum(path.stat().st_size for path in files) / count,
    }  # fmt: skip


def _appending(exchanges: list[Exchange], count: int, append: Callable[[Exchange], Any], settle: Callable[[], Any]) -> tuple[float, float]:
    """µs that the caller waits for an append, and µs of processor that an exchange costs in all. Bursts, with time between for the writer's thread."""
    waited, processor = 0.0, time.process_time()
    for start in range(0, count, 1000):
        began = time.perf_counter()
        for number in range(start, min(start + 1000, count)):
            append(exchanges[number % len(exchanges)])
        waited += time.perf_counter() - began
        settle()
    return waited / count * 1e6, (time.process_time() - processor) / count * 1e6


def _write_line(file: Any, exchange: Exchange) -> None:
    fields = dataclasses.asdict(exchange)
    for name in ("request", "response"):
        fields[name] = base64.b64encode(fields[name]).decode()
    file.write(json.dumps(fields).encode() + b"\n")
    file.flush()


def _record(folder: Path) -> tuple[float, float]:
    """Seconds, and seconds of processor, until the spool is recorded."""
    backend = {"grpc": "127.0.0.1:1", "rest": "127.0.0.1:1", "weight": 100}
    model = {"tracks": {"stable": backend}, "log": {"features": [*NAMES, *NUMBERS]}}
    (folder / "gateway.yaml").write_text(yaml.safe_dump({"models": {"cards": model}}))
    options = Options(spool=folder / "spool", predictions=folder / "predictions", config=folder / "gateway.yaml")
    recorder, stopping = Recorder(options, signatures=Known()), threading.Event()
    stopping.set()
    began, processor = time.perf_counter(), time.process_time()
    recorder.run(stopping)
    return time.perf_counter() - began, time.process_time() - processor


def measure_labels(folder: Path) -> dict[str, float]:
    """Labels a second by the request, and how long an event loop stands still beside it."""
    with LabelStore(folder / "thread") as store:
        threaded = asyncio.run(_storing(lambda body: asyncio.to_thread(store.answer, body)))
    with LabelStore(folder / "loop") as store:

        async def at_once(body: bytes) -> Any:
            return store.answer(body)

        direct = asyncio.run(_storing(at_once))
    with LabelStore(folder / "bulk", source="import") as store:
        began = time.perf_counter()
        for start in range(0, LABELS, 10_000):
            store.store(json.loads(_labels(start, 10_000)))
        imported = LABELS / (time.perf_counter() - began)
    began = time.perf_counter()
    collect(folder / "bulk")
    return {
        "labels a second, ten a request, in a thread": threaded[0], "longest pause of the loop, ms, in a thread": threaded[1],
        "labels a second, ten a request, on the loop": direct[0], "longest pause of the loop, ms, on the loop": direct[1],
        "labels a second, imported": imported, "labels a second, made Parquet": LABELS / (time.perf_counter() - began),
    }  # fmt: skip


async def _storing(store: Callable[[bytes], Any]) -> tuple[float, float]:
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        while running:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began - 0.001)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    longest, began = 0.0, time.perf_counter()
    for start in range(0, 5000, 10):
        status, _ = await store(_labels(start, 10))
        assert status == 200
    seconds, running = time.perf_counter() - began, False
    await watcher
    return 5000 / seconds, longest * 1e3


def _labels(start: int, count: int) -> bytes:
    return json.dumps(
        {"model": "cards", "labels": [{"prediction_id": f"{n:032x}", "label": "food"} for n in range(start, start + count)]}
    ).encode()


if __name__ == "__main__":
    raise SystemExit(main())
