"""REST towards callers: one HTTP/1.1 connection of a client, one request after the other.

What a client sends ahead (pipelining) waits unread. A client that is slow, that sends too much or something that is no HTTP gets an answer that says
so, and its connection ends; nobody else notices.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from mlserving.gateway.calls import INVALID, NO_MEMORY, NOT_FOUND, TOO_LARGE, Refusal
from mlserving.gateway.grpc_server import STALL_SECONDS, UPLOAD_SECONDS
from mlserving.gateway.heads import PREDICTION_ID, valid_id
from mlserving.gateway.rest_calls import PATH, RestCall, RestRequest

if TYPE_CHECKING:
    from mlserving.gateway.relay import Relay

HEADER_SECONDS = 10.0
"""How long a request's line and headers may take to arrive."""
IDLE_SECONDS = 75.0
"""How long a connection is kept without a request."""
MOST_HEAD = 32_768
"""Bytes of a request's line and headers."""
LABELS = "/v1/labels"
_LOOK_SECONDS = 1.0
_LINGER_SECONDS = 2.0
_WRITE_BUFFER = 512 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus}

METHOD_NOT_ALLOWED = Refusal(12, 405)
TIMEOUT = Refusal(4, 408)
HEADERS_TOO_LARGE = Refusal(8, 431)


class _Refused(Exception):
    """Ends the reading of a request."""


class RestServer(asyncio.Protocol):
    """One client's connection."""

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[RestRequest] = deque()
        self._current: RestRequest | None = None
        self._call: RestCall | None = None
        self._waiting_for_labels = False
        self._reading: RestRequest | None = None
        self._unread = b""
        self._closing = False
        self._lingering = self._broken = False
        self._since = time.monotonic()  # the last step forward: a request's first byte, an answer's last
        self._in_head = False
        self._timer: asyncio.TimerHandle | None = None
        self._pause = 0.0
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._fields: list[tuple[str, str]] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._head_size = self._counted = 0
        self._held = 0

    # -- the connection ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        self._relay.connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def connection_lost(self, _: Exception | None) -> None:
        """The client is gone."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._relay.connections.discard(self)
        self._relay.budget.give(self._held + sum(len(each.body) for each in self._queue))
        self._held = 0
        self._queue.clear()
        call, self._call = self._call, None
        if call is not None:
            call.connection = None
            self._relay.cancelled(call)

    def leave(self) -> None:
        """Answer what is under way, and close."""
        self._closing = True
        if self._idle and not self._target:
            self.transport.close()

    @property
    def _idle(self) -> bool:
        return self._call is None and not self._queue and not self._waiting_for_labels

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._pause = time.monotonic()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._pause = 0.0

    def _look(self) -> None:
        """Every second: a request that does not arrive, a client that reads nothing, a connection that nobody uses."""
        now = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        if self._pause and now - self._pause > STALL_SECONDS:
            self.transport.abort()
        elif self._lingering or not self._idle:
            return
        elif self._in_head and now - self._since > HEADER_SECONDS:
            self._refuse(TIMEOUT, "the request's headers did not arrive in time")
        elif self._reading is not None and now - self._since > UPLOAD_SECONDS:
            self._refuse(TIMEOUT, "the request did not arrive in time")
        elif now - self._since > IDLE_SECONDS:
            self.transport.close()

    # -- reading ----------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """A part of a request. While one is answered the next is not read."""
        if self._lingering or self._broken or self.transport.is_closing():
            return
        if not self._idle:
            self._unread += data
            if len(self._unread) > MOST_HEAD:
                self.transport.pause_reading()
            return
        self._read(data)

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for an answer."""
        self._closing = True
        return not self._idle

    def _read(self, data: bytes) -> None:
        if self._reading is None:
            if not self._in_head:
                self._in_head, self._since = True, time.monotonic()
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                raise
        except httptools.HttpParserUpgrade:
            self._refuse(INVALID, "this port speaks HTTP/1.1 and upgrades to nothing")
        except httptools.HttpParserError as error:
            self._refuse(INVALID, f"this is no HTTP/1.1 request: {error}")
        else:
            if self._head_size > MOST_HEAD and self._reading is None and not self._queue:
                self._refuse(HEADERS_TOO_LARGE, f"the request's line and headers are longer than {MOST_HEAD} bytes")
        self._next()

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))
        self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > MOST_HEAD:
            self._stop(HEADERS_TOO_LARGE, f"the request's line and headers are longer than {MOST_HEAD} bytes")

    def on_headers_complete(self) -> None:
        """The body follows, if it may."""
        self._in_head, self._head_size = False, 0
        method = self._parser.get_method().decode("latin-1")
        request = RestRequest(method, self._target.decode("latin-1"), self._fields, keep=self._parser.should_keep_alive())
        self._reading = request
        if self._parser.should_upgrade():
            self._stop(INVALID, "this port speaks HTTP/1.1 and upgrades to nothing")
        if self._parser.get_http_version() not in {"1.0", "1.1"}:
            self._stop(INVALID, "this port speaks HTTP/1.1")
        length = request.field("content-length")
        if length.isdigit() and int(length) > self._relay.most_body:
            self._stop(TOO_LARGE, self._too_large())
        if self._queue or not self._idle:
            return
        if request.field("expect").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._chunks.append(data)
        self._size += len(data)
        self._held += len(data)
        roomy = self._relay.budget.take(len(data))
        if self._size > self._relay.most_body:
            self._stop(TOO_LARGE, self._too_large())
        if not roomy:
            self._stop(NO_MEMORY, "the gateway has no memory left for the request (limits.buffered_mb)")

    def on_message_complete(self) -> None:
        """A request is whole."""
        request, self._reading = self._reading, None
        assert request is not None
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._held = 0  # counted by who takes the request
        self._begin()
        self._queue.append(request)

    def _too_large(self) -> str:
        return f"the request is larger than {self._relay.most_body} bytes (limits.body_mb)"

    # -- answering --------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Take the next request, if none is being answered."""
        while self._queue and self._call is None and not self._waiting_for_labels and not self._lingering:
            self._take(self._queue.popleft())

    def _take(self, request: RestRequest) -> None:
        self._current = request
        held = len(request.body)
        if refusal := self._wrong(request):
            self._relay.budget.give(held)
            self._relay.refused_early("rest", refusal[0])
            self._say(refusal[0], refusal[1])
            return
        if request.target.partition("?")[0] == LABELS:
            self._waiting_for_labels = True
            self._relay.later(self._store_labels(request))
            return
        call = self._call = RestCall(self._relay, self, request)
        call.arrived = time.perf_counter()
        call.held = held
        call.prediction_id = request.field(PREDICTION_ID)
        self._relay.start(call, None, dict(request.fields))

    def _wrong(self, request: RestRequest) -> tuple[Refusal, str] | None:
        """Why a request is not passed on."""
        if request.method not in {"GET", "POST"}:
            return METHOD_NOT_ALLOWED, f"{request.method} is not answered here; there are GET and POST"
        path = request.target.partition("?")[0]
        if path == LABELS and request.method == "POST":
            return None
        request.match = PATH.fullmatch(path)
        if request.match is None or ("?" in request.target and not request.target.isascii()):
            return (
                NOT_FOUND,
                f"{request.method} {path[:200]} is not served. Ask POST /v1/models/NAME:predict, GET /v1/models/NAME or POST {LABELS}",
            )
        if (request.method == "POST") != bool(request.match["verb"]):
            return (
                METHOD_NOT_ALLOWED,
                f"{request.method} does not fit {path[:200]}: predict, classify and regress are POSTs, the rest are GETs",
            )
        identity = [value for name, value in request.fields if name == PREDICTION_ID]
        if identity and (len(identity) > 1 or not valid_id(identity[0])):
            return INVALID, f"{PREDICTION_ID} is at most 64 of A-Z, a-z, 0-9, _ and -"
        return None

    async def _store_labels(self, request: RestRequest) -> None:
        status, answer = await self._relay.store_labels(request.body)
        self._relay.budget.give(len(request.body))
        self._relay.metrics.unrouted("", "rest", str(status))
        if not self.transport.is_closing():
            self._write(status, [("content-type", "application/json")], answer)
        self._waiting_for_labels = False
        self._answered()

    def answer(self, call: RestCall, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        """Answer a call."""
        if call is self._call:
            self._call = None
            self._write(status, fields, body)
            call.release()
            asyncio.get_running_loop().call_soon(self._answered)

    def _say(self, refusal: Refusal, text: str) -> None:
        fields = [("content-type", "application/json")]
        if refusal is METHOD_NOT_ALLOWED:
            fields.append(("allow", "GET, POST"))
        self._write(refusal.http, fields, json.dumps({"error": text}).encode())
        self._answered()

    def _write(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        request, self._current = self._current, None
        if request is None or not request.keep or self._relay.leaving:
            self._closing = True
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in fields)]
        lines.append(f"content-length: {len(body)}")
        lines.append("connection: close" if self._closing else "connection: keep-alive")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        self.transport.write(head if request is not None and request.method == "HEAD" else head + body)
        self._since = time.monotonic()

    def _answered(self) -> None:
        """An answer is written: go on with what was sent meanwhile, or close."""
        if self.transport.is_closing() or self._lingering or not (self._call is None and not self._waiting_for_labels):
            return
        if self._queue:
            self._next()
            return
        if self._closing:
            self.transport.close()
            return
        data, self._unread = self._unread, b""
        self.transport.resume_reading()
        if data:
            self._read(data)

    def _stop(self, refusal: Refusal, text: str) -> None:
        """Refuse from inside the parser."""
        self._refuse(refusal, text)
        raise _Refused

    def _refuse(self, refusal: Refusal, text: str) -> None:
        """Answer a request that will not be read to its end. What still comes is thrown away, so that the client sees the answer."""
        self._relay.refused_early("rest", refusal)
        self._relay.budget.give(self._held)
        self._held = 0
        self._chunks = []
        if self._queue or not self._idle:  # earlier requests are answered first, and then the connection ends
            self._closing = self._broken = True
            return
        self._current, self._closing, self._lingering = None, True, True
        self._write(refusal.http, [("content-type", "application/json")], json.dumps({"error": text}).encode())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.transport.abort)
