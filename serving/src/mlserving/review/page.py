"""The page on which people review: one case at a time, by keyboard alone if they like, with or without scripts.

    /                            the models, and what is left of each
    /models/M                    the case that the reader holds, or the next one
    /models/M/review  /undo      what they say of it (POST)
    /models/M/figures            progress and agreement
    /login  /logout  /healthz

Whatever is answered forbids scripts, styles and frames that are not ours. A form is answered by a redirect, so reloading a page repeats nothing.
Who asks is `access`'s to say, what they may have `queue`'s; here is only the way from a request to a template.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mlserving.errors import ConfigError, Conflict, ServingError
from mlserving.review import figures as figures_of
from mlserving.review.access import Access, Logins, Visitor, address_of
from mlserving.review.cases import Verdict, clean_label
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database
from mlserving.review.views import NOTES, render, show_case

_LARGEST_FORM = 16 * 1024
_MOST_FIELDS = 20
_SEAT = re.compile(r"[0-9]{1,18}")
_SAFETY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # browsers name the origin of a form only where this allows it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_HASHING = anyio.CapacityLimiter(2)
"""Hashes at a time: each takes 16 MiB and a tenth of a second, and strangers may ask for them."""
_ASSETS = {"style.css": "text/css", "review.js": "text/javascript"}

Answer = Callable[["Page", Request, Visitor], Awaitable[Response]]
_log = structlog.get_logger("review")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the page is made of."""

    database: Database
    queue: ReviewQueue
    access: Access
    logins: Logins
    clock: Callable[[], datetime]

    def app(self, lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]] | None = None) -> Starlette:
        """The ASGI application. `lifespan` is what runs beside it."""
        routes = [
            Route("/", self._signed_in(_models)),
            Route("/models/{model}", self._signed_in(_case)),
            Route("/models/{model}/review", self._signed_in(_review), methods=["POST"]),
            Route("/models/{model}/undo", self._signed_in(_undo), methods=["POST"]),
            Route("/models/{model}/figures", self._signed_in(_figures)),
            Route("/login", self._open(_ask_who), methods=["GET"]),
            Route("/login", self._open(_login), methods=["POST"]),
            Route("/logout", self._signed_in(_logout), methods=["POST"]),
            Route("/healthz", self._open(_health)),
            Route("/static/{name}", self._open(_asset)),
        ]
        refusals = {HTTPException: _refusal, ServingError: _refusal, Exception: _refusal}
        return Starlette(routes=routes, exception_handlers=refusals, lifespan=lifespan)

    def _signed_in(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            visitor = await run_in_threadpool(self.access.visitor, request)
            if visitor is None:
                where = quote(request.url.path if request.method == "GET" else request.url.path.rpartition("/")[0] or "/")
                note = "&note=over" if self.access.cookie_name(request) in request.cookies else ""
                return safe(_go(f"/login?next={where}{note}"))
            if request.method == "POST":
                request.state.form = await self._own_form(request, visitor)
            return safe(await answer(self, request, visitor))

        return answered

    def _open(self, answer: Callable[[Page, Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            return safe(await answer(self, request))

        return answered

    async def _own_form(self, request: Request, visitor: Visitor) -> dict[str, str]:
        form = await _form(request)
        if not self.access.is_own_site(request) or not self.access.is_own_form(visitor, form.get("form", "")):
            _log.warning("form refused", person=visitor.person.name, address=address_of(request), path=request.url.path)
            raise HTTPException(
                403, "This form was not sent from a page that you opened here, or the page was open for too long. Nothing was saved."
            )
        return form


async def _models(page: Page, _request: Request, visitor: Visitor) -> Response:
    def look() -> list[dict[str, Any]]:
        now = page.clock()
        return [
            {
                "name": model,
                "left": page.queue.left(model, visitor.person, now),
                "done": page.queue.done_since(model, visitor.person, _midnight(now)),
            }
            for model in page.queue.models()
        ]

    return render("models.html", models=await run_in_threadpool(look), **_about(page, visitor))


async def _case(page: Page, request: Request, visitor: Visitor) -> Response:
    return await _next_case(page, request, visitor, note=NOTES.get(request.query_params.get("note", "")))


async def _next_case(page: Page, request: Request, visitor: Visitor, *, status: int = 200, **shown: Any) -> Response:
    model = await _known_model(page, request)

    def look() -> dict[str, Any]:
        now = page.clock()
        case = page.queue.claim(model, visitor.person, now)
        return {
            "case": show_case(case) if case else None,
            "classes": page.queue.classes(model),
            "left": page.queue.left(model, visitor.person, now),
            "done": page.queue.done_since(model, visitor.person, _midnight(now)),
        }

    found = await run_in_threadpool(look)
    template = "case.html" if found["case"] else "nothing.html"
    return render(template, status=status, model=model, **found, **shown, **_about(page, visitor))


async def _review(page: Page, request: Request, visitor: Visitor) -> Response:
    model, form = await _known_model(page, request), request.state.form
    seat, verdict = form.get("seat", ""), form.get("verdict", "")
    if not _SEAT.fullmatch(seat) or verdict not in {Verdict.CONFIRM, Verdict.CORRECT, Verdict.UNSURE, Verdict.SKIP}:
        raise HTTPException(400, "This form is not one of ours. Nothing was saved.")
    label = form.get("label")
    if verdict == Verdict.CORRECT:
        known = await run_in_threadpool(page.queue.classes, model)
        label = _spelt_as_known(label or "", known)
        if label and label not in known and form.get("new") != label:
            return await _next_case(page, request, visitor, new_class=label)
    try:
        kept = await run_in_threadpool(page.queue.review, int(seat), visitor.person, Verdict(verdict), label, page.clock())
    except ConfigError as error:
        return await _next_case(page, request, visitor, wrong=str(error), status=400)
    except Conflict as conflict:
        return await _next_case(page, request, visitor, note=str(conflict), status=409)
    _log.info("review", person=visitor.person.name, model=model, seat=int(seat), verdict=str(kept))
    return _go(f"/models/{quote(model)}?note={kept}")


async def _undo(page: Page, request: Request, visitor: Visitor) -> Response:
    model = await _known_model(page, request)
    try:
        undone = await run_in_threadpool(page.queue.undo, model, visitor.person, page.clock())
    except Conflict as conflict:
        return await _next_case(page, request, visitor, note=str(conflict), status=409)
    _log.info("undo", person=visitor.person.name, model=model, undone=undone)
    return _go(f"/models/{quote(model)}?note={'undo' if undone else 'nothing'}")


async def _figures(page: Page, request: Request, visitor: Visitor) -> Response:
    model = await _known_model(page, request)
    found = await run_in_threadpool(figures_of.figures, page.database, model, page.clock())
    return render("figures.html", model=model, figures=found, **_about(page, visitor))


async def _ask_who(page: Page, request: Request) -> Response:
    if await run_in_threadpool(page.access.visitor, request):
        return _go(_inside(request.query_params.get("next", "/")))
    return render("login.html", next=_inside(request.query_params.get("next", "/")), note=NOTES.get(request.query_params.get("note", "")))


async def _login(page: Page, request: Request) -> Response:
    form = await _form(request)
    if not page.access.is_own_site(request):
        raise HTTPException(403, "Sign in from this page itself.")
    name, token, where = _name(form.get("name", "")), form.get("token", "").strip(), _inside(form.get("next", "/"))
    address, now = address_of(request), page.clock()
    if await run_in_threadpool(page.logins.too_many, name, address, now):
        _log.warning("login refused", name=name, address=address, why="too many")
        refused = render("login.html", next=where, note=NOTES["too-many"], name=name, status=429)
        refused.headers["Retry-After"] = "300"
        return refused
    accepted = await anyio.to_thread.run_sync(page.access.people.knows, name, token, limiter=_HASHING)
    await run_in_threadpool(page.logins.note, name, address, accepted, now)
    _log.info("login" if accepted else "login refused", name=name, address=address)
    if not accepted:
        return render("login.html", next=where, note=NOTES["wrong"], name=name, status=401)
    answer = _go(where)
    answer.set_cookie(  # without an age: the cookie outlives its session, so that whoever comes back is told why they have to sign in
        page.access.cookie_name(request), page.access.session(name), path="/", httponly=True, samesite="lax",
        secure=page.access.is_encrypted(request),
    )  # fmt: skip
    return answer


async def _logout(page: Page, request: Request, visitor: Visitor) -> Response:
    for model in await run_in_threadpool(page.queue.models):
        await run_in_threadpool(page.queue.release, model, visitor.person)
    _log.info("logout", person=visitor.person.name)
    answer = _go("/login?note=out")
    answer.delete_cookie(
        page.access.cookie_name(request), path="/", httponly=True, samesite="lax", secure=page.access.is_encrypted(request)
    )
    return answer


async def _health(page: Page, _request: Request) -> Response:
    await run_in_threadpool(page.queue.models)
    return Response("ok", media_type="text/plain")


async def _asset(_page: Page, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "There is no such page.")
    text = (files("mlserving.review") / "pages" / name).read_text(encoding="utf-8")
    return Response(text, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=300"})


async def _refusal(_request: Request, error: Exception) -> Response:
    """What was foreseen is said; a bug is logged with its traceback by the server, and hidden."""
    status, text = 500, "Something broke. It is in the server's log."
    if isinstance(error, HTTPException):
        status, text = error.status_code, error.detail
    elif isinstance(error, ServingError):
        status, text = 503, "The database does not answer just now. Nothing was saved; try again in a moment."
        _log.error("unavailable", error=str(error))
    return safe(render("problem.html", text=text, status=status))


def safe(response: Response) -> Response:
    """With the headers that every answer has."""
    for name, value in _SAFETY.items():
        response.headers.setdefault(name, value)
    return response


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "That is more than a form of ours holds.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, strict_parsing=bool(body)))
    except ValueError as error:
        raise HTTPException(400, "This form is not one of ours. Nothing was saved.") from error


async def _known_model(page: Page, request: Request) -> str:
    model: str = request.path_params["model"]
    if model not in await run_in_threadpool(page.queue.models):
        raise HTTPException(404, f"Nothing of {model!r} is to be reviewed.")
    return model


def _about(page: Page, visitor: Visitor) -> dict[str, Any]:
    return {"person": visitor.person, "form": page.access.form(visitor), "through_proxy": visitor.session == "proxy"}


def _midnight(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def _name(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()[:100]


def _inside(path: str) -> str:
    """A path of this page: nobody is led elsewhere from a sign-in."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _spelt_as_known(label: str, known: list[str]) -> str:
    label = clean_label(label)
    return label if label in known else next((each for each in known if each.casefold() == label.casefold()), label)


def _go(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303)
