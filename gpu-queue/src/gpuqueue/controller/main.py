"""The controller's wiring: build the pieces, start them, and stop in order when told to.

python -m gpuqueue controller --namespace gpu-queue --identity POD_NAME --settings /etc/gpu-queue/settings.yaml
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from gpuqueue.cluster import access
from gpuqueue.cluster.api import Api
from gpuqueue.controller import settings as settings_file
from gpuqueue.controller.replica import Controller
from gpuqueue.controller.server import PublicServer, private_app, serve
from gpuqueue.controller.visitors import Visitors
from gpuqueue.errors import GpuQueueError
from gpuqueue.metrics import Metrics

log = structlog.get_logger()


async def run(arguments: argparse.Namespace) -> int:
    """Run a replica until SIGTERM or SIGINT."""
    settings = settings_file.read(arguments.settings)
    metrics = Metrics()
    reached = access.find(arguments.kubeconfig)
    async with Api(reached, agent="gpu-queue", noted=noting(metrics)) as api:
        controller = Controller(api, settings, metrics, namespace=arguments.namespace or reached.namespace, identity=arguments.identity)
        servers = await listen(controller, arguments)
        running = asyncio.create_task(controller.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        log.info("started", identity=arguments.identity, server=reached.server)
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for server in servers:
            await server.cleanup()
        log.info("stopped", identity=arguments.identity)
    return 0


async def listen(controller: Controller, arguments: argparse.Namespace) -> list[web.AppRunner]:
    """Open the two ports."""
    servers = []
    if arguments.probes:
        app = private_app(ready=controller.why_not_ready, alive=lambda: "", metrics=controller.metrics.page)
        servers.append(await serve(app, arguments.probes))
    if arguments.listen:
        tls = None
        if arguments.tls_certificate:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(arguments.tls_certificate, arguments.tls_key)
        public = PublicServer(
            lambda: controller.board if controller.synced else None,
            Visitors(controller.api),
            lambda: controller.leadership.holder,
            controller.find,
        )
        servers.append(await serve(public.app(), arguments.listen, tls))
    return servers


def noting(metrics: Metrics) -> Any:
    """Counts each request by verb, resource and code."""

    def noted(method: str, path: str, code: int) -> None:
        metrics.api_requests.labels(method, resource_of(path), str(code) if code else "none").inc()

    return noted


def resource_of(path: str) -> str:
    """`pods/status` of `/api/v1/namespaces/fraud/pods/p0/status`."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:  # noqa: PLR2004 (namespaces/NAME/resource)
        parts = parts[2:]
    return "/".join([parts[0], *parts[2:3]]) if parts else "other"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a replica."""
    parser = argparse.ArgumentParser(prog="python -m gpuqueue controller", description="Run a replica of the controller.")
    parser.add_argument("--kubeconfig", help="default: KUBECONFIG, else the pod that this runs in, else ~/.kube/config")
    parser.add_argument("--namespace", help="of the Lease (default: that of the pod)")
    parser.add_argument("--identity", default=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}")
    parser.add_argument("--settings", type=Path, help="a YAML file")
    parser.add_argument("--probes", metavar="HOST:PORT", help="where /healthz, /readyz and /metrics answer")
    parser.add_argument("--listen", metavar="HOST:PORT", help="where the API and the page answer")
    parser.add_argument("--tls-certificate", type=Path, help="for --listen")
    parser.add_argument("--tls-key", type=Path, help="for --listen")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> int:
    """Run; returns the exit code."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    try:
        return asyncio.run(run(arguments))
    except GpuQueueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
