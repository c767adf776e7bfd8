"""`millrace review serve`: the page, and beside it a thread that brings labels to the prediction log, and a port for Prometheus. Only wiring."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from mlserving import exposition
from mlserving.errors import ConfigError, ServingError
from mlserving.review.access import Access, Logins
from mlserving.review.delivery import send_to
from mlserving.review.metrics import Told
from mlserving.review.outbox import Outbox
from mlserving.review.page import Page
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database

_DELIVERY_SECONDS = 2.0
_AFTER_FAILURE_SECONDS = 30.0
_log = structlog.get_logger("review")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How the page is served."""

    host: str
    port: int
    metrics: str | None
    """HOST:PORT at which Prometheus asks; nobody where not set."""
    access: Access
    database: Database
    predictions: Path
    lease: timedelta
    hold: timedelta
    certificate: Path | None = None
    key: Path | None = None
    ready_file: Path | None = None

    def run(self, announce: Callable[[str], None]) -> int:
        """Serve until SIGTERM or Ctrl-C. `announce` is told where, once people can come."""
        _log_as_json()
        listening = _listen(self.host, self.port)
        registry = CollectorRegistry()
        registry.register(Told(self.database, now))
        with exposition.listening(self.metrics, registry, "--metrics") as where:
            self._serve(listening, where, announce)
        return 0

    def _serve(self, listening: socket.socket, metrics: str | None, announce: Callable[[str], None]) -> None:
        url = f"{'https' if self.certificate else 'http'}://{self.host}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            self._app(lambda: self._open(url, metrics, announce)),
            log_config=None, access_log=False, server_header=False,
            proxy_headers=False,  # who the other end is, we look at ourselves: `access`
            ssl_certfile=self.certificate, ssl_keyfile=self.key,
            limit_concurrency=500, timeout_graceful_shutdown=10,
        )  # fmt: skip
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn finishes, then raises again what stopped it
        uvicorn.Server(config).run(sockets=[listening])

    def _open(self, url: str, metrics: str | None, announce: Callable[[str], None]) -> None:
        if self.ready_file:
            fresh = self.ready_file.with_name(f".{self.ready_file.name}.{os.getpid()}")
            fresh.write_text(json.dumps({"url": url, "pid": os.getpid(), "metrics": metrics}), encoding="utf-8")
            fresh.rename(self.ready_file)
        announce(url)

    def _app(self, opened: Callable[[], None]) -> Starlette:
        queue = ReviewQueue(self.database, lease=self.lease, hold=self.hold)
        page = Page(database=self.database, queue=queue, access=self.access, logins=Logins(self.database), clock=now)

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            delivery = asyncio.create_task(_deliver_again_and_again(Outbox(self.database), self.predictions))
            opened()
            yield
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

        return page.app(lifespan)


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)


async def _deliver_again_and_again(outbox: Outbox, predictions: Path) -> None:
    send = send_to(predictions)
    while True:
        pause = _DELIVERY_SECONDS
        try:
            arrived = await asyncio.to_thread(outbox.deliver, send, now())
            if arrived:
                _log.info("labels delivered", count=arrived)
        except ServingError as error:
            pause = _AFTER_FAILURE_SECONDS
            _log.error("labels not delivered", error=str(error))
        except Exception:  # noqa: BLE001  the outermost loop of the delivery: the page goes on, and what did not arrive is tried again
            pause = _AFTER_FAILURE_SECONDS
            _log.exception("labels not delivered")
        await asyncio.sleep(pause)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"Nothing can listen on {host}:{port}: {error.strerror or error}. Name another: --port N, or 0 for a free one."
        ) from error


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
