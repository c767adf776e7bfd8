"""The admin port: metrics, whether we are alive and ready, and what is in force. For the cluster and its people, not for callers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from mlserving.gateway.service import Gateway
    from mlserving.gateway.tracks import ModelInForce, TrackInForce

_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.asynccontextmanager
async def serving(listening: socket.socket, gateway: Gateway) -> AsyncIterator[None]:
    """Answer on `listening` while the context lasts."""
    registry = CollectorRegistry()
    registry.register(gateway.metrics)
    ProcessCollector(registry=registry)  # when the process began: what it has counted is since then, which `millrace rollout` must know

    async def metrics(_: web.Request) -> web.Response:
        gateway.count_connections()
        return web.Response(body=generate_latest(registry) + gateway.recorder.exposition(), headers={"Content-Type": _TEXT_FORMAT})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if gateway.ready else web.Response(status=503, text="not ready\n")

    async def tracks(_: web.Request) -> web.Response:
        return web.json_response(in_force(gateway))

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/tracks", tracks)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()


def in_force(gateway: Gateway) -> dict[str, Any]:
    """What `/tracks` tells."""
    return {
        "config": {"source": gateway.source_name, "hash": gateway.config_hash, "error": gateway.config_error or None},
        "ready": gateway.ready,
        "models": {name: _model(model) for name, model in sorted(gateway.fleet.models.items())},
    }


def _model(model: ModelInForce) -> dict[str, Any]:
    settings = model.settings
    return {
        "sticky": settings.sticky,
        "deadline": settings.deadline,
        "log_share": settings.log.share,
        "tracks": {name: _track(track) for name, track in model.tracks.items()},
    }


def _track(track: TrackInForce) -> dict[str, Any]:
    return {
        "grpc": track.backend.grpc,
        "rest": track.backend.rest,
        "weight": track.backend.weight,
        "in_flight": track.in_flight,
        "endpoints": [
            {
                "address": str(each.address),
                "up": each.up,
                "version": each.version,
                "versions": list(each.versions),
                "in_flight": each.in_flight,
                "why": None if each.up else each.why or "it serves no version of the model",
            }
            for each in track.endpoints
        ],
    }
