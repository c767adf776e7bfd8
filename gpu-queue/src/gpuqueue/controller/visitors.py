"""Who is asking, and what they may see: both are the API server's to say (TokenReview, SubjectAccessReview), remembered for half a minute.

A queue is shown to whoever may `get` that GpuQueue; a pod to whoever may `get` that pod.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gpuqueue.cluster.api import Api, decoded
from gpuqueue.labels import DOMAIN

_SECONDS = 30.0
_MOST = 10_000


class _User(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody whom the API server knows."""

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...]


class Visitors:
    """Asks the API server about people."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[Any, tuple[float, Any]] = {}

    async def who(self, token: str) -> Visitor | None:
        """Whose token it is; None if the API server does not accept it.

        Raises:
            Unavailable: it did not answer.
        """
        if not token.isascii():
            return None  # no token is; and these would be bytes that are no text
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._remembered(key)) is not None:
            return known[0] or None
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        review = decoded(await self._api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body), _TokenReview)
        user = review.status.user
        visitor = None
        if review.status.authenticated:
            extra = tuple(sorted((name, tuple(values)) for name, values in (user.extra or {}).items()))
            visitor = Visitor(user.username, user.uid, tuple(user.groups or ()), extra)
        self._remember(key, visitor)
        return visitor

    async def may_see_queue(self, visitor: Visitor, name: str) -> bool:
        """Whether they may get this GpuQueue."""
        return await self._may(visitor, {"group": DOMAIN, "resource": "gpuqueues", "verb": "get", "name": name})

    async def may_see_pod(self, visitor: Visitor, namespace: str, name: str) -> bool:
        """Whether they may get this pod."""
        return await self._may(visitor, {"group": "", "resource": "pods", "verb": "get", "namespace": namespace, "name": name})

    async def _may(self, visitor: Visitor, what: Mapping[str, str]) -> bool:
        key = (visitor, tuple(sorted(what.items())))
        if (known := self._remembered(key)) is not None:
            return bool(known[0])
        spec = {
            "user": visitor.name,
            "uid": visitor.uid,
            "groups": list(visitor.groups),
            "extra": {name: list(values) for name, values in visitor.extra},
            "resourceAttributes": dict(what),
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=body)
        allowed = decoded(answer, _AccessReview).status.allowed
        self._remember(key, allowed)
        return allowed

    def _remembered(self, key: Any) -> tuple[Any] | None:
        at, answer = self._known.get(key, (-1e9, None))
        return (answer,) if time.monotonic() - at < _SECONDS else None

    def _remember(self, key: Any, answer: Any) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = (time.monotonic(), answer)
