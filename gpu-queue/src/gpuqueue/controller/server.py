"""What the controller answers by HTTP: probes and metrics on one port, and for people a read-only API and a page on another.

    /healthz /readyz /metrics                      probes and scrapes; a NetworkPolicy says who reaches them
    /api/v1/queues  /api/v1/queues/NAME            JSON, for whoever may get the GpuQueue
    /api/v1/namespaces/NS/pods/NAME                JSON, for whoever may get the pod
    /  /queues/NAME                                the page; it asks for a token once

A token is what `kubectl create token` prints, or what a proxy in front puts into the Authorization header. The page keeps it in a cookie that
scripts and other sites cannot use. Every replica answers: each has a view of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import jinja2
import msgspec
from aiohttp import web

from gpuqueue.cluster.board import Board
from gpuqueue.cluster.reports import QueueReport, pod_report, queue_report
from gpuqueue.controller.visitors import Visitor, Visitors
from gpuqueue.durations import words_of
from gpuqueue.errors import Refused, Unavailable

_COOKIE = "gpu-queue-token"
_POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_SAFETY = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages:
    """The page's templates."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("gpuqueue.controller", "pages"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        )
        self._templates.filters["duration"] = words_of

    def show(self, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """A page."""
        return web.Response(text=self._templates.get_template(template).render(**values), content_type="text/html", status=status)


class PublicServer:
    """What people reach.

    Args:
        board: the picture now, or None before there is one.
        visitors: who asks and what they may see.
        leader: who leads.
        find: the uid of a pod by namespace and name, as far as heard.
    """

    def __init__(
        self, board: Callable[[], Board | None], visitors: Visitors, leader: Callable[[], str], find: Callable[[str, str], str]
    ) -> None:
        self._board, self._visitors, self._leader, self._find = board, visitors, leader, find
        self._pages = Pages()

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._guard], client_max_size=64 * 1024)
        app.on_response_prepare.append(_make_safe)
        app.router.add_get("/api/v1/queues", self._queues)
        app.router.add_get("/api/v1/queues/{name}", self._queue)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}", self._pod)
        app.router.add_get("/", self._index)
        app.router.add_get("/queues/{name}", self._queue_page)
        app.router.add_get("/login", self._ask)
        app.router.add_post("/login", self._login)
        app.router.add_post("/logout", self._logout)
        app.router.add_get("/style.css", self._style)
        return app

    # -- who asks ----------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        open_to_all = request.path in ("/login", "/logout", "/style.css")
        if not open_to_all:
            try:
                visitor = await self._visitor(request)
            except (Refused, Unavailable):
                return _problem(request, 503, "the API server does not say who you are; try again")
            if visitor is None:
                if request.path.startswith("/api/"):
                    return _problem(request, 401, "send a token the cluster knows: Authorization: Bearer $(kubectl create token NAME)")
                return _redirect("/login")
            request["visitor"] = visitor
        try:
            return await handler(request)
        except web.HTTPException as answer:  # aiohttp's own, such as 404
            return _problem(request, answer.status, answer.reason)
        except (Refused, Unavailable):
            return _problem(request, 503, "the API server does not say what you may see; try again")

    async def _visitor(self, request: web.Request) -> Visitor | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            token = request.cookies.get(_COOKIE, "")
        return await self._visitors.who(token.strip()) if token.strip() else None

    async def _visible(self, request: web.Request) -> list[QueueReport]:
        board = self._board()
        if board is None:
            raise Unavailable("not synchronised yet")
        return [queue_report(board, name) for name in sorted(board.queues) if await self._visitors.may_see_queue(request["visitor"], name)]

    async def _one(self, request: web.Request) -> QueueReport | None:
        board, name = self._board(), request.match_info["name"]
        if board is None:
            raise Unavailable("not synchronised yet")
        if not await self._visitors.may_see_queue(request["visitor"], name) or name not in board.queues:
            return None
        return queue_report(board, name)

    # -- JSON --------------------------------------------------------------------------------------------------------------

    async def _queues(self, request: web.Request) -> web.StreamResponse:
        return _json({"leader": self._leader(), "queues": await self._visible(request)})

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        report = await self._one(request)
        return (
            _json(report)
            if report
            else _problem(request, 404, f"no queue {request.match_info['name']}, or you may not get it: kubectl get gq")
        )

    async def _pod(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        board = self._board()
        if board is None or not await self._visitors.may_see_pod(request["visitor"], namespace, name):
            return _problem(request, 404, f"no pod {namespace}/{name}, or you may not get it")
        return _json(pod_report(board, namespace, name, self._find(namespace, name)))

    # -- the page ----------------------------------------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return self._pages.show("queues.html", queues=await self._visible(request), visitor=request["visitor"].name, leader=self._leader())

    async def _queue_page(self, request: web.Request) -> web.StreamResponse:
        report = await self._one(request)
        if report is None:
            return self._pages.show("missing.html", name=request.match_info["name"], visitor=request["visitor"].name, status=404)
        return self._pages.show("queue.html", queue=report, visitor=request["visitor"].name)

    async def _ask(self, _request: web.Request) -> web.StreamResponse:
        return self._pages.show("login.html", wrong=False)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return _problem(request, 403, "sign in from this page itself")
        token = str((await request.post()).get("token", "")).strip()
        if not token or await self._visitors.who(token) is None:
            return self._pages.show("login.html", wrong=True, status=401)
        response = _redirect("/")
        response.set_cookie(_COOKIE, token, httponly=True, samesite="Strict", secure=request.secure, max_age=3600, path="/")
        return response

    async def _logout(self, _request: web.Request) -> web.StreamResponse:
        response = _redirect("/login")
        response.del_cookie(_COOKIE, path="/")
        return response

    async def _style(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=_STYLE, content_type="text/css", headers={"Cache-Control": "max-age=300"})


def private_app(*, ready: Callable[[], str], alive: Callable[[], str], metrics: Callable[[], bytes]) -> web.Application:
    """Probes and metrics.

    Args:
        ready: why this replica is not ready; empty if it is.
        alive: why it should be started anew; empty if it should not.
        metrics: what a scrape gets.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return _probe(alive())

    async def readyz(_request: web.Request) -> web.Response:
        return _probe(ready())

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return app


async def serve(app: web.Application, address: str, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    """Listen on `host:port`; the caller cleans the runner up."""
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=tls).start()
    return runner


async def _make_safe(_request: web.Request, response: web.StreamResponse) -> None:
    """Whatever is answered, refusals and crashes included."""
    for name, value in _SAFETY.items():
        response.headers.setdefault(name, value)


def _redirect(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


def _probe(trouble: str) -> web.Response:
    return web.Response(text=trouble or "ok", status=503 if trouble else 200)


def _json(thing: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(thing), content_type="application/json")


def _problem(request: web.Request, code: int, text: str) -> web.Response:
    if request.path.startswith("/api/"):
        return web.Response(body=msgspec.json.encode({"error": text}), status=code, content_type="application/json")
    return web.Response(text=text, status=code)


_STYLE = jinja2.PackageLoader("gpuqueue.controller", "pages").get_source(jinja2.Environment(autoescape=True), "style.css")[0]
