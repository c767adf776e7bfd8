"""A gateway and model servers behind it, each a process of its own on loopback, and callers that check what they are answered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from mlserving import wire

START_SECONDS = 60
PREDICT = "/tensorflow.serving.PredictionService/Predict"
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


@dataclass
class Server:
    """A process that is ready."""

    grpc: str
    rest: str
    process: subprocess.Popen[bytes]
    admin: str = ""
    config: Path = Path()
    folder: Path = Path()
    lines: list[str] = field(default_factory=list)

    def seen(self) -> dict[str, Any]:
        """What a model server saw."""
        return dict(get_json(f"http://{self.rest}/seen"))

    def tracks(self) -> dict[str, Any]:
        """What a gateway has in force."""
        return dict(get_json(f"http://{self.admin}/tracks"))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a gateway's series of that name with those labels."""
        text = urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5).read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def resident_mb(self) -> float:
        """Memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "output.log").read_text()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextlib.contextmanager
def model_server(folder: Path, *arguments: str) -> Iterator[Server]:
    """A model server of `model_server.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("model_server.py")), "--ready", str(ready), *arguments]
    with _process(command, folder, ready) as server:
        yield server


@contextlib.contextmanager
def gateway(folder: Path, config: str, *arguments: str, names: Path | None = None) -> Iterator[Server]:
    """`millrace gateway` on free ports. `names` is a file {name: [address, …]} that it asks in place of the name service."""
    folder.mkdir(parents=True, exist_ok=True)
    ready, file = folder / "ready.json", folder / "gateway.yaml"
    file.write_text(config)
    ports = ["--grpc-port", "0", "--rest-port", "0", "--admin-port", "0"]
    program = ["-m", "mlserving"] if names is None else ["-c", _OTHER_NAMES, str(names)]
    command = [sys.executable, *program, "gateway", "--config", str(file), "--ready-file", str(ready), *ports, *arguments]
    with _process(command, folder, ready) as server:
        server.config = file
        yield server


_OTHER_NAMES = """
import json, sys
from pathlib import Path
from mlserving.gateway import tracks
from mlserving.__main__ import main

names = Path(sys.argv[1])

async def resolved(host):
    found = json.loads(names.read_text()).get(host)
    if found is None:
        raise OSError(f"no such name: {host}")
    return found

tracks.resolved, tracks.RESOLVE_SECONDS = resolved, 0.3
raise SystemExit(main(sys.argv[2:]))
"""


@contextlib.contextmanager
def _process(command: Sequence[str], folder: Path, ready: Path) -> Iterator[Server]:
    with (folder / "output.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready.exists():
                assert process.poll() is None, (folder / "output.log").read_text()
                assert time.monotonic() < deadline, (folder / "output.log").read_text()
                time.sleep(0.02)
            told = json.loads(ready.read_text())
            yield Server(told["grpc"], told["rest"], process, admin=told.get("admin", ""), folder=folder)
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def config(model: str = "m", *, more: str = "", **tracks: tuple[Server | tuple[str, str], float]) -> str:
    """gateway.yaml for one model: track=(server, weight)."""
    lines = ["models:", f"  {model}:", "    tracks:"]
    for name, (server, weight) in tracks.items():
        grpc_address, rest_address = (server.grpc, server.rest) if isinstance(server, Server) else server
        lines.append(f"      {name}: {{grpc: '{grpc_address}', rest: '{rest_address}', weight: {weight}}}")
    return "\n".join(lines) + "\n" + more


def channel(address: str, *options: tuple[str, Any]) -> Any:
    """A connection of its own."""
    return grpc.insecure_channel(address, options=(*UNLIMITED, *options))


def request(x: str, *, model: str = "m", version: int = 0, label: str = "", **steering: float) -> bytes:
    """A PredictRequest for `model_server`."""
    message = wire.PredictRequest()
    message.model_spec.name = model
    if version:
        message.model_spec.version.value = version
    if label:
        message.model_spec.version_label = label
    message.inputs["x"].string_val.append(x.encode())
    for name, value in steering.items():
        message.inputs[name].float_val.append(value)
    content: bytes = message.SerializeToString()
    return content


@dataclass(frozen=True)
class Answer:
    """What a caller was told."""

    x: str
    version: int
    headers: dict[str, str]
    code: str = "OK"
    details: str = ""
    size: int = 0


def ask(
    connection: Any, x: str, *, timeout: float | None = 20, metadata: Sequence[tuple[str, str]] = (), path: str = PREDICT, **steering: Any
) -> Answer:
    """One Predict. The answer is checked to be this request's."""
    call = connection.unary_unary(path)
    content = steering.pop("content", None) or request(x, **steering)
    try:
        body, told = call.with_call(content, timeout=timeout, metadata=metadata, compression=None)
    except grpc.RpcError as error:
        headers = {str(key): str(value) for key, value in (*(error.initial_metadata() or ()), *(error.trailing_metadata() or ()))}
        return Answer("", 0, headers, code=error.code().name, details=error.details() or "")
    response = wire.PredictResponse.FromString(body)
    answered = response.outputs["x"].string_val[0].decode()
    assert answered == x, f"asked {x}, answered {answered}: a wrong answer"
    return Answer(answered, response.model_spec.version.value, {str(k): str(v) for k, v in told.initial_metadata()}, size=len(body))


def call(connection: HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    """One request on a kept connection: status, headers in lower case, JSON."""
    connection.request(
        method, path, json.dumps(body) if body is not None else None, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    response = connection.getresponse()
    content = response.read()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(content) if content else None


def get_json(url: str) -> Any:
    """The JSON at an address."""
    return json.loads(urllib.request.urlopen(url, timeout=10).read())


def post(url: str) -> Any:
    """POST nothing."""
    return json.loads(urllib.request.urlopen(urllib.request.Request(url, data=b"", method="POST"), timeout=10).read())
