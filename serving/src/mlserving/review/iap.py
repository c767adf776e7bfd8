"""Who somebody is by the word of Google's Identity-Aware Proxy: the assertion that it signs anew for each request.

It also writes plain headers, which anybody can write who finds another way to the port. The assertion nobody else can make: it is a JSON Web Token
(RFC 7519) signed by ES256 with a key of Google's, for one backend and for ten minutes. google-auth holds signature, audience and time against it.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError, InvalidValue
from starlette.requests import Request

from mlserving.errors import ConfigError, ServingError, Unavailable
from mlserving.review.cases import Person
from mlserving.review.people import introduced

HEADER = "x-goog-iap-jwt-assertion"
ISSUER = "https://cloud.google.com/iap"
_ALGORITHM = "ES256"
_SKEW_SECONDS = 30
_FRESH_SECONDS = 3600.0
_TIMEOUT_SECONDS = 5.0
_LARGEST = 1 << 20
_HERE = {"127.0.0.1", "localhost", "::1"}
_log = structlog.get_logger("review")


class Keys:
    """Public keys by their ids, from a JSON Web Key Set (RFC 7517). Threads may share it.

    They are read again every hour, and when somebody names an unknown one, for signers change their keys; strangers can name any, so not more often
    than `pause` allows. Where they cannot be read, those that were read before still count.

    Args:
        source: an https address (http from this machine only) or a file.
        pause: seconds between two reads.

    Raises:
        ConfigError: it is neither.
    """

    def __init__(self, source: str, *, pause: float = 30.0) -> None:
        parts = urlsplit(source)
        self._is_address = parts.scheme in {"http", "https"}
        if parts.scheme == "http" and parts.hostname not in _HERE:
            raise ConfigError(
                f"--iap-keys {source}: whoever sits between could give us keys of their own. Name an https address or a file."
            )
        if not self._is_address and not Path(source).is_file():
            raise ConfigError(f"--iap-keys {source} is neither an https address nor a file.")
        self._source, self._pause = source, pause
        self._lock = threading.Lock()
        self._keys: Mapping[str, bytes] = {}
        self._tried = -float("inf")

    def of(self, key_id: str) -> bytes | None:
        """The key in PEM; None where nobody published one of that id.

        Raises:
            Unavailable: no key could be read so far.
        """
        with self._lock:
            age = time.monotonic() - self._tried
            if age > _FRESH_SECONDS or (key_id not in self._keys and age >= self._pause):
                self._read_again()
            if not self._keys:
                raise Unavailable(f"The keys of the Identity-Aware Proxy cannot be had: {self._source}. Nobody is let in before they are.")
            return self._keys.get(key_id)

    def _read_again(self) -> None:
        self._tried = time.monotonic()
        try:
            self._keys = keys_in(self._read())
        except (OSError, ValueError) as error:
            _log.error("keys of the proxy not read", source=self._source, error=str(error))

    def _read(self) -> bytes:
        if not self._is_address:
            return Path(self._source).read_bytes()
        with urllib.request.urlopen(self._source, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  https, or this machine
            return bytes(answer.read(_LARGEST))


def keys_in(text: bytes) -> dict[str, bytes]:
    """The keys of a JSON Web Key Set that sign by ES256, in PEM, by id.

    Raises:
        ValueError: it is no such set.
    """
    try:
        wanted = [key for key in json.loads(text)["keys"] if (key["kty"], key.get("crv")) == ("EC", "P-256")]
        return {str(key["kid"]): _pem(key["x"], key["y"]) for key in wanted}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no JSON Web Key Set: {error!r}") from error


def _pem(x: str, y: str) -> bytes:
    across, up = (int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) for text in (x, y))
    key = ec.EllipticCurvePublicNumbers(across, up, ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Iap:
    """The proxy."""

    audience: str
    """For whom it signs: the backend that we are."""
    keys: Keys
    leads: frozenset[str] = frozenset()

    def person(self, request: Request) -> Person | None:
        """Whom the assertion names; None where there is none, or it does not hold. Fetches keys now and then: call it in a thread."""
        said = request.headers.getlist(HEADER)
        if not said:
            return None
        try:
            return introduced(self._email(said), self.leads)
        except (GoogleAuthError, ServingError, ValueError, TypeError, AttributeError, KeyError) as error:
            # The texts of other errors would show what is in the assertion.
            why = str(error) if isinstance(error, InvalidValue | ServingError | _Refused) else type(error).__name__
            _log.warning("assertion refused", why=why)
            return None

    def _email(self, said: list[str]) -> str:
        (assertion,) = said
        header = jwt.decode_header(assertion)
        if header.get("alg") != _ALGORITHM:
            raise _Refused(f"it is not signed by {_ALGORITHM}")
        key = self.keys.of(str(header["kid"]))
        if key is None:
            raise _Refused("nobody published the key that it names")
        claims = jwt.decode(assertion, certs=key, audience=self.audience, clock_skew_in_seconds=_SKEW_SECONDS)
        if claims.get("iss") != ISSUER:
            raise _Refused(f"its issuer is not {ISSUER}")
        return str(claims["email"])


class _Refused(ValueError):
    """Why an assertion does not hold."""
