"""The local model server: binds its ports, loads the models, answers, and goes without losing a request.

Ports are bound before anything slow, so a port that is taken is reported at once. The rest waits for TensorFlow (seconds) and for
the models. On SIGTERM or Ctrl-C both ports stop accepting, what is under way is finished, and then the models are let go.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mlserving.errors import ConfigError, Unavailable
from mlserving.server.model_config import Wanted
from mlserving.server.ready_file import write_ready_file

INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve. Port 0 is any free one. `grace` and `poll` in seconds. `must` are models without which to give up."""

    wanted: Wanted
    must: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    threads: int = 16
    poll: float = 1.0
    grace: float = 30.0
    ready_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a server that is ready tells: its addresses and the versions it serves."""

    grpc: str
    rest: str
    models: dict[str, list[int]]


def run(settings: Settings, announce: Callable[[Ready], None]) -> int:
    """Serve until a signal comes. Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        ConfigError: a port is taken, or there is nothing to serve.
        Unavailable: one of the models that must be there cannot be loaded.
    """
    with (
        _signals() as signals,
        contextlib.closing(_bound(settings.host, settings.rest_port, "--rest-port")) as rest,
        contextlib.closing(_bound(settings.host, settings.grpc_port, "--grpc-port")) as grpc,
    ):
        return _Server(settings, rest, grpc).serve(announce, signals)


class _Signals:
    """Which signal came. While nothing is served yet it ends the process at once; afterwards the server ends in order."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.number = 0
        self.serving = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.came.is_set():  # the second one does not wait for requests under way, nor for their threads
            os._exit(self.exit_code(number))
        if not self.serving:
            raise SystemExit(self.exit_code(number))
        self.number = number
        self.came.set()

    @staticmethod
    def exit_code(number: int) -> int:
        return INTERRUPTED if number == signal.SIGINT else 0


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Keep back what TensorFlow's libraries write to stderr when they are imported; no setting of theirs does. Shown if it fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except SystemExit:  # a signal came: nothing is wrong
            raise
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


class _Server:
    """The two protocols over one library."""

    def __init__(self, settings: Settings, rest_socket: socket.socket, grpc_socket: socket.socket) -> None:
        with _without_greeting():
            from mlserving.server.grpc_server import build_server
            from mlserving.server.library import Library
            from mlserving.server.warmup import load_warm
            from mlserving.server.watcher import Watcher

        self._settings = settings
        self._rest_socket = rest_socket
        self._grpc_socket = grpc_socket
        self._library = Library(load_warm)
        self._watcher = Watcher(self._library, settings.wanted, settings.poll)
        self._grpc = build_server(self._library, self._watcher, settings.threads)

    def serve(self, announce: Callable[[Ready], None], signals: _Signals) -> int:
        self._watcher.settle()
        self._check_loaded()
        grpc_address = self._start_grpc()
        rest, thread = self._start_rest()
        self._watcher.start()
        signals.serving = True
        self._announce(announce, grpc_address)
        signals.came.wait()
        self._stop(rest, thread)
        return signals.exit_code(signals.number)

    def _start_grpc(self) -> str:
        address = _address(self._grpc_socket)
        self._grpc_socket.close()  # it kept the port for us while the models were loaded
        try:
            self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise _port_taken(address, "--grpc-port") from error
        self._grpc.start()
        return address

    def _check_loaded(self) -> None:
        available = {name for name, versions in self._library.available().items() if versions}
        reasons = [f"{name} version {bad.version}: {bad.error}" for name, states in self._library.failures().items() for bad in states]
        missing = sorted(set(self._settings.must) - available)
        if missing:
            why = " ".join(reasons) or "There is no version of it on disk."
            raise Unavailable(f"{', '.join(missing)} cannot be served. {why} See what is published: millrace models")
        if not available:
            raise ConfigError(f"There is no model that can be served. {' '.join(reasons)} Train and publish one: millrace run PROJECT_DIR")

    def _start_rest(self) -> tuple[Any, threading.Thread]:
        import uvicorn

        from mlserving.server.rest_server import build_app

        config = uvicorn.Config(
            build_app(self._library),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=60,  # seconds an idle connection is kept
            timeout_graceful_shutdown=int(self._settings.grace),
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [self._rest_socket]}, name="rest", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        return server, thread

    def _announce(self, announce: Callable[[Ready], None], grpc_address: str) -> None:
        ready = Ready(grpc=grpc_address, rest=_address(self._rest_socket), models=self._library.available())
        announce(ready)
        if self._settings.ready_file:
            write_ready_file(self._settings.ready_file, ready.grpc, ready.rest, os.getpid())

    def _stop(self, rest: Any, thread: threading.Thread) -> None:
        if self._settings.ready_file:
            self._settings.ready_file.unlink(missing_ok=True)
        rest.should_exit = True
        done = self._grpc.stop(self._settings.grace)
        self._watcher.stop()
        thread.join()
        done.wait()
        self._library.close()


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bound(host: str, port: int, option: str) -> socket.socket:
    """A bound socket that does not listen yet: until the models are loaded, clients are refused and do not hang."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is spelled out; with it on, each REST answer takes 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _port_taken(f"{host}:{port}", option) from error
    return bound


def _port_taken(address: str, option: str) -> ConfigError:
    return ConfigError(f"{address} cannot be bound; is a server running there already? Choose another port: {option} 0 takes any free one.")
