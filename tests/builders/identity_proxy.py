"""Google's Identity-Aware Proxy as a backend meets it: somebody who signs assertions, and a server that publishes the keys."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from google.auth import jwt
from google.auth.crypt.es import EsSigner

AUDIENCE = "/projects/12/global/backendServices/34"
ISSUER = "https://cloud.google.com/iap"


class Signer:
    """A key, and what is signed with it."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.private = ec.generate_private_key(ec.SECP256R1())

    def assertion(self, **changes: Any) -> str:
        """For Ann, for our backend, for ten minutes; `None` leaves a claim out."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "email": "Ann@example.com", "sub": "accounts.google.com:1", "iat": now, "exp": now + 600}
        kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return str(jwt.encode(EsSigner(self.private, self.key_id), kept).decode())

    @property
    def public(self) -> dict[str, str]:
        """The key as it is published."""
        numbers = self.private.public_key().public_numbers()
        x, y = (base64.urlsafe_b64encode(number.to_bytes(32)).decode().rstrip("=") for number in (numbers.x, numbers.y))
        return {"kid": self.key_id, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y}


def key_set(*signers: Signer) -> str:
    """What the server publishes of them."""
    return json.dumps({"keys": [signer.public for signer in signers]})


class KeyServer:
    """Answers every request with `text`, or not at all where that is None; counts them."""

    def __init__(self, text: str | None) -> None:
        self.text, self.asked = text, 0
        told = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.asked += 1
                body = (told.text or "").encode()
                self.send_response(200 if told.text is not None else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}/public_key-jwk"


@contextmanager
def key_server(text: str | None) -> Iterator[KeyServer]:
    """One that runs."""
    found = KeyServer(text)
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()
