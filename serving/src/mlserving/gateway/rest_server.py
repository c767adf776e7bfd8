"""REST towards callers: one HTTP/1.1 connection of a client, one request after the other.

What a client sends ahead (pipelining) waits unread, and so does everything while it does not take the answer that it has. A client that is slow,
that sends too much or something that is no HTTP gets an answer that says so, and its connection ends; nobody else notices.
"""

from __future__ import annotations

import asyncio
import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from mlserving.gateway.calls import INVALID, NOT_FOUND, Refusal
from mlserving.gateway.heads import PREDICTION_ID, valid_id
from mlserving.gateway.rest_calls import PATH, RestCall
from mlserving.gateway.rest_reader import MOST_HEAD, Reader, Refused, RestRequest

if TYPE_CHECKING:
    from mlserving.gateway.relay import Relay

LABELS: Final = "/v1/labels"
JSON: Final = b"content-type: application/json\r\n"
METHOD_NOT_ALLOWED: Final = Refusal(12, 405)
TIMEOUT: Final = Refusal(4, 408)
_LOOK_SECONDS = 1.0
_LINGER_SECONDS = 2.0
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_ID: Final = PREDICTION_ID.encode()


class RestServer(asyncio.Protocol):
    """One client's connection."""

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._reader = Reader(relay)
        self._unread = b""
        self._current: RestRequest | None = None
        self._call: RestCall | None = None
        self._waiting_for_labels = False
        self._closing = self._said_close = False
        self._lingering = self._broken = self._reading_paused = False
        self._since = time.monotonic()  # the last step forward: a request's first byte, an answer's last
        self._untaken_since = 0.0
        self._untaken: RestCall | None = None
        """The call whose answer the client has not taken; its bytes count until it has."""
        self._timer: asyncio.TimerHandle | None = None

    # -- the connection ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)  # pause_writing tells of each byte that the kernel does not take
        if not self._relay.admit(self, "rest"):
            self.transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def connection_lost(self, _: Exception | None) -> None:
        """The client is gone."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._relay.connections.discard(self)
        self._reader.close()
        self._unread = b""
        self._taken()
        call, self._call = self._call, None
        if call is not None:
            call.connection = None
            self._relay.cancelled(call)

    def leave(self) -> None:
        """Answer what is under way, and close."""
        self._closing = True
        if self._idle and not self._reader.under_way:
            self.transport.close()

    @property
    def _idle(self) -> bool:
        """Whether nothing that was asked is still to be answered, and every answer is taken."""
        return self._call is None and not self._reader.whole and not self._waiting_for_labels and not self._untaken_since

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._untaken_since = time.monotonic()

    def resume_writing(self) -> None:
        """It has taken all that was written."""
        self._untaken_since = 0.0
        self._taken()
        self._since = time.monotonic()
        self._go_on()

    def _taken(self) -> None:
        call, self._untaken = self._untaken, None
        if call is not None:
            call.release()

    def _look(self) -> None:
        """Every second: a request that does not arrive, a client that reads nothing, a connection that nobody uses."""
        now, limits, reader = time.monotonic(), self._relay.limits, self._reader
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        if self._untaken_since and now - self._untaken_since > limits.answer_seconds:
            self._relay.metrics.cut_off("rest", "answer")
            self.transport.abort()
        elif self._lingering or not self._idle:
            return
        elif reader.in_head and now - self._since > limits.head_seconds:
            self._relay.metrics.cut_off("rest", "head")
            self._refuse(Refused(TIMEOUT, "the request's headers did not arrive in time"))
        elif reader.body_of is not None and now - self._since > limits.body_seconds:
            self._relay.metrics.cut_off("rest", "body")
            self._refuse(Refused(TIMEOUT, "the request did not arrive in time"))
        elif now - self._since > limits.idle_seconds:
            self.transport.close()

    # -- reading ----------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """A part of a request. While one is answered the next is not read."""
        if self._lingering or self._broken or self.transport.is_closing():
            return
        if self._idle:
            self._read(data)
            self._go_on()
            return
        self._unread += data
        if len(self._unread) > MOST_HEAD:
            self.transport.pause_reading()
            self._reading_paused = True

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for an answer."""
        self._closing = True
        return not self._idle

    def _read(self, data: bytes) -> None:
        if not self._reader.under_way:
            self._since = time.monotonic()
        try:
            self._reader.feed(data)
        except Refused as refused:
            self._refuse(refused)
            return
        if self._reader.wants_to_hear_continue and self._idle:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- answering --------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take the requests that are read, one at a time. After the last, close, or read what was sent meanwhile."""
        while self._call is None and not (
            self._waiting_for_labels or self._untaken_since or self._lingering or self.transport.is_closing()
        ):
            if self._reader.whole:
                self._take(self._reader.whole.popleft())
            elif self._said_close or self._broken or (self._closing and not self._reader.under_way):
                self.transport.close()
            elif self._unread:
                data, self._unread = self._unread, b""
                self._read(data)
            elif self._reading_paused:
                self._reading_paused = False
                self.transport.resume_reading()
            else:
                return

    def _take(self, request: RestRequest) -> None:
        self._current = request
        held = len(request.body)
        if wrong := self._wrong(request):
            self._relay.budget.give(held)
            self._relay.refused_early("rest", wrong.refusal)
            self._say(wrong)
            return
        if request.match is None:
            self._waiting_for_labels = True
            self._relay.later(self._store_labels(request))
            return
        call = self._call = RestCall(self._relay, self, request)
        call.arrived = time.perf_counter()
        call.held = held
        call.prediction_id = request.field(_ID)
        self._relay.start(call, None)

    def _wrong(self, request: RestRequest) -> Refused | None:
        """Why a request is not passed on. Notes what its path names; nothing for labels."""
        if request.method not in {b"GET", b"POST"}:
            return Refused(METHOD_NOT_ALLOWED, f"{request.method.decode('latin-1')} is not answered here; there are GET and POST")
        posted = request.method == b"POST"
        path, asks, _ = request.target.partition("?")
        if path == LABELS and posted:
            return None
        method = request.method.decode()
        match = request.match = PATH.fullmatch(path)
        if match is None or (asks and not request.target.isascii()):
            return Refused(
                NOT_FOUND, f"{method} {path[:200]} is not served. Ask POST /v1/models/NAME:predict, GET /v1/models/NAME or POST {LABELS}"
            )
        if posted != bool(match["verb"]):
            return Refused(
                METHOD_NOT_ALLOWED, f"{method} does not fit {path[:200]}: predict, classify and regress are POSTs, the rest are GETs"
            )
        if _ID in request.named and not (sum(name == _ID for name, _ in request.fields) == 1 and valid_id(request.field(_ID))):
            return Refused(INVALID, f"{PREDICTION_ID} is at most 64 of A-Z, a-z, 0-9, _ and -")
        return None

    async def _store_labels(self, request: RestRequest) -> None:
        status, answer = await self._relay.store_labels(request.body)
        self._relay.budget.give(len(request.body))
        self._relay.metrics.unrouted("", "rest", str(status))
        self._waiting_for_labels = False
        if not self.transport.is_closing():
            self._write(status, JSON, answer)
        self._go_on()

    def answer(self, call: RestCall, status: int, lines: bytes, body: bytes) -> None:
        """Answer a call. `lines` are its headers, each with its end."""
        if call is not self._call:
            return
        self._call = None
        self._write(status, lines, body)
        if self._untaken_since:
            self._untaken = call
            return
        call.release()
        if self._closing or self._reader.whole or self._unread:  # not at once: the relay is not through with this call
            asyncio.get_running_loop().call_soon(self._go_on)

    def _say(self, refused: Refused) -> None:
        lines = JSON if refused.refusal is not METHOD_NOT_ALLOWED else JSON + b"allow: GET, POST\r\n"
        self._write(refused.refusal.http, lines, json.dumps({"error": refused.text}).encode())

    def _write(self, status: int, lines: bytes, body: bytes) -> None:
        request, self._current = self._current, None
        if request is None or not request.keep or self._relay.leaving:
            self._closing = True
        first = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
        self._said_close = self._closing
        last = b"close" if self._closing else b"keep-alive"
        shown = b"" if request is not None and request.method == b"HEAD" else body
        self.transport.write(b"%b%bcontent-length: %d\r\nconnection: %b\r\n\r\n%b" % (first, lines, len(body), last, shown))
        self._since = time.monotonic()

    def _refuse(self, refused: Refused) -> None:
        """Answer a request that will not be read to its end. What still comes is thrown away, so that the client sees the answer."""
        self._relay.refused_early("rest", refused.refusal)
        self._reader.forget_body()
        if not self._idle:  # earlier requests are answered first, and then the connection ends
            self._closing = self._broken = True
            return
        self._current, self._closing, self._lingering = None, True, True
        self._say(refused)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.transport.abort)
