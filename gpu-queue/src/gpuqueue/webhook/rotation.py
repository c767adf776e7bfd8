"""Which certificate is due: two authorities of staggered lives, both trusted, and a short-lived certificate of each replica's own.

The API server trusts whom the webhook's configuration names, its bundle. Were there one authority, then on the day that it is replaced
either the bundle or the server would be first, and requests between would fail. With two, certificates are signed by the one that
stays, while the other is replaced and becomes known. Replicas do this without a leader: each looks, takes one step, and looks again;
what a step writes is refused if somebody else wrote meanwhile.

The arithmetic: an authority that signs has at least half a life left, less the time to settle; a certificate lives at most that long, so no
certificate is in use when its authority leaves. (Two authorities is Apache YuniKorn's scheme; signing by each replica, too.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpuqueue.errors import ConfigError

HOUR = 3600.0
_DAY = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """How long things live, in seconds."""

    authority: float = 360 * _DAY
    certificate: float = 90 * _DAY
    renew_before: float = 30 * _DAY
    """An authority or a certificate with less left is replaced."""

    def __post_init__(self) -> None:
        if not 0 < 2 * self.renew_before <= self.certificate <= self.authority / 2 - self.settle:
            raise ConfigError(
                "webhook.certificates: renewBefore must be at most half of life, and life less than half of authorityLife; "
                f"they are {self.renew_before / HOUR:g} h, {self.certificate / HOUR:g} h and {self.authority / HOUR:g} h"
            )

    @property
    def settle(self) -> float:
        """A new authority signs nothing for so long: the API server must have heard of it first."""
        return self.renew_before / 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Somebody who signs: a fingerprint, and the times of its birth and death (Unix)."""

    id: str
    made: float
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The certificate that a replica shows."""

    issuer: str
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a replica has just read, in this order: whom the API server trusts (`bundle`), then the authorities there are."""

    now: float
    bundle: frozenset[str]
    authorities: Sequence[Authority]
    own: Own | None


@dataclass(frozen=True, slots=True)
class Replace:
    """Keep these authorities, and make others with these times of death."""

    keep: tuple[Authority, ...]
    expiries: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """Have the API server trust exactly the authorities that there are."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Have a certificate signed by this one and show it."""

    by: Authority


Step = Replace | Publish | Sign | None


def step(seen: Seen, lives: Lives) -> Step:
    """What to do next; None is nothing."""
    staying = tuple(each for each in seen.authorities if each.expires - seen.now > lives.renew_before)
    if len(staying) < 2:  # noqa: PLR2004 (two authorities)
        return Replace(staying, _expiries(len(staying), seen.now, lives))
    if seen.bundle != {each.id for each in staying}:
        return Publish()
    if seen.own is None or seen.own.issuer not in seen.bundle or seen.own.expires - seen.now <= lives.renew_before:
        return Sign(signer(staying, seen.now, lives))
    return None


def signer(authorities: Sequence[Authority], now: float, lives: Lives) -> Authority:
    """The one that lives longest, of those whom the API server has known for a while; at the very first, of all."""
    settled = [each for each in authorities if now - each.made > lives.settle]
    return max(settled or authorities, key=lambda each: (each.expires, each.id))


def why_not_ready(seen: Seen) -> str:
    """Empty if the API server trusts the certificate that this replica shows."""
    if seen.own is None:
        return "has no certificate yet"
    if seen.own.issuer not in seen.bundle:
        return "the API server does not trust our certificate's authority yet"
    return "" if seen.own.expires > seen.now else "our certificate has expired"


def _expiries(kept: int, now: float, lives: Lives) -> tuple[float, ...]:
    """One whole life beside one that stays; at the very first a half and a whole one."""
    return (now + lives.authority,) if kept else (now + lives.authority / 2, now + lives.authority)
