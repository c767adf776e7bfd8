"""The webhook's wiring: a TLS port for the API server, a plain one for probes and metrics, and certificates that are looked after meanwhile.

python -m gpuqueue.webhook --listen :10250 --probes :8081 --configuration gpu-queue-gate --host gpu-queue-webhook.gpu-queue.svc
    --secret gpu-queue-webhook --namespace gpu-queue
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from gpuqueue.cluster import access
from gpuqueue.cluster.api import Api
from gpuqueue.controller.server import private_app, serve
from gpuqueue.durations import seconds_of
from gpuqueue.errors import GpuQueueError
from gpuqueue.webhook import review
from gpuqueue.webhook.certificates import Certificates, Configuration, FromFiles, SelfManaged
from gpuqueue.webhook.rotation import Lives

_LOOK_SECONDS = 10.0
_FIRST_SECONDS = 0.5
"""Between two looks while something is amiss."""
_DRAIN_SECONDS = 8.0
"""After SIGTERM we answer for so long: until the API server's side has heard that we go."""
_KEEP_SECONDS = 3600.0
"""The API server ends an idle connection, not we: what it sends in the moment in which we close would be refused, not sent again."""
_MOST_BYTES = 4 * 1024 * 1024
log = structlog.get_logger()


class Webhook:
    """One replica.

    Args:
        certificates: who keeps the certificate.
        look_seconds: between two looks at it.
    """

    def __init__(self, certificates: Certificates, look_seconds: float = _LOOK_SECONDS) -> None:
        self._certificates, self._look_seconds = certificates, look_seconds
        self._trouble = "has not looked yet"
        self._leaving = False
        self._registry = CollectorRegistry()
        self._reviews = Counter(
            "gpu_queue_webhook_reviews", "Pods that were put behind the gate, or not.", ["outcome"], registry=self._registry
        )
        self._expiry = Gauge("gpu_queue_webhook_certificate_expires", "When our certificate ends (Unix time).", registry=self._registry)

    def app(self) -> web.Application:
        """What the API server reaches."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.router.add_post("/gate", self._gate)
        return app

    def probes(self) -> web.Application:
        """What the kubelet and Prometheus reach."""
        return private_app(ready=self.why_not_ready, alive=lambda: "", metrics=lambda: generate_latest(self._registry))

    def why_not_ready(self) -> str:
        """Empty if the API server should ask us."""
        return "is about to end" if self._leaving else self._trouble

    async def look(self) -> None:
        """Keep the certificate up to date, for ever. While the API server is away, what was true stays so."""
        while True:
            try:
                trouble = await self._certificates.refresh()
                if trouble != self._trouble:
                    log.info("certificate", trouble=trouble)
                self._trouble = trouble
            except GpuQueueError as error:
                log.warning("certificate", trouble=str(error))
            self._expiry.set(self._certificates.expires)
            await asyncio.sleep(min(self._look_seconds, _FIRST_SECONDS) if self._trouble else self._look_seconds)

    def leave(self) -> None:
        """From now on, answer and close."""
        self._leaving = True

    async def _gate(self, request: web.Request) -> web.Response:
        try:
            text = review.answer(await request.read())
        except msgspec.MsgspecError as error:
            self._reviews.labels("unreadable").inc()
            return web.Response(status=400, text=f"no review of a pod: {error}")
        self._reviews.labels("gated").inc()
        response = web.Response(body=text, content_type="application/json")
        if self._leaving:
            response.force_close()
        return response


async def run(arguments: argparse.Namespace) -> int:
    """Run a replica until SIGTERM or SIGINT."""
    reached = access.find(arguments.kubeconfig)
    lives = Lives(authority=arguments.authority_life, certificate=arguments.life, renew_before=arguments.renew_before)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with Api(reached, agent="gpu-queue-webhook") as api:
        webhook = Webhook(_certificates(api, arguments, lives, tls), look_seconds=min(_LOOK_SECONDS, lives.settle))
        probes = await serve(webhook.probes(), arguments.probes)
        asked = web.AppRunner(webhook.app(), access_log=None, keepalive_timeout=_KEEP_SECONDS, shutdown_timeout=5)
        await asked.setup()
        looking = asyncio.create_task(webhook.look())
        host, _, port = arguments.listen.rpartition(":")
        await web.TCPSite(asked, host.strip("[]") or None, int(port), ssl_context=tls).start()
        log.info("started", server=reached.server)
        await _told_to_end()
        webhook.leave()
        await asyncio.sleep(arguments.drain)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        for server in (asked, probes):
            await server.cleanup()
        log.info("stopped")
    return 0


def _certificates(api: Api, arguments: argparse.Namespace, lives: Lives, tls: ssl.SSLContext) -> Certificates:
    configuration = Configuration(api, arguments.configuration)
    if arguments.certificates:
        return FromFiles(configuration, arguments.certificates, tls)
    secret = f"/api/v1/namespaces/{arguments.namespace or api.access.namespace}/secrets/{arguments.secret}"
    return SelfManaged(api, configuration, secret=secret, hosts=arguments.host, lives=lives, tls=tls)


async def _told_to_end() -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpuqueue.webhook", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: KUBECONFIG, else the pod that this runs in, else ~/.kube/config")
    parser.add_argument("--listen", metavar="HOST:PORT", default=":10250", help="where the API server asks")
    parser.add_argument("--probes", metavar="HOST:PORT", default=":8081", help="where /healthz, /readyz and /metrics answer")
    parser.add_argument("--configuration", required=True, help="the MutatingWebhookConfiguration")
    parser.add_argument("--certificates", type=Path, help="a folder with tls.crt, tls.key and ca.crt that somebody else keeps up to date")
    parser.add_argument("--secret", default="gpu-queue-webhook", help="where our own authorities are kept")
    parser.add_argument("--namespace", help="of the Secret (default: that of the pod)")
    parser.add_argument("--host", action="append", default=[], help="by which name we are asked; may be repeated")
    parser.add_argument("--authority-life", type=seconds_of, default=Lives().authority, help="for example 8640h")
    parser.add_argument("--life", type=seconds_of, default=Lives().certificate, help="of our certificate")
    parser.add_argument("--renew-before", type=seconds_of, default=Lives().renew_before)
    parser.add_argument("--drain", type=float, default=_DRAIN_SECONDS, help="seconds to go on answering after SIGTERM")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    try:
        return asyncio.run(run(_parser().parse_args(arguments)))
    except GpuQueueError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
