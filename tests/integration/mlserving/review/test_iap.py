"""The page behind Google's Identity-Aware Proxy: who carries an assertion that holds comes in, and nobody else does, whatever they write."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from identity_proxy import AUDIENCE, KeyServer, Signer, key_server, key_set
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import Database
from review_cases import CLASSES, MODEL, batch, new_case
from review_site import Client, Served, served

pytestmark = [pytest.mark.timeout(240)]
HEADER = "X-Goog-Iap-Jwt-Assertion"
PLAIN = {"X-Goog-Authenticated-User-Email": "accounts.google.com:ann@example.com", "X-Forwarded-Email": "ann@example.com"}


@dataclass(frozen=True)
class Front:
    """The page, and the proxy in front of it."""

    server: Served
    keys: KeyServer
    signer: Signer

    def client(self, assertion: str | None) -> Client:
        """Somebody who comes with it."""
        return Client(self.server.url, {} if assertion is None else {HEADER: assertion})

    def lets_in(self, assertion: str | None) -> bool:
        answer = self.client(assertion).get("/")
        assert answer.status in {200, 303}
        assert (answer.headers["Location"] or "").startswith("/login") == (answer.status == 303)
        return answer.status == 200


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    workspace, signer = tmp_path_factory.mktemp("iap"), Signer("one")
    database = Database(f"sqlite:///{workspace}/serving/serving.db")
    ReviewQueue(database).put(batch(), [new_case(f"p{number}", "tools") for number in range(4)], CLASSES)
    database.close()
    with (
        key_server(key_set(signer, Signer("two"))) as keys,
        served(workspace, "--hold", "0", "--iap-audience", AUDIENCE, "--iap-keys", keys.url, "--lead", "boss@example.com") as server,
    ):
        yield Front(server, keys, signer)


def test_who_the_proxy_vouches_for_comes_in_under_their_name(front: Front) -> None:
    page = front.client(front.signer.assertion()).get("/").text
    assert "ann@example.com" in page
    assert ">lead<" not in page
    assert "Sign out" not in page, "there is no session to end"
    assert ">lead<" in front.client(front.signer.assertion(email="Boss@example.com")).get("/").text


def test_what_they_review_is_theirs(front: Front) -> None:
    ann = front.client(front.signer.assertion())
    form = ann.get(f"/models/{MODEL}").hidden | {"verdict": "confirm"}
    assert ann.post(f"/models/{MODEL}/review", form).status == 303
    assert front.client(front.signer.assertion(email="bob@example.com")).post(f"/models/{MODEL}/review", form).status == 403
    assert [event["person"] for event in front.server.events() if event["event"] == "review"] == ["ann@example.com"]


def forged(front: Front, alg: str, signature: Callable[[bytes], bytes]) -> str:
    """The claims of a good assertion under a header and a signature of somebody else's."""
    claims = front.signer.assertion().split(".")[1]
    header = base64.urlsafe_b64encode(json.dumps({"alg": alg, "typ": "JWT", "kid": "one"}).encode()).decode().rstrip("=")
    signed = f"{header}.{claims}"
    return f"{signed}.{base64.urlsafe_b64encode(signature(signed.encode())).decode().rstrip('=')}"


def by_the_public_key(front: Front) -> str:
    """As if the public key, which everybody has, were a secret: a well-known trick."""
    pem = front.signer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return forged(front, "HS256", lambda text: hmac.digest(pem, text, hashlib.sha256))


def of_another_body(front: Front) -> str:
    header, _, signature = front.signer.assertion().split(".")
    return f"{header}.{front.signer.assertion(email='boss@example.com').split('.')[1]}.{signature}"


NOW = int(time.time())
BAD: dict[str, Callable[[Front], str | None]] = {
    "there is none": lambda _: None,
    "for another backend": lambda front: front.signer.assertion(aud="/projects/12/global/backendServices/35"),
    "for nobody": lambda front: front.signer.assertion(aud=None),
    "expired": lambda front: front.signer.assertion(iat=NOW - 1200, exp=NOW - 600),
    "without an end": lambda front: front.signer.assertion(exp=None),
    "of tomorrow": lambda front: front.signer.assertion(iat=NOW + 86_400, exp=NOW + 87_000),
    "of another issuer": lambda front: front.signer.assertion(iss="https://accounts.google.com"),
    "without an issuer": lambda front: front.signer.assertion(iss=None),
    "by another key of the same name": lambda _: Signer("one").assertion(),
    "by a key under another's name": lambda _: Signer("two").assertion(),
    "by a key that nobody published": lambda _: Signer("three").assertion(),
    "without a person": lambda front: front.signer.assertion(email=None),
    "with something that is no name": lambda front: front.signer.assertion(email="<b>ann</b>"),
    "with an odd end": lambda front: front.signer.assertion(exp="never"),
    "unsigned": lambda front: forged(front, "none", lambda _: b""),
    "signed with the public key": by_the_public_key,
    "with another's signature": of_another_body,
    "no assertion at all": lambda _: "a.b.c",
    "text": lambda _: "let me in",
}


@pytest.mark.parametrize("bad", BAD)
def test_nobody_comes_in_by_an_assertion_that_does_not_hold(front: Front, bad: str) -> None:
    assertion = BAD[bad](front)
    assert not front.lets_in(assertion)
    assert front.client(assertion).get("/", **PLAIN).status == 303, "what anybody can write does not help"
    assert front.lets_in(front.signer.assertion()), "and those who may still can"
    refused = [event for event in front.server.events() if event["event"] == "assertion refused"]
    assert bool(refused) or assertion is None
    if assertion is not None:
        assert not any(part in json.dumps(refused) for part in assertion.split(".") if len(part) > 5), "what it holds stays out of the log"


def test_two_assertions_are_none(front: Front) -> None:
    connection_headers = f"{HEADER}: {front.signer.assertion()}\r\n" * 2
    assert raw(front, connection_headers).startswith("HTTP/1.1 303")


def raw(front: Front, headers: str) -> str:
    import socket
    from urllib.parse import urlsplit

    where = urlsplit(front.server.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {where.netloc}\r\n{headers}Connection: close\r\n\r\n".encode())
        return connection.makefile("rb").read().decode()


def test_strangers_may_see_whether_the_page_lives(front: Front) -> None:
    assert front.client(None).get("/healthz").status == 200


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--iap-audience", AUDIENCE, "--proxy-header", "X-Forwarded-Email"], "Choose one"),
        (["--iap-audience", ""], "--iap-audience is empty"),
        (["--iap-audience", AUDIENCE, "--iap-keys", "http://keys.example/jwk"], "Name an https address or a file"),
        (["--lead", "ann"], "--iap-audience"),
        (["--iap-audience", AUDIENCE, "--metrics", "nowhere"], "--metrics nowhere"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, arguments: list[str], what: str) -> None:
    command: list[Any] = [sys.executable, "-m", "mlserving", "review", "serve", "--workspace", tmp_path, "--port", "0", *arguments]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert what in refused.stderr
