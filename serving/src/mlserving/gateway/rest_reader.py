"""Reading REST: what comes on one HTTP/1.1 connection becomes whole requests, and what may not be read is refused before it is.

Bytes stay bytes: most headers are passed on and never looked at. Knows nothing of sockets and answers; `rest_server` has those.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final

import httptools

from mlserving.gateway.calls import INVALID, NO_MEMORY, TOO_LARGE, Refusal

if TYPE_CHECKING:
    from mlserving.gateway.relay import Relay

MOST_HEAD: Final = 32_768
"""Bytes of a request's line and headers."""
HEADERS_TOO_LARGE: Final = Refusal(8, 431)

_NO_UPGRADE = "this port speaks HTTP/1.1 and upgrades to nothing"


class Refused(Exception):
    """What comes will not be read to its end."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal, self.text = refusal, text


class RestRequest:
    """A request as it was read. Names of headers are in lower case."""

    __slots__ = ("body", "fields", "keep", "match", "method", "named", "target")

    def __init__(self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], named: dict[bytes, bytes], *, keep: bool) -> None:
        self.method, self.target, self.keep = method, target.decode("latin-1"), keep
        self.fields = fields
        """All headers, in their order."""
        self.named = named
        """The last header of each name."""
        self.body = b""
        self.match: re.Match[str] | None = None

    def field(self, name: bytes) -> str:
        """A header's value; empty where it is not there."""
        return self.named.get(name, b"").decode("latin-1")


class Reader:
    """The requests of one connection. The methods `on_…` are httptools' callbacks."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._parser = httptools.HttpRequestParser(self)
        self.whole: deque[RestRequest] = deque()
        """Requests that are read and not taken yet."""
        self.in_head = False
        """Whether a request's line and headers have begun and are not whole."""
        self.body_of: RestRequest | None = None
        """The request whose body is arriving."""
        self.held = 0
        """Bytes of that body, which count against the memory."""
        self._head_size = 0  # bytes that came before the headers were whole
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._named: dict[bytes, bytes] = {}
        self._counted = 0  # bytes of the headers themselves
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Read what came.

        Raises:
            Refused: it is no HTTP, or more than may be. Nothing that comes after it can be read.
        """
        if self.body_of is None:
            self.in_head = True
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            refused = error.__context__
            if isinstance(refused, Refused):
                raise refused from None
            raise
        except httptools.HttpParserUpgrade:
            raise Refused(INVALID, _NO_UPGRADE) from None
        except httptools.HttpParserError as error:
            raise Refused(INVALID, f"this is no HTTP/1.1 request: {error}") from error
        if self._head_size > MOST_HEAD and self.body_of is None and not self.whole:
            raise _too_long()

    @property
    def under_way(self) -> bool:
        """Whether a part of a request has come and the rest has not."""
        return self.in_head or self.body_of is not None

    @property
    def wants_to_hear_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body (Expect: 100-continue)."""
        return self.body_of is not None and not self.held and self.body_of.field(b"expect").lower() == "100-continue"

    def forget_body(self) -> None:
        """What was read of the request that is under way is not wanted any more."""
        self._relay.budget.give(self.held)
        self.held = 0
        self._chunks = []

    def close(self) -> None:
        """Nothing of what was read is wanted any more, and nothing comes."""
        self.forget_body()
        self._relay.budget.give(sum(len(each.body) for each in self.whole))
        self.whole.clear()
        del self._parser  # which holds us: with it, nothing of this would go before the garbage collector came

    # -- what the parser tells --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Its first byte."""
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name, value = name.lower(), value.strip()
        self._fields.append((name, value))
        self._named[name] = value
        self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > MOST_HEAD:
            raise _too_long()

    def on_headers_complete(self) -> None:
        """The body follows, if it may."""
        self.in_head, self._head_size = False, 0
        parser = self._parser
        self.body_of = RestRequest(parser.get_method(), self._target, self._fields, self._named, keep=parser.should_keep_alive())
        if parser.should_upgrade():
            raise Refused(INVALID, _NO_UPGRADE)
        if parser.get_http_version() not in {"1.0", "1.1"}:
            raise Refused(INVALID, "this port speaks HTTP/1.1")
        length = self._named.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._relay.most_body:
            raise self._too_large()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._chunks.append(data)
        self.held += len(data)
        roomy = self._relay.budget.take(len(data))
        if self.held > self._relay.most_body:
            raise self._too_large()
        if not roomy:
            raise Refused(NO_MEMORY, "the gateway has no memory left for the request (limits.buffered_mb)")

    def on_message_complete(self) -> None:
        """A request is whole. Whoever takes it counts its body from now on."""
        request, self.body_of = self.body_of, None
        assert request is not None
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.held = 0
        self._begin()
        self.whole.append(request)

    def _too_large(self) -> Refused:
        return Refused(TOO_LARGE, f"the request is larger than {self._relay.most_body} bytes (limits.body_mb)")


def _too_long() -> Refused:
    return Refused(HEADERS_TOO_LARGE, f"the request's line and headers are longer than {MOST_HEAD} bytes")
