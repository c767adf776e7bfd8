"""What the gateway adds: 1 KB Predict over gRPC and REST, straight to a model server and through the gateway, in turns in one run.

The model server is a minimal one that answers every request with the same bytes, and the caller sends the same bytes and looks at whether
the answer is whole: both speak frames and heads that were encoded before, so that they take little of the processor. The gateway is
held to one core, caller and model server to the others. Requests for each second of the gateway's own processor time (from /proc) do
not depend on what else the machine does; latencies do.

    python benchmarks/gateway.py [--seconds 4] [--rounds 3] [--rate 1000] [--output benchmarks/results/gateway.json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

from mlserving import wire
from mlserving.gateway import frames as f

ROOT = Path(__file__).resolve().parent.parent
MODEL, VERSION = "small", 7
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 180
FLOATS = 225  # make a request of 1 KB and an answer of 1 KB
REST_FLOATS = 150


def main() -> int:
    """Measure, print, write. `--backend` is how it starts the model server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second at which latency is measured")
    parser.add_argument("--callers", type=int, default=64, help="requests under way while throughput is measured")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gateway.json")
    parser.add_argument("--profile", type=Path, help="write the gateway's profile (cProfile) there; its figures are worthless then")
    parser.add_argument("--backend", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.backend:
        return asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve(arguments.backend))
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        rows = measure_all(Path(folder), arguments)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    result = {"machine": machine, "seconds": arguments.seconds, "rounds": arguments.rounds, "load": os.getloadavg()[0], "runs": rows}
    if not arguments.profile:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print_rows(rows)
    return 0


# -- the bytes --------------------------------------------------------------------------------------------------------------


def grpc_request() -> bytes:
    """A PredictRequest of about 1 KB, with its prefix."""
    message = wire.PredictRequest()
    message.model_spec.name = MODEL
    tensor = message.inputs["features"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_shape.dim.add(size=FLOATS)
    tensor.float_val.extend(0.5 for _ in range(FLOATS))
    return prefixed(message.SerializeToString())


def grpc_answer() -> bytes:
    """A PredictResponse of about 1 KB, with its prefix."""
    message = wire.PredictResponse()
    message.model_spec.name = MODEL
    message.model_spec.version.value = VERSION
    tensor = message.outputs["scores"]
    tensor.dtype = 1
    tensor.float_val.extend(0.25 for _ in range(FLOATS))
    return prefixed(message.SerializeToString())


def prefixed(message: bytes) -> bytes:
    """A gRPC message as it lies in DATA."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def rest_request(authority: str) -> bytes:
    """A predict request of about 1 KB."""
    body = json.dumps({"instances": [{"features": [0.5] * REST_FLOATS}]}).encode()
    return f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def rest_answer(body: bytes) -> bytes:
    """A whole HTTP/1.1 answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


# -- the model server -------------------------------------------------------------------------------------------------------


class GrpcModel(asyncio.Protocol):
    """Answers each stream that ends with the same frames. Knows no flow control but WINDOW_UPDATEs for the connection."""

    def __init__(self, head: bytes, body: bytes, tail: bytes) -> None:
        self._head, self._body, self._tail = head, body, tail
        self._kept = b""
        self._greeted = False
        self._taken = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Allow much."""
        self.transport = cast("asyncio.Transport", transport)
        values = {f.INITIAL_WINDOW_SIZE: 2**30, f.MAX_CONCURRENT_STREAMS: 10_000}
        self.transport.write(f.settings(values) + f.window_update(0, 2**30))

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        data = self._kept + data
        at = 0 if self._greeted else len(f.PREFACE)
        self._greeted = True
        answers = []
        while len(data) - at >= f.HEAD_SIZE:
            high, low, kind, flags, stream = f.read_head(data, at)
            length = high << 8 | low
            if len(data) - at - f.HEAD_SIZE < length:
                break
            if kind == f.DATA:
                self._taken += length
                if flags & f.END_STREAM:
                    number = stream.to_bytes(4, "big")
                    answers.append(
                        b"".join(
                            (
                                self._head[:5],
                                number,
                                self._head[9:],
                                self._body[:5],
                                number,
                                self._body[9:],
                                self._tail[:5],
                                number,
                                self._tail[9:],
                            )
                        )
                    )
            elif kind == f.SETTINGS and not flags & f.ACK:
                answers.append(f.frame(f.SETTINGS, f.ACK, 0))
            elif kind == f.PING and not flags & f.ACK:
                answers.append(f.frame(f.PING, f.ACK, 0, data[at + f.HEAD_SIZE : at + f.HEAD_SIZE + length]))
            at += f.HEAD_SIZE + length
        self._kept = data[at:]
        if self._taken > 2**28:
            answers.append(f.window_update(0, self._taken))
            self._taken = 0
        if answers:
            self.transport.write(b"".join(answers))


class RestModel(asyncio.Protocol):
    """Answers each request with the same bytes, and a question about the model with its state."""

    def __init__(self, answer: bytes, status: bytes) -> None:
        self._answer, self._status, self._kept = answer, status, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer what is whole."""
        data = self._kept + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(data) < end + 4 + size:
                break
            self.transport.write(self._status if data.startswith(b"GET") else self._answer)
            data = data[end + 4 + size :]
        self._kept = data


async def serve(ready_file: Path) -> int:
    """The model server, until it is ended."""
    head = f.headers(1, b"\x88" + f.literal(b"content-type", b"application/grpc"), end=False, most=2**14)
    body, tail = f.frame(f.DATA, 0, 1, grpc_answer()), f.headers(1, f.literal(b"grpc-status", b"0"), end=True, most=2**14)
    states = {
        "model_version_status": [{"version": str(VERSION), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    }
    answer = rest_answer(json.dumps({"predictions": [[0.25] * REST_FLOATS]}).encode())
    loop = asyncio.get_running_loop()
    grpc = await loop.create_server(lambda: GrpcModel(head, body, tail), "127.0.0.1", 0)
    rest = await loop.create_server(lambda: RestModel(answer, rest_answer(json.dumps(states).encode())), "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (grpc, rest)]
    ready_file.with_suffix(".tmp").write_text(json.dumps({"grpc": f"127.0.0.1:{ports[0]}", "rest": f"127.0.0.1:{ports[1]}"}))
    ready_file.with_suffix(".tmp").rename(ready_file)
    await asyncio.Event().wait()
    return 0


# -- the caller -------------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Requests sent and answers seen."""

    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    answered: Callable[[], None] = lambda: None


class GrpcCaller(asyncio.Protocol):
    """Sends the same request on stream after stream."""

    def __init__(self, authority: str, load: Load) -> None:
        self._block = (
            b"\x83\x86"
            + f.literal(b":path", b"/tensorflow.serving.PredictionService/Predict")
            + f.literal(b":authority", authority.encode())
        )
        self._block += f.literal(b"content-type", b"application/grpc") + f.literal(b"te", b"trailers") + f.literal(b"grpc-timeout", b"5S")
        self._body = grpc_request()
        self._load, self._next, self._kept, self._taken = load, 1, b"", 0
        self._sent: dict[int, float] = {}
        self._size: dict[int, int] = {}
        self._wanted = len(grpc_answer())
        self.window = f.DEFAULT_WINDOW

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Allow much."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(f.PREFACE + f.settings({f.INITIAL_WINDOW_SIZE: 2**30}) + f.window_update(0, 2**30))

    def ask(self, due: float) -> None:
        """One request. Latency counts from `due`, when it should have been sent."""
        number, self._next = self._next, self._next + 2
        self._sent[number] = due
        self.transport.write(f.headers(number, self._block, end=False, most=2**14) + f.frame(f.DATA, f.END_STREAM, number, self._body))

    def data_received(self, data: bytes) -> None:
        """Count answers that are whole."""
        data, at, now = self._kept + data, 0, time.perf_counter()
        while len(data) - at >= f.HEAD_SIZE:
            high, low, kind, flags, stream = f.read_head(data, at)
            length = high << 8 | low
            if len(data) - at - f.HEAD_SIZE < length:
                break
            if kind == f.DATA:
                self._taken += length
                self._size[stream] = self._size.get(stream, 0) + length
            if kind in {f.DATA, f.HEADERS} and flags & f.END_STREAM:
                self._load.latencies.append(now - self._sent.pop(stream))
                self._load.wrong += self._size.pop(stream, 0) != self._wanted
                self._load.answered()
            elif kind == f.SETTINGS and not flags & f.ACK:
                self.transport.write(f.frame(f.SETTINGS, f.ACK, 0))
            at += f.HEAD_SIZE + length
        self._kept = data[at:]
        if self._taken > 2**28:
            self.transport.write(f.window_update(0, self._taken))
            self._taken = 0


class RestCaller(asyncio.Protocol):
    """Sends the same request again and again on one connection, one at a time."""

    def __init__(self, authority: str, load: Load) -> None:
        self._request, self._load, self._kept = rest_request(authority), load, b""
        self.free = True
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A server."""
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, due: float) -> None:
        """One request."""
        self.free, self._due = False, due
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count the answer once it is whole."""
        data = self._kept = self._kept + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        size = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if len(data) < end + 4 + size:
            return
        self._kept = b""
        self._load.latencies.append(time.perf_counter() - self._due)
        self._load.wrong += not data.startswith(b"HTTP/1.1 200")
        self.free = True
        self._load.answered()


async def throughput(protocol: str, address: str, callers: int, seconds: float) -> Load:
    """Keep `callers` requests under way."""
    load, asked = Load(), [0]
    connections = await connected(protocol, address, load, 8 if protocol == "grpc" else callers)
    until = time.perf_counter() + seconds
    finished = asyncio.get_running_loop().create_future()

    def again() -> None:
        if time.perf_counter() < until:
            if protocol == "grpc":
                asked[0] += 1
                connections[asked[0] % len(connections)].ask(time.perf_counter())
            else:
                next(each for each in connections if each.free).ask(time.perf_counter())
        elif not finished.done():
            finished.set_result(None)

    load.answered = again
    for _ in range(callers):
        again()
    await finished
    for each in connections:
        each.transport.abort()
    return load


async def at_a_rate(protocol: str, address: str, rate: float, seconds: float) -> Load:
    """Send `rate` requests a second, evenly, whether answers come or not."""
    load = Load()
    connections = await connected(protocol, address, load, 4 if protocol == "grpc" else 64)
    started, sent = time.perf_counter(), 0
    while sent < rate * seconds:
        due = started + sent / rate
        now = time.perf_counter()
        if due > now:
            await asyncio.sleep(due - now if due - now > 0.002 else 0)
            continue
        free = [each for each in connections if protocol == "grpc" or each.free]
        if free:
            free[sent % len(free)].ask(due)
            sent += 1
        else:
            await asyncio.sleep(0)
    for _ in range(500):
        if len(load.latencies) >= sent:
            break
        await asyncio.sleep(0.01)
    for each in connections:
        each.transport.abort()
    return load


async def connected(protocol: str, address: str, load: Load, count: int) -> list[Any]:
    """Connections of callers."""
    host, port = address.split(":")
    kind = GrpcCaller if protocol == "grpc" else RestCaller
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: kind(address, load), host, int(port)))[1] for _ in range(count)]


# -- the run ----------------------------------------------------------------------------------------------------------------


def measure_all(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each protocol, direct and through the gateway, in turns."""
    cores = sorted(os.sched_getaffinity(0))
    others = cores[1:] or cores
    with started([sys.executable, __file__, "--backend", str(folder / "model.json")], folder / "model.json", others) as model:
        (folder / "gateway.yaml").write_text(
            f"models: {{{MODEL}: {{tracks: {{stable: {{grpc: '{model['grpc']}', rest: '{model['rest']}', weight: 100}}}}, log: {{share: 0.1}}}}}}\n"
        )
        ports = ["--grpc-port", "0", "--rest-port", "0", "--admin-port", "0", "--spool", str(folder / "spool")]
        program = [
            sys.executable,
            *(["-m", "cProfile", "-o", str(arguments.profile)] if arguments.profile else []),
            "-m",
            "mlserving",
            "gateway",
        ]
        command = [*program, "--config", str(folder / "gateway.yaml"), "--ready-file", str(folder / "ready.json"), *ports]
        with started(command, folder / "ready.json", cores[:1]) as gateway:
            os.sched_setaffinity(0, others)
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            found: dict[tuple[str, str], list[dict[str, float]]] = {}
            for _ in range(arguments.rounds):
                for protocol in ("grpc", "rest"):
                    for way, server in (("direct", model), ("gateway", gateway)):
                        found.setdefault((protocol, way), []).append(one_turn(runner, protocol, server, gateway["pid"], arguments))
    return [summary(protocol, way, turns) for (protocol, way), turns in found.items()]


def one_turn(runner: asyncio.Runner, protocol: str, server: dict[str, Any], pid: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Throughput, then latency at a rate."""
    runner.run(throughput(protocol, server[protocol], arguments.callers, 0.3))
    before, started_at = cpu_seconds(pid), time.perf_counter()
    full = runner.run(throughput(protocol, server[protocol], arguments.callers, arguments.seconds))
    took, cpu = time.perf_counter() - started_at, cpu_seconds(pid) - before
    paced = runner.run(at_a_rate(protocol, server[protocol], arguments.rate, arguments.seconds))
    return {
        "requests": len(full.latencies),
        "seconds": took,
        "cpu": cpu,
        "wrong": full.wrong + paced.wrong,
        "latencies": paced.latencies,
        "resident_mb": resident_mb(pid),
    }


def summary(protocol: str, way: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """One row."""
    requests, cpu = sum(turn["requests"] for turn in turns), sum(turn["cpu"] for turn in turns)
    latencies = sorted(latency for turn in turns for latency in turn["latencies"])
    through = way == "gateway"
    return {
        "protocol": protocol,
        "way": way,
        "requests_per_second": round(requests / sum(turn["seconds"] for turn in turns)),
        "requests_per_cpu_second": round(requests / cpu) if through else None,
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 3),
        "p99_ms_of_turns": [round(sorted(turn["latencies"])[int(len(turn["latencies"]) * 0.99)] * 1000, 3) for turn in turns],
        "wrong": sum(turn["wrong"] for turn in turns),
        "resident_mb": turns[-1]["resident_mb"] if through else None,
    }


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has had, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Memory of the process, in megabytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


@contextlib.contextmanager
def started(command: list[str], ready_file: Path, cores: list[int]) -> Iterator[dict[str, Any]]:
    """A process on `cores`, and what it wrote when it was ready."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        os.sched_setaffinity(process.pid, cores)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"it did not start: {' '.join(command)}")
                time.sleep(0.05)
            yield json.loads(ready_file.read_text())
        finally:
            process.terminate()
            process.wait(timeout=60)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="1 KB Predict, direct and through the gateway on one core")
    for column in ("protocol", "way", "requests/s", "requests/CPU s", "p50 ms", "p99 ms", "p99 ms of turns", "wrong", "MB"):
        table.add_column(column, justify="left" if column in {"protocol", "way"} else "right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
