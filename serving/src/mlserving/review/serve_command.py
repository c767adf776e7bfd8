"""`millrace review serve`: who is let in, and the pieces of the page put together. The work is in `mlserving.review.service`."""

from __future__ import annotations

import argparse
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from mlserving import database
from mlserving.errors import ConfigError
from mlserving.review.options import at_least, predictions_of, users_of, workspace_of

if TYPE_CHECKING:
    from mlserving.review.access import Proxy
    from mlserving.review.iap import Iap

_SHORTEST_SECRET = 16
IAP_KEYS = "https://www.gstatic.com/iap/verify/public_key-jwk"
"""Where Google publishes the keys that its Identity-Aware Proxy signs with."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`."""
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8600, metavar="N", help="default 8600; 0 takes a free one")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve /metrics there, beside the page; port 0 takes a free one")
    parser.add_argument("--public-url", metavar="URL", help="under which people reach the page, where a proxy stands in front")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="serve by HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--lease", type=at_least(1), default=15, metavar="MINUTES", help="how long a case stays with one person (default 15)"
    )
    parser.add_argument(
        "--hold", type=at_least(0), default=30, metavar="SECONDS", help="labels leave after so long, so that undo is free (30)"
    )
    parser.add_argument("--session-hours", type=float, default=10.0, metavar="H", help="how long a sign-in lasts (default 10)")
    parser.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="signs sessions, the same for all replicas (default: made in the workspace)"
    )
    parser.add_argument(
        "--proxy-header", metavar="NAME", help="in which a proxy that signs people in names them, such as X-Forwarded-Email"
    )
    parser.add_argument("--proxy-secret-file", type=Path, metavar="FILE", help="what the proxy sends in X-Millrace-Proxy-Secret")
    parser.add_argument(
        "--proxy-address", action="append", default=[], metavar="NETWORK", help="from which the proxy connects; again for more"
    )
    parser.add_argument(
        "--iap-audience",
        metavar="AUDIENCE",
        help="behind Google's Identity-Aware Proxy: for whom it signs, such as /projects/N/global/backendServices/N",
    )
    parser.add_argument(
        "--iap-keys", default=IAP_KEYS, metavar="URL|FILE", help="the keys that it signs with, as a JWKS (default: Google's)"
    )
    parser.add_argument("--lead", action="append", default=[], metavar="NAME", help="who of the proxy's people is a lead; again for more")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help='written once people can come: {"url", "pid", "metrics"}')
    parser.set_defaults(run=serve)


def serve(arguments: argparse.Namespace) -> int:
    """Run the page until it is told to stop."""
    from mlserving.review.access import Access, session_secret
    from mlserving.review.people import People
    from mlserving.review.service import Service, now
    from mlserving.review.tables import Database

    workspace, people = workspace_of(arguments), People(users_of(arguments))
    proxy = _introduces(arguments)
    if proxy is None and not people.users():
        raise ConfigError(f"Nobody could sign in: {people.path} has no user. Make one: millrace review add-user NAME")
    if (arguments.tls_certificate is None) != (arguments.tls_key is None):
        raise ConfigError("--tls-certificate and --tls-key go together.")
    secret = session_secret(arguments.secret_file or workspace / "serving" / "review-secret")
    access = Access(people=people, secret=secret, hours=arguments.session_hours, clock=now, proxy=proxy, public_url=arguments.public_url)
    service = Service(
        host=arguments.host,
        port=arguments.port,
        metrics=arguments.metrics,
        access=access,
        database=Database(database.address(workspace)),
        predictions=predictions_of(arguments),
        lease=timedelta(minutes=arguments.lease),
        hold=timedelta(seconds=arguments.hold),
        certificate=arguments.tls_certificate,
        key=arguments.tls_key,
        ready_file=arguments.ready_file,
    )
    return service.run(lambda url: print(f"Reviewers come to {arguments.public_url or url}\nCtrl-C stops it.", flush=True))


def _introduces(arguments: argparse.Namespace) -> Proxy | Iap | None:
    """Who says who somebody is, beside the users' file."""
    of_a_proxy = arguments.proxy_header or arguments.proxy_secret_file or arguments.proxy_address
    if arguments.iap_audience is not None:
        if of_a_proxy:
            raise ConfigError("--iap-audience and --proxy-… are two ways of knowing people. Choose one: IAP needs no header but its own.")
        return _iap(arguments)
    if arguments.proxy_header is None:
        if of_a_proxy or arguments.lead:
            raise ConfigError(
                "--proxy-secret-file, --proxy-address and --lead need --proxy-header (in which header does the proxy name people?) "
                "or, --lead alone, --iap-audience."
            )
        return None
    return _proxy(arguments)


def _iap(arguments: argparse.Namespace) -> Iap:
    from mlserving.review.iap import Iap, Keys

    if not arguments.iap_audience:
        raise ConfigError("--iap-audience is empty. It is in the console's page of IAP: the backend's \"Signed Header JWT Audience\".")
    return Iap(audience=arguments.iap_audience, keys=Keys(arguments.iap_keys), leads=_leads(arguments))


def _proxy(arguments: argparse.Namespace) -> Proxy:
    from mlserving.review.access import Proxy

    secret = _read_secret(arguments.proxy_secret_file) if arguments.proxy_secret_file else None
    if secret is None and not arguments.proxy_address:
        raise ConfigError(
            "Anybody could write that header. Say how the proxy is known: --proxy-address NETWORK, or --proxy-secret-file FILE, or both."
        )
    try:
        networks = tuple(ip_network(each) for each in arguments.proxy_address)
    except ValueError as error:
        raise ConfigError(f"--proxy-address: {error}. Write an address or a network: 10.8.0.0/16") from error
    return Proxy(header=arguments.proxy_header, secret=secret, networks=networks, leads=_leads(arguments))


def _leads(arguments: argparse.Namespace) -> frozenset[str]:
    return frozenset(map(str.lower, arguments.lead))


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--proxy-secret-file {path} cannot be read: {error}.") from error
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(f"The secret in {path} is shorter than {_SHORTEST_SECRET} characters. Make one: openssl rand -hex 24")
    return secret
