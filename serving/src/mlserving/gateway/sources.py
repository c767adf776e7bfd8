"""Where the settings come from: a file, or a ConfigMap through the Kubernetes API.

The kubelet brings a mounted ConfigMap up to date within ninety seconds; a rollback must not take that long, so the pod asks the API
itself, as its own service account, which needs `get` on that one ConfigMap.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import structlog

from mlserving.errors import ConfigError, ServingError, Unavailable
from mlserving.gateway.settings import FILE, GatewaySettings

SERVICE_ACCOUNT: Final = Path(os.environ.get("MILLRACE_SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
"""Where a pod finds its token, its namespace and the API server's certificate."""
KEY: Final = "gateway.yaml"
_PREFIX = "configmap:"
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_OK, _NOT_FOUND = 200, 404

_log = structlog.get_logger()


class Source(Protocol):
    """Something that has the settings."""

    name: str
    seconds: float
    """Between two looks."""

    async def text(self) -> str:
        """The settings as YAML.

        Raises:
            ServingError: they cannot be had now.
        """

    async def close(self) -> None:
        """Let go of connections."""


class FileSource:
    """A file."""

    seconds = 1.0

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    async def text(self) -> str:
        """See Source."""
        return FILE.text(self._path)

    async def close(self) -> None:
        """See Source."""


class ConfigMapSource:
    """A key of a ConfigMap."""

    seconds = 2.0

    def __init__(self, namespace: str, name: str, key: str) -> None:
        self.name = f"ConfigMap {namespace}/{name}, {key}"
        self._path, self._key = f"/api/v1/namespaces/{namespace}/configmaps/{name}", key
        self._session: aiohttp.ClientSession | None = None

    async def text(self) -> str:
        """See Source."""
        try:
            status, answer = await self._get()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"{self.name}: the Kubernetes API did not answer: {error or type(error).__name__}") from error
        if status == _NOT_FOUND:
            raise ConfigError(f"{self.name} does not exist. See: kubectl get configmaps")
        if status != _OK:
            raise Unavailable(
                f"{self.name}: the Kubernetes API answered {status}: {answer.get('message', '')} May the service account get it?"
            )
        found = (answer.get("data") or {}).get(self._key)
        if not isinstance(found, str):
            raise ConfigError(f"{self.name}: there is no such key")
        return found

    async def close(self) -> None:
        """See Source."""
        if self._session is not None:
            await self._session.close()

    async def _get(self) -> tuple[int, dict[str, dict[str, object]]]:
        if self._session is None:
            context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # many clusters' authorities lack what Python 3.13 asks for
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=context))
        token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()  # each time: the kubelet rotates it
        async with self._session.get(_api_server() + self._path, headers={"Authorization": f"Bearer {token}"}) as response:
            answer = await response.json(content_type=None)
            return response.status, answer if isinstance(answer, dict) else {}


def source_of(text: str) -> Source:
    """The source that `--config` names: FILE or configmap:NAMESPACE/NAME[/KEY].

    Raises:
        ConfigError: a ConfigMap that is not spelled so.
    """
    if not text.startswith(_PREFIX):
        return FileSource(Path(text))
    parts = text.removeprefix(_PREFIX).split("/")
    if len(parts) not in {2, 3} or not all(parts):
        raise ConfigError(f"--config {text}: spell it configmap:NAMESPACE/NAME or configmap:NAMESPACE/NAME/KEY")
    return ConfigMapSource(parts[0], parts[1], parts[2] if len(parts) > 2 else KEY)  # noqa: PLR2004  with a key


def _api_server() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise OSError("KUBERNETES_SERVICE_HOST is not set: this is no pod")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def digest(text: str) -> str:
    """What tells two texts of settings apart."""
    return hashlib.sha256(text.encode()).hexdigest()


class Reloading:
    """Looks at the source again and again and applies what has changed and can be meant."""

    def __init__(self, source: Source, apply: Callable[[GatewaySettings, str, str], None], failed: Callable[[str], None]) -> None:
        self._source, self._apply, self._failed = source, apply, failed
        self._last = self._complaint = ""

    async def first(self) -> GatewaySettings:
        """The settings to begin with.

        Raises:
            ServingError: there are none, or they cannot be meant.
        """
        text = await self._source.text()
        settings = FILE.parse(text, self._source.name)
        self._last = text
        return settings

    @property
    def text(self) -> str:
        """What was applied last."""
        return self._last

    @property
    def hash(self) -> str:
        """Of what was applied last."""
        return digest(self._last)

    async def keep_looking(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """For ever. What cannot be read is counted and told once; what was in force stays."""
        seen = self._last
        while True:
            await sleep(self._source.seconds)
            try:
                text = await self._source.text()
            except ServingError as error:
                seen = ""  # what is read next is applied, even if it is what was there before
                self._complain(str(error))
                continue
            if text == seen:
                continue
            seen = text
            try:
                settings = FILE.parse(text, self._source.name)
            except ServingError as error:
                self._complain(str(error))
                continue
            self._last, self._complaint = text, ""
            self._apply(settings, digest(text), text)
            _log.info("new settings are in force", source=self._source.name, hash=digest(text)[:12])

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            _log.error("the settings cannot be read; those before stay in force", source=self._source.name, error=text)
        self._failed(text)
