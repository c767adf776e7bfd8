"""A REST request: which model and verb its path names, what goes on to the model server, and what comes back to the caller."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Final

from mlserving.gateway import calls
from mlserving.gateway.calls import ABOUT, Answer, Call, Refusal
from mlserving.gateway.heads import OURS, PREDICTION_ID
from mlserving.gateway.model_spec import Malformed, Spec, inflated
from mlserving.gateway.rest_backend import QueuedRest
from mlserving.gateway.rest_link import RestAnswer, RestLink
from mlserving.gateway.rest_reader import RestRequest

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint
    from mlserving.gateway.relay import Relay
    from mlserving.gateway.rest_server import RestServer

PATH: Final = re.compile(
    r"/v1/models/(?P<name>[^/:?#\s]+)(?:/versions/(?P<version>\d{1,19})|/labels/(?P<label>[^/:?#\s]+))?(?::(?P<verb>predict|classify|regress)|(?P<metadata>/metadata))?"
)
_OF_ONE_CONNECTION: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
    b"content-length", b"host", b"proxy-connection", b"http2-settings",
})  # fmt: skip
"""Headers that concern one connection only, and those that are written anew."""
_FROM_CALLERS: Final = _OF_ONE_CONNECTION | {PREDICTION_ID.encode()}
_FROM_SERVERS: Final = _OF_ONE_CONNECTION | {name.encode() for name in OURS}
_NOT_FOUND = 404


class RestCall(Call):
    """A call that came by REST and goes on by REST."""

    __slots__ = ("asked_version", "connection", "refreshed", "request")
    protocol = "rest"

    def __init__(self, relay: Relay, connection: RestServer | None, request: RestRequest) -> None:
        match = request.match
        assert match is not None
        verb = match["verb"] or ("metadata" if match["metadata"] else "status")
        super().__init__(relay, verb, Spec(match["name"], int(match["version"] or 0), match["label"] or ""), request.body)
        self.connection, self.request = connection, request
        self.asked_version = 0
        self.refreshed = False

    def wire(self, endpoint: Endpoint) -> bytes:
        """The request for `endpoint`. Where the caller names no version, the one that it serves is named."""
        self.sent_at = time.perf_counter()
        target = self.request.target
        if self.method not in ABOUT and not self.spec.version and not self.spec.label:
            self.asked_version = endpoint.version
            target = f"/v1/models/{self.spec.name}/versions/{endpoint.version}:{self.method}"
        else:
            self.asked_version = self.spec.version
        request, body = self.request, self.body
        return b"%b %b HTTP/1.1\r\nhost: %b\r\nx-prediction-id: %b\r\n%b%b\r\n%b" % (
            request.method, target.encode("latin-1"), endpoint.rest_authority, self.prediction_id.encode(), passed_on(request.fields, _FROM_CALLERS),
            b"content-length: %d\r\n" % len(body) if request.method == b"POST" else b"", body,
        )  # fmt: skip

    def send(self, endpoint: Endpoint) -> None:
        """See Call."""
        endpoint.rest.send(self)

    def withdraw(self) -> None:
        """See Call."""
        upstream, self.upstream = self.upstream, None
        if isinstance(upstream, RestLink | QueuedRest):
            upstream.withdraw()

    def on_answer(self, answer: RestAnswer) -> None:
        """See rest_link.Waiting. A version that has just been unloaded is asked for by its successor's number, once."""
        mine = self.asked_version and not self.spec.version
        if answer.status == _NOT_FOUND and mine and not self.refreshed and self.endpoint is not None and not self.done:
            self.refreshed = True
            self.relay.later(self._ask_again(self.endpoint, answer))
            return
        self.relay.answered(self, answer)

    async def _ask_again(self, endpoint: Endpoint, answer: RestAnswer) -> None:
        before = self.asked_version
        await endpoint.refreshed()
        if self.done:
            return
        if endpoint.version in {before, 0}:
            self.relay.answered(self, answer)
        else:
            endpoint.rest.send(self)

    def on_lost(self, *, sent: bool, why: str) -> None:
        """See rest_link.Waiting."""
        self.relay.lost(self, sent=sent, why=why)

    def on_too_much(self) -> None:
        """See rest_link.Waiting."""
        self.relay.failed(self, calls.NO_MEMORY, "the gateway has no memory left for the answer (limits.buffered_mb)")

    def version_in(self, answer: Answer) -> int:
        """The one that was asked for by its number."""
        assert isinstance(answer, RestAnswer)
        return self.asked_version if answer.status != _NOT_FOUND else 0

    def header(self, name: str) -> str:
        """See Call."""
        return self.request.field(name.encode())

    def deliver(self, answer: Answer, version: int) -> None:
        """See Call."""
        if self.connection is None:
            self.release()
            return
        assert isinstance(answer, RestAnswer)
        lines = b"%bx-prediction-id: %b\r\nx-model-version: %d\r\nx-track: %b\r\n" % (
            passed_on(answer.fields, _FROM_SERVERS), self.prediction_id.encode(), version, self.track.track.encode()
        )  # fmt: skip
        self.connection.answer(self, answer.status, lines, answer.body)

    def refuse(self, refusal: Refusal, text: str) -> None:
        """See Call."""
        if self.connection is None:
            self.release()
            return
        lines = b"content-type: application/json\r\nx-prediction-id: %b\r\n" % self.prediction_id.encode()
        self.connection.answer(self, refusal.http, lines, json.dumps({"error": text}).encode())

    def copy(self) -> RestCall:
        """See Call."""
        return RestCall(self.relay, None, self.request)

    def logged_request(self) -> bytes:
        """See Call."""
        return _plain(self.body, self.request.field(b"content-encoding"), self.relay.most_body)

    def logged_answer(self, answer: Answer) -> bytes:
        """See Call."""
        assert isinstance(answer, RestAnswer)
        encoding = next((value.decode("latin-1") for name, value in answer.fields if name == b"content-encoding"), "")
        return _plain(answer.body, encoding, self.relay.most_body)


def passed_on(fields: list[tuple[bytes, bytes]], gone: frozenset[bytes]) -> bytes:
    """The lines of the headers that go on to the other side: none of `gone`, and none that `Connection` names."""
    for name, value in fields:
        if name == b"connection":
            gone |= {each.strip().lower() for each in value.split(b",")}
    return b"".join([b"%b: %b\r\n" % field for field in fields if field[0] not in gone])


def _plain(body: bytes, encoding: str, most: int) -> bytes:
    if encoding.lower() in {"", "identity"}:
        return body
    if encoding.lower() in {"gzip", "deflate"}:
        return inflated(body, most)
    raise Malformed(f"content-encoding {encoding} cannot be read")
