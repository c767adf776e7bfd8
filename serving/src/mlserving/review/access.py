"""Who is asking, and whether they themselves sent this form.

Three ways lead in. A proxy in front that signs people in (oauth2-proxy, …) names them in a header, which counts only if the request comes
from an address of the proxy or carries the secret that only the proxy knows: everybody else could write that header too. Google's Identity-Aware Proxy signs what it says (`iap`). Or people type a name and
a token of the users' file, and get a session: a signed cookie that scripts and other sites cannot use. It ends after some hours, with a new
token, and with the user.

Every form carries a signed text that is bound to its reader, and browsers say from which site a form was sent; both are checked.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeSerializer
from sqlalchemy import delete, func, insert, select
from starlette.requests import Request

from mlserving.errors import ConfigError
from mlserving.review.cases import Person
from mlserving.review.iap import Iap
from mlserving.review.people import People, introduced, write_private
from mlserving.review.tables import LOGINS, Database

PROXY_SECRET = "X-Millrace-Proxy-Secret"  # noqa: S105  a header's name
_SHORTEST_SECRET = 32
_WINDOW = timedelta(minutes=5)
_MOST_TRIES = 5
"""Wrong tokens for one name from one address, in a window."""
_MOST_FROM_AN_ADDRESS = 30
_KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in."""

    person: Person
    session: str
    """Names the session; `proxy` where each request says anew who it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Who may say who somebody is. At least one of `secret` and `networks` is there; where both are, both must fit."""

    header: str
    secret: str | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    leads: frozenset[str] = frozenset()

    def person(self, request: Request) -> Person | None:
        """Whom the proxy names; None where it names nobody or is not the proxy."""
        said = request.headers.getlist(self.header)
        if len(said) != 1 or not self._sent(request):
            return None
        return introduced(said[0], self.leads)

    def _sent(self, request: Request) -> bool:
        if self.secret is not None and not hmac.compare_digest(request.headers.get(PROXY_SECRET, "").encode(), self.secret.encode()):
            return False
        return not self.networks or _within(address_of(request), self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who comes in.

    Args:
        people: the users' file.
        secret: signs sessions and forms; the same for all replicas.
        hours: how long a session lasts.
        proxy: who may say who somebody is.
        public_url: under which people reach the page, where it is not what the request says.
        clock: tells the time.
    """

    people: People
    secret: str
    hours: float
    clock: Callable[[], datetime]
    proxy: Proxy | Iap | None = None
    public_url: str | None = None

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks; None for a stranger. It may have to fetch keys: call it in a thread."""
        if self.proxy is not None and (person := self.proxy.person(request)):
            return Visitor(person, "proxy")
        return self._of_session(request.cookies.get(self.cookie_name(request), ""))

    def _of_session(self, cookie: str) -> Visitor | None:
        said = self._opened("session", cookie)
        user = self.people.users().get(said.get("name", ""))
        person = self.people.person(said.get("name", ""))
        if user is None or person is None or said["mark"] != user.mark:
            return None
        return Visitor(person, said["id"])

    def session(self, name: str) -> str:
        """A new session's cookie for a user who showed their token."""
        user = self.people.users()[name]
        return self._sealed("session", {"name": name, "mark": user.mark, "id": secrets.token_urlsafe(12)})

    def form(self, visitor: Visitor) -> str:
        """What a form of this visitor carries."""
        return self._sealed("form", {"name": visitor.person.name, "id": visitor.session})

    def is_own_form(self, visitor: Visitor, said: str) -> bool:
        """Whether the form was made for this visitor in this session."""
        found = self._opened("form", said)
        return (found.get("name"), found.get("id")) == (visitor.person.name, visitor.session)

    def is_own_site(self, request: Request) -> bool:
        """Whether the browser sent the form from a page of ours."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site is not None:
            return site in {"same-origin", "none"}
        return origin is None or origin == self._own_origin(request)

    def is_encrypted(self, request: Request) -> bool:
        """Whether people reach the page through TLS."""
        return (self.public_url or str(request.url)).startswith("https://")

    def cookie_name(self, request: Request) -> str:
        """`__Host-` makes browsers refuse a cookie of that name which another host or an unencrypted page set."""
        return "__Host-millrace-review" if self.is_encrypted(request) else "millrace-review"

    def _own_origin(self, request: Request) -> str:
        own = urlsplit(self.public_url or str(request.url))
        return f"{own.scheme}://{own.netloc}"

    def _sealed(self, what: str, content: dict[str, str]) -> str:
        until = self.clock() + timedelta(hours=self.hours)
        return URLSafeSerializer(self.secret, salt=f"millrace-review-{what}").dumps({**content, "until": int(until.timestamp())})

    def _opened(self, what: str, text: str) -> dict[str, str]:
        """What was sealed; empty if somebody else sealed it or its time is over."""
        try:
            content = URLSafeSerializer(self.secret, salt=f"millrace-review-{what}").loads(text)
        except BadSignature:
            return {}
        return content if content["until"] > self.clock().timestamp() else {}


class Logins:
    """Tries to log in: kept for three months, and counted so that nobody guesses quickly."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def too_many(self, name: str, address: str, now: datetime) -> bool:
        """Whether so many failed just now that the next try has to wait."""
        with self._database.transaction() as connection:
            failed = select(func.count()).where(LOGINS.c.time > now - _WINDOW, ~LOGINS.c.accepted, LOGINS.c.address == address)
            here = connection.execute(failed).scalar_one()
            for_name = connection.execute(failed.where(LOGINS.c.name == name)).scalar_one()
        return here >= _MOST_FROM_AN_ADDRESS or for_name >= _MOST_TRIES

    def note(self, name: str, address: str, accepted: bool, now: datetime) -> None:
        """Keep a try."""
        with self._database.transaction() as connection:
            connection.execute(insert(LOGINS).values(name=name[:200], address=address, time=now, accepted=accepted))
            connection.execute(delete(LOGINS).where(LOGINS.c.time < now - _KEPT))


def address_of(request: Request) -> str:
    """The other end of the connection: a proxy's, where there is one."""
    return request.client.host if request.client else ""


def session_secret(path: Path) -> str:
    """The secret in a file, made on first use.

    Raises:
        ConfigError: the file cannot be read or is too short to be one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # another replica was first
                write_private(path, secrets.token_urlsafe(48))
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read or made: {error}. Name another with --secret-file.") from error
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(f"{path} holds fewer than {_SHORTEST_SECRET} characters. Delete it: a good one is made at the next start.")
    return secret


def _within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
