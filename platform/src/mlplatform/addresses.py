"""Where a URL leads, as far as a NetworkPolicy can say it: into a namespace of the cluster, to an address, or to a name outside. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_SERVICE = re.compile(r"(?:[^.]+\.)+(?P<namespace>[^.]+)\.svc(?:\.cluster\.local)?\.?")
_BY_SCHEME = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The end of a way: at most one of `namespace` and `address` is there."""

    host: str
    port: int
    namespace: str | None = None
    """Of the service of this cluster that the host names: `NAME.NAMESPACE.svc`."""
    address: IPv4Address | IPv6Address | None = None
    """Where the host is no name."""


def place_of(url: str) -> Place:
    """Where an http or https URL leads.

    Raises:
        ValueError: it has no host, or its port is none.
    """
    split = urlsplit(url)
    if not split.hostname:
        raise ValueError(f"{url!r} names no host")
    host, port = split.hostname, split.port or _BY_SCHEME[split.scheme]
    if service := _SERVICE.fullmatch(host):
        return Place(host=host, port=port, namespace=service["namespace"])
    try:
        return Place(host=host, port=port, address=ip_address(host))
    except ValueError:
        return Place(host=host, port=port)
