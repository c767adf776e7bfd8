"""A real HTTP server on loopback that answers what a test says, inside the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from gpuqueue.cluster.access import Access
from gpuqueue.cluster.api import Api

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Api]:
    """The API, as a client sees it, of a server that answers every request with `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with Api(Access(server=f"http://{host}:{port}")) as api:
            yield api
    finally:
        await runner.cleanup()


def status(code: int, reason: str = "", message: str = "") -> web.Response:
    """An answer of the API server that says no."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message or reason}
    return web.json_response(body, status=code)


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Return once `holds()`; raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (what tests wait for has no event of its own)
            await asyncio.sleep(0.001)
