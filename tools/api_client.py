"""A few lines that talk to a real API server, for tests (`control_plane.py`): no models, no cache, plain dictionaries.

Tests say in words of the API what somebody does and what the server answers; a typed client would hide both.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """On whose behalf an administrator asks. A service account's groups are the API server's to add."""

    user: str
    groups: tuple[str, ...] = ()


class Refused(Exception):
    """The API server said no: its code, its reason (`Invalid`, `Forbidden`, …) and its words."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class Client:
    """Speaks as the bearer of the certificate in `tls`, or without any to `kubectl proxy`; safe to use from several threads."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._address = urllib.parse.urlsplit(url).netloc
        self._tls = tls

    def request(
        self,
        method: str,
        path: str,
        body: Object | Sequence[Object] | None = None,
        *,
        patch: str = "merge",
        person: Person | None = None,
        timeout: float = 30,
    ) -> Any:
        """One call; returns the decoded answer.

        Args:
            method: the HTTP method.
            path: for example `/api/v1/namespaces/fraud/pods`.
            body: an object, or the operations of a JSON Patch.
            patch: what the body of a PATCH is; one of `PATCHES`.
            person: on whose behalf.
            timeout: seconds to wait for an answer.

        Raises:
            Refused: the API server answered with an error.
            OSError: it did not answer.
        """
        content = b"" if body is None else json.dumps(body).encode()
        connection = self._connection(timeout)
        try:
            connection.putrequest(method, path)
            connection.putheader("Content-Type", PATCHES[patch] if method == "PATCH" else "application/json")
            connection.putheader("Content-Length", str(len(content)))
            if person:
                connection.putheader("Impersonate-User", person.user)
                for group in person.groups:
                    connection.putheader("Impersonate-Group", group)
            connection.endheaders(content)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise _refusal(answer.status, text)
        return json.loads(text) if text.startswith("{") else text

    def watch(self, path: str, *, since: str, seconds: float) -> Iterator[tuple[str, Any]]:
        """The events of a collection after the resource version `since`, as (`ADDED`, object) and so on, for at most `seconds`."""
        connection = self._connection(seconds)
        try:
            connection.request(
                "GET", f"{path}{'&' if '?' in path else '?'}watch=true&resourceVersion={since}&timeoutSeconds={int(seconds)}"
            )
            answer = connection.getresponse()
            if answer.status >= http.client.BAD_REQUEST:
                raise _refusal(answer.status, answer.read().decode())
            for line in answer:
                event = json.loads(line)
                yield event["type"], event["object"]
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._address, timeout=timeout)
        return http.client.HTTPSConnection(self._address, context=self._tls, timeout=timeout)

    def apply(self, thing: Object) -> Any:
        """Create or replace an object of any kind, as `kubectl apply --server-side --force-conflicts` does."""
        return self.request("PATCH", f"{self.path(thing)}?fieldManager=tests&force=true", thing, patch="apply")

    def path(self, thing: Object) -> str:
        """Where an object lives, as the server's discovery tells."""
        version, metadata = thing["apiVersion"], thing["metadata"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        resources = self.request("GET", base)["resources"]
        resource = next(r for r in resources if r["kind"] == thing["kind"] and "/" not in r["name"])
        inside = f"/namespaces/{metadata['namespace']}" if resource["namespaced"] else ""
        return f"{base}{inside}/{resource['name']}/{metadata['name']}"


def _refusal(code: int, text: str) -> Refused:
    try:
        status = json.loads(text)
    except ValueError:
        status = {}
    return Refused(code, str(status.get("reason", "")), str(status.get("message", text)))
