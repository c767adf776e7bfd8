"""The certificate that the webhook shows, kept up to date while it runs: our own (`SelfManaged`) or cert-manager's (`FromFiles`).

A new certificate is loaded into the TLS context that the server has; the next connection gets it, and those that are open stay.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gpuqueue.cluster.api import STRATEGIC, Api
from gpuqueue.errors import ConfigError, Conflict
from gpuqueue.webhook import rotation, signing
from gpuqueue.webhook.rotation import Lives, Own, Publish, Replace, Seen, Sign
from gpuqueue.webhook.signing import Pair

_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_AUTHORITIES = "authorities"
"""The key in the Secret's data."""


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Client(msgspec.Struct, rename="camel"):
    ca_bundle: str = ""


class _Webhook(msgspec.Struct, rename="camel"):
    name: str
    client_config: _Client = msgspec.field(default_factory=_Client)


class _Configuration(msgspec.Struct):
    metadata: _Meta
    webhooks: list[_Webhook] = []


class _Secret(msgspec.Struct):
    metadata: _Meta
    data: dict[str, str] | None = None


class Certificates(Protocol):
    """Somebody who keeps the certificate up to date."""

    @property
    def expires(self) -> float:
        """When the certificate that is shown ends (Unix); 0 without one."""

    async def refresh(self) -> str:
        """Look, and do what is due; returns why requests would fail, empty if they would not.

        Raises:
            Unavailable, Refused: the API server did not help.
        """


class Configuration:
    """The MutatingWebhookConfiguration that sends requests here."""

    def __init__(self, api: Api, name: str) -> None:
        self._api, self._path = api, f"{_CONFIGURATIONS}/{name}"
        self._last = _Configuration(_Meta())

    async def bundle(self) -> bytes:
        """Whom the API server trusts; where there are several webhooks, by what all of them say."""
        self._last = await self._api.get(self._path, _Configuration)
        bundles = {webhook.client_config.ca_bundle for webhook in self._last.webhooks}
        return base64.b64decode(bundles.pop()) if len(bundles) == 1 else b""

    async def trust(self, bundle: bytes) -> None:
        """Have the API server trust `bundle`.

        Raises:
            Conflict: somebody wrote since we looked.
        """
        client = {"caBundle": base64.b64encode(bundle).decode()}
        webhooks = [{"name": webhook.name, "clientConfig": client} for webhook in self._last.webhooks]
        body = {"metadata": {"resourceVersion": self._last.metadata.resource_version}, "webhooks": webhooks}
        await self._api.request("PATCH", self._path, body=body, content_type=STRATEGIC)


class SelfManaged:
    """Two authorities in a Secret, and a certificate in memory that one of them has signed.

    Args:
        api: the cluster.
        configuration: where the authorities become known.
        secret: path of the Secret.
        hosts: names by which the API server asks.
        lives: how long things live.
        tls: the server's.
    """

    def __init__(
        self, api: Api, configuration: Configuration, *, secret: str, hosts: Sequence[str], lives: Lives, tls: ssl.SSLContext
    ) -> None:
        self._api, self._configuration, self._secret = api, configuration, secret
        self._hosts, self._lives, self._tls = hosts, lives, tls
        self._version = ""
        self._pairs: dict[str, Pair] = {}
        self._own: Own | None = None

    @property
    def expires(self) -> float:
        """When the certificate that is shown ends."""
        return self._own.expires if self._own else 0.0

    async def refresh(self) -> str:
        """One step after another, each after a fresh look; who comes second looks again."""
        while True:
            seen = await self._look()
            step = rotation.step(seen, self._lives)
            if step is None:
                return rotation.why_not_ready(seen)
            try:
                await self._take(step)
            except Conflict:
                continue

    async def _look(self) -> Seen:
        bundle = signing.fingerprints(await self._configuration.bundle())
        secret = await self._api.get(self._secret, _Secret)
        self._version = secret.metadata.resource_version
        pairs = _pairs(secret)
        self._pairs = {signing.described(pair).id: pair for pair in pairs}
        return Seen(now=time.time(), bundle=bundle, authorities=[signing.described(pair) for pair in pairs], own=self._own)

    async def _take(self, step: Replace | Publish | Sign) -> None:
        if isinstance(step, Sign):
            expires = time.time() + self._lives.certificate
            pair = signing.issue(self._pairs[step.by.id], self._hosts, now=time.time(), expires=expires)
            _show(self._tls, pair)
            self._own = Own(issuer=step.by.id, expires=signing.expiry(pair.certificate.encode()))
        elif isinstance(step, Publish):
            await self._configuration.trust("".join(pair.certificate for pair in self._pairs.values()).encode())
        else:
            kept = [self._pairs[each.id] for each in step.keep]
            await self._store([*kept, *(signing.authority(now=time.time(), expires=expires) for expires in step.expiries)])

    async def _store(self, pairs: Sequence[Pair]) -> None:
        content = {_AUTHORITIES: base64.b64encode(msgspec.json.encode(pairs)).decode()}
        body: dict[str, Any] = {"metadata": {"resourceVersion": self._version}, "data": content}
        await self._api.request("PATCH", self._secret, body=body, content_type=STRATEGIC)


class FromFiles:
    """A certificate that somebody else renews in a folder: tls.crt, tls.key, and ca.crt, which the API server is to trust."""

    def __init__(self, configuration: Configuration, folder: Path, tls: ssl.SSLContext) -> None:
        self._configuration, self._folder, self._tls = configuration, folder, tls
        self._loaded: tuple[bytes, bytes] | None = None
        self._expires = 0.0

    @property
    def expires(self) -> float:
        """When the certificate that is shown ends."""
        return self._expires

    async def refresh(self) -> str:
        """Load what is new."""
        try:
            found = (self._folder / "tls.crt").read_bytes(), (self._folder / "tls.key").read_bytes()
            authority = (self._folder / "ca.crt").read_bytes()
        except OSError as error:
            return f"no certificate yet: {error}"
        if found != self._loaded:
            try:
                _show(self._tls, Pair(found[0].decode(), found[1].decode()))
            except (ssl.SSLError, ValueError) as error:
                return f"{self._folder}: certificate and key do not belong together (yet): {error}"
            self._loaded, self._expires = found, signing.expiry(found[0])
        if not signing.fingerprints(authority) <= signing.fingerprints(await self._configuration.bundle()):
            return "the API server does not trust our certificate's authority yet"
        return "" if self._expires > time.time() else "our certificate has expired"


def _pairs(secret: _Secret) -> list[Pair]:
    content = base64.b64decode((secret.data or {}).get(_AUTHORITIES, ""))
    try:
        return msgspec.json.decode(content, type=list[Pair]) if content else []
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the webhook's Secret holds something else than authorities ({error}). Delete its data: new ones are made"
        ) from error


def _show(tls: ssl.SSLContext, pair: Pair) -> None:
    """`ssl` reads certificates from files only; this one is readable by us alone and gone at once."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(f"{pair.certificate}\n{pair.key}".encode())
        file.flush()
        tls.load_cert_chain(file.name)
