"""The gateway's wiring: ports, settings, relay, spool, recorder and admin port, from start to the last answer.

Ports are bound first, so one that is taken is told at once. On SIGTERM `/readyz` turns 503 and for `drain` seconds everything goes on, while
whoever routes to us takes notice; then clients are told to go, and what is under way has `grace` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop

from mlserving.errors import ConfigError
from mlserving.gateway import admin
from mlserving.gateway.grpc_server import GrpcServer
from mlserving.gateway.labels_port import StoresLabels
from mlserving.gateway.metrics import Metrics
from mlserving.gateway.notes import Notes
from mlserving.gateway.recorder import Recorder
from mlserving.gateway.relay import Relay
from mlserving.gateway.rest_server import RestServer
from mlserving.gateway.settings import GatewaySettings
from mlserving.gateway.sources import Reloading, Source
from mlserving.gateway.spooling import Spooling
from mlserving.gateway.tracks import Fleet
from mlserving.server.ready_file import write_ready_file

INTERRUPTED = 130
_FIRST_ROUND_SECONDS = 5.0
_BACKLOG = 1024

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run. Port 0 is any free one; `drain` and `grace` in seconds. Without `spool` nothing is logged."""

    source: Source
    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    admin_port: int = 8502
    predictions: Path | None = None
    log_seconds: float = 60.0
    spool: Path | None = None
    ready_file: Path | None = None
    drain: float = 0.0
    grace: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Where a gateway that is ready listens."""

    grpc: str
    rest: str
    admin: str
    models: tuple[str, ...]


def run(options: Options, announce: Callable[[Ready], None]) -> int:
    """Serve until a signal comes. Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        ConfigError: a port is taken, or the settings cannot be meant.
        Unavailable: the settings cannot be had.
    """
    with contextlib.ExitStack() as stack:
        wanted = ((options.grpc_port, "--grpc-port"), (options.rest_port, "--rest-port"), (options.admin_port, "--admin-port"))
        grpc, rest, admin_socket = (stack.enter_context(contextlib.closing(bound(options.host, port, option))) for port, option in wanted)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Gateway(options).serve(grpc, rest, admin_socket, announce))


class Gateway:
    """One gateway process."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.metrics = Metrics()
        self.ready = False
        self.config_hash = ""
        self.config_error = ""
        self._signal: asyncio.Future[int]

    async def serve(self, grpc: socket.socket, rest: socket.socket, admin_socket: socket.socket, announce: Callable[[Ready], None]) -> int:
        """From the first settings to the last answer."""
        self._signal = asyncio.get_running_loop().create_future()
        self._heed_signals()
        reloading = Reloading(self._options.source, self._apply, self._refused)
        settings = await reloading.first()
        self.config_hash = self.metrics.config_hash = reloading.hash
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._options.source.close)
            self.fleet = self.metrics.fleet = Fleet(Notes(self._options.spool).keep)
            self.recorder = await stack.enter_async_context(Recorder(self._options, self.metrics, reloading.text))
            spooling = await stack.enter_async_context(Spooling(self._options.spool, settings, self.metrics))
            labels = await stack.enter_async_context(StoresLabels(self._options.predictions))
            self.relay = Relay(settings, self.fleet, self.metrics, spooling.log, labels)
            self.metrics.buffered = lambda: self.relay.budget.used
            await stack.enter_async_context(admin.serving(admin_socket, self))
            await self.fleet.known(_FIRST_ROUND_SECONDS)
            servers = await self._listen(grpc, rest)
            watching = asyncio.create_task(reloading.keep_looking())
            self._tell(grpc, rest, admin_socket, announce)
            number = await self._signal
            await self._leave(servers)
            watching.cancel()
            self.fleet.close()
        return INTERRUPTED if number == signal.SIGINT else 0

    @property
    def source_name(self) -> str:
        """Where the settings come from."""
        return self._options.source.name

    def count_connections(self) -> None:
        """Bring the gauge of client connections up to date."""
        grpc = sum(isinstance(each, GrpcServer) for each in self.relay.connections)
        self.metrics.connections = {"grpc": grpc, "rest": len(self.relay.connections) - grpc}

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def came(number: int) -> None:
            if self._signal.done():  # the second one does not wait
                os._exit(INTERRUPTED if number == signal.SIGINT else 0)
            self._signal.set_result(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, came, number)

    async def _listen(self, grpc: socket.socket, rest: socket.socket) -> list[asyncio.Server]:
        loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()  # what is here stays for ever: the collector need not look at it again
        gc.set_threshold(50_000, 20, 50)
        sys.setswitchinterval(0.0005)  # the threads of spool and labels give way to requests ten times sooner than by default
        return [
            await loop.create_server(lambda: GrpcServer(self.relay), sock=grpc, backlog=_BACKLOG),
            await loop.create_server(lambda: RestServer(self.relay), sock=rest, backlog=_BACKLOG),
        ]

    def _tell(self, grpc: socket.socket, rest: socket.socket, admin_socket: socket.socket, announce: Callable[[Ready], None]) -> None:
        self.ready = True
        ready = Ready(grpc=address(grpc), rest=address(rest), admin=address(admin_socket), models=tuple(sorted(self.fleet.models)))
        announce(ready)
        _log.info("the gateway is ready", grpc=ready.grpc, rest=ready.rest, admin=ready.admin, hash=self.config_hash[:12])
        if self._options.ready_file:
            write_ready_file(self._options.ready_file, ready.grpc, ready.rest, os.getpid(), admin=ready.admin)

    async def _leave(self, servers: list[asyncio.Server]) -> None:
        """Stop without losing a request."""
        self.ready = False
        if self._options.ready_file:
            self._options.ready_file.unlink(missing_ok=True)
        self.relay.leaving = True  # from now on answers say that their connection closes
        await asyncio.sleep(self._options.drain)
        for server in servers:
            server.close()
        until = time.monotonic() + self._options.grace
        for connection in list(self.relay.connections):
            connection.leave()
        while self.relay.connections and time.monotonic() < until:  # noqa: ASYNC110  many events, once
            await asyncio.sleep(0.02)
        left = len(self.relay.connections)
        await self.relay.settle(max(until - time.monotonic(), 0.1))
        _log.info("the gateway has stopped", connections_cut=left)

    def _apply(self, settings: GatewaySettings, config_hash: str, text: str) -> None:
        self.relay.apply(settings)
        self.recorder.tell(text)
        self.config_hash = self.metrics.config_hash = config_hash
        self.config_error, self.metrics.config_valid = "", True

    def _refused(self, text: str) -> None:
        self.metrics.config_errors += 1
        self.metrics.config_valid = False
        self.config_error = text


def bound(host: str, port: int, option: str) -> socket.socket:
    """A bound socket.

    Raises:
        ConfigError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise ConfigError(
            f"{host}:{port} cannot be bound; is a server running there already? Choose another port: {option} 0 takes any free one."
        ) from error
    return found


def address(listening: socket.socket) -> str:
    """`host:port` of a socket."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
