"""The address that Alertmanager posts to: every decision is an answer with its reason, and only an outage is a failure.

Alertmanager sends again what was answered 5xx and forgets for ever what was answered 4xx. So 200 means that each alert of the message was decided
on and written down, whatever was decided; 503 that nothing can be written at the moment; 4xx that sending again would not help (no
token, no message). Starting runs takes longer than an answer may, and is done afterwards by whoever reads the ledger (`triggers.starter`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.triggers import alerts
from mlpipelines.triggers.decide import Cause, Decision
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.metrics import Metrics
from mlpipelines.triggers.tokens import Tokens
from mlserving.errors import Unavailable as DatabaseUnavailable

LARGEST_BODY = 4 * 1024 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the webhook is made of."""

    ledger: Ledger
    facts: Callable[[str], Facts]
    """What is known of a model now; asked under its lock, so it should answer from memory."""
    tokens: Tokens
    woken: Callable[[], None] = lambda: None
    """Called after runs were decided on, so that they are started at once."""
    trouble: Callable[[], str] = lambda: ""
    """Why whoever starts the process should start it anew; empty while all is well."""
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], float] = time.time


def build_app(parts: Parts) -> Starlette:
    """`POST /alerts`, `GET /healthz`, `GET /metrics`."""
    metrics = parts.metrics

    async def post(request: Request) -> Response:
        if not parts.tokens.allow(request.headers.get("authorization")):
            return _refused(metrics, 401, "token", "Send one of the tokens of --token-file as `Authorization: Bearer …`.")
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return _refused(
                metrics, 413, "size", f"A message may have {LARGEST_BODY} bytes; set max_alerts in Alertmanager's webhook_config."
            )
        with metrics.seconds.time():
            return await run_in_threadpool(_answer, parts, metrics, body)

    async def health(_: Request) -> Response:
        trouble = parts.trouble()
        return JSONResponse({"status": trouble or "ok"}, status_code=503 if trouble else 200)

    async def exposed(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/alerts", post, methods=["POST"]), Route("/healthz", health), Route("/metrics", exposed)])


async def _body(request: Request) -> bytes | None:
    """The body; None where it is too large, of which no more than that is read."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > LARGEST_BODY:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _answer(parts: Parts, metrics: Metrics, body: bytes) -> Response:
    try:
        found, unread = alerts.causes(alerts.parse(body))
    except ConfigError as error:
        return _refused(metrics, 400, "no message", str(error))
    try:
        settled = list(zip(found, parts.ledger.settle(found, parts.facts, parts.clock()), strict=True))
    except (Unavailable, DatabaseUnavailable) as error:
        log.error("trigger.unavailable", error=str(error))
        return _refused(metrics, 503, "unavailable", str(error))
    metrics.unread.inc(len(unread))
    for cause, decision in settled:
        metrics.decided(cause, decision)
        level = log.info if decision.starts else log.debug  # the others stand in the ledger: millrace why
        level("trigger.decided", model=cause.model, signal=cause.signal, reason=decision.reason, text=decision.text)
    if any(decision.starts for _, decision in settled):
        parts.woken()
    told = [_told(cause, decision) for cause, decision in settled]
    return JSONResponse({"decisions": told, "unread": [{"fingerprint": each.fingerprint, "why": each.why} for each in unread]})


def _told(cause: Cause, decision: Decision) -> Mapping[str, Any]:
    return {
        "model": cause.model,
        "signal": cause.signal,
        "fingerprint": cause.fingerprint,
        "started": decision.starts,
        "reason": decision.reason,
        "text": decision.text,
        "evidence": decision.evidence,
    }


def _refused(metrics: Metrics, status: int, why: str, text: str) -> Response:
    metrics.refused.labels(why).inc()
    return JSONResponse({"error": text}, status_code=status)
