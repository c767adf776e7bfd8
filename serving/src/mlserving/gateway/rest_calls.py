"""A REST request: which model and verb its path names, what goes on to the model server, and what comes back to the caller."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Final

from mlserving.gateway import calls
from mlserving.gateway.calls import ABOUT, Answer, Call, Refusal
from mlserving.gateway.heads import MODEL_VERSION, OURS, PREDICTION_ID, TRACK
from mlserving.gateway.model_spec import Malformed, Spec, inflated
from mlserving.gateway.rest_backend import QueuedRest, RestAnswer, RestLink

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint
    from mlserving.gateway.relay import Relay
    from mlserving.gateway.rest_server import RestServer

PATH: Final = re.compile(
    r"/v1/models/(?P<name>[^/:?#\s]+)(?:/versions/(?P<version>\d{1,19})|/labels/(?P<label>[^/:?#\s]+))?(?::(?P<verb>predict|classify|regress)|(?P<metadata>/metadata))?"
)
_OF_THE_CONNECTION = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect",
    "content-length", "host", "proxy-connection", "http2-settings",
})  # fmt: skip
_NOT_FOUND = 404


class RestRequest:
    """A request as it was read."""

    __slots__ = ("body", "fields", "keep", "match", "method", "target")

    def __init__(self, method: str, target: str, fields: list[tuple[str, str]], *, keep: bool) -> None:
        self.method, self.target, self.fields, self.keep = method, target, fields, keep
        self.body = b""
        self.match: re.Match[str] | None = None

    def field(self, name: str) -> str:
        """A header's value; empty where it is not there."""
        return next((value for each, value in self.fields if each == name), "")


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
        lines = [f"{self.request.method} {target} HTTP/1.1", f"host: {endpoint.rest_authority}", f"{PREDICTION_ID}: {self.prediction_id}"]
        gone = _named_by_connection(self.request.fields)
        lines += [f"{name}: {value}" for name, value in self.request.fields if name not in gone and name != PREDICTION_ID]
        if self.request.method == "POST":
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def send(self, endpoint: Endpoint) -> None:
        """See Call."""
        endpoint.rest.send(self)

    def withdraw(self) -> None:
        """See Call."""
        upstream, self.upstream = self.upstream, None
        if isinstance(upstream, RestLink | QueuedRest):
            upstream.withdraw()

    def on_answer(self, answer: RestAnswer) -> None:
        """See rest_backend.Waiting. A version that has just been unloaded is asked for by its successor's number, once."""
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
        """See rest_backend.Waiting."""
        self.relay.lost(self, sent=sent, why=why)

    def on_too_much(self) -> None:
        """See rest_backend.Waiting."""
        self.relay.failed(self, calls.NO_MEMORY, "the gateway has no memory left for the answer (limits.buffered_mb)")

    def version_in(self, answer: Answer) -> int:
        """The one that was asked for by its number."""
        return self.asked_version if answer.code != str(_NOT_FOUND) else 0

    def deliver(self, answer: Answer, version: int) -> None:
        """See Call."""
        if self.connection is None:
            self.release()
            return
        assert isinstance(answer, RestAnswer)
        gone = _named_by_connection([(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.fields]) | OURS
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.fields]
        kept = [(name, value) for name, value in fields if name not in gone]
        ours = [(PREDICTION_ID, self.prediction_id), (MODEL_VERSION, str(version)), (TRACK, self.track.track)]
        self.connection.answer(self, answer.status, [*kept, *ours], answer.body)

    def refuse(self, refusal: Refusal, text: str) -> None:
        """See Call."""
        if self.connection is None:
            self.release()
            return
        fields = [("content-type", "application/json"), (PREDICTION_ID, self.prediction_id)]
        self.connection.answer(self, refusal.http, fields, json.dumps({"error": text}).encode())

    def copy(self) -> RestCall:
        """See Call."""
        return RestCall(self.relay, None, self.request)

    def logged_request(self) -> bytes:
        """See Call."""
        return _plain(self.body, self.request.field("content-encoding"), self.relay.most_body)

    def logged_answer(self, answer: Answer) -> bytes:
        """See Call."""
        assert isinstance(answer, RestAnswer)
        encoding = next((value.decode("latin-1") for name, value in answer.fields if name == b"content-encoding"), "")
        return _plain(answer.body, encoding, self.relay.most_body)


def _named_by_connection(fields: list[tuple[str, str]]) -> frozenset[str]:
    """Headers that concern one connection only: those that always do, and those that `Connection` names."""
    for name, value in fields:
        if name == "connection":
            return _OF_THE_CONNECTION | {each.strip().lower() for each in value.split(",")}
    return _OF_THE_CONNECTION


def _plain(body: bytes, encoding: str, most: int) -> bytes:
    if encoding.lower() in {"", "identity"}:
        return body
    if encoding.lower() in {"gzip", "deflate"}:
        return inflated(body, most)
    raise Malformed(f"content-encoding {encoding} cannot be read")
