"""Where the API server is and as whom we speak to it: a service account inside a pod, or a kubeconfig outside.

Written by hand because what reads kubeconfigs in Python brings every model of Kubernetes along. What people use is understood:
several files in KUBECONFIG, certificates and tokens inline or in files, and programs that print credentials, such as GKE's.
"""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import yaml
from multidict import CIMultiDict

from gpuqueue.cluster.credentials import Program, credential
from gpuqueue.errors import ConfigError, Unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS = 60.0
"""How long a token from a file is used before the file is read again: the kubelet rotates it."""


class User(msgspec.Struct, rename="kebab"):
    """As whom."""

    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    program: Program | None = msgspec.field(name="exec", default=None)
    impersonate: str = msgspec.field(name="as", default="")
    impersonate_groups: list[str] | None = msgspec.field(name="as-groups", default=None)


class Cluster(msgspec.Struct, rename="kebab"):
    """Where."""

    server: Annotated[str, msgspec.Meta(min_length=1)]
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False


class Context(msgspec.Struct):
    """A cluster and a user."""

    cluster: str
    user: str = ""
    namespace: str = ""


class NamedUser(msgspec.Struct):
    """`users[]`"""

    name: str
    user: User | None = None


class NamedCluster(msgspec.Struct):
    """`clusters[]`"""

    name: str
    cluster: Cluster


class NamedContext(msgspec.Struct):
    """`contexts[]`"""

    name: str
    context: Context


class Kubeconfig(msgspec.Struct, rename="kebab"):
    """A kubeconfig, as far as it is understood."""

    current_context: str = ""
    clusters: list[NamedCluster] | None = None
    contexts: list[NamedContext] | None = None
    users: list[NamedUser] | None = None


N = TypeVar("N", NamedUser, NamedCluster, NamedContext)


@dataclass(slots=True, kw_only=True)
class Access:
    """An API server and the credentials for it."""

    server: str
    tls: ssl.SSLContext | bool = True
    namespace: str = "default"
    token: str | None = None
    token_file: Path | None = None
    program: Program | None = None
    """What prints credentials: command, arguments, environment (`exec` of a kubeconfig)."""
    impersonate: str | None = None
    impersonate_groups: tuple[str, ...] = ()
    _read_at: float = field(default=-1e9, init=False)
    _expires: float = field(default=0.0, init=False)

    async def headers(self) -> CIMultiDict[str]:
        """What goes with each request.

        Raises:
            Unavailable: the program that prints credentials failed.
        """
        if self.token_file and time.monotonic() - self._read_at > _TOKEN_SECONDS:
            self.token, self._read_at = _read(self.token_file), time.monotonic()
        if self.program and (self.token is None or time.time() > self._expires):
            self.token, self._expires = await credential(self.program)
        found = [("Authorization", f"Bearer {self.token}")] if self.token else []
        found += [("Impersonate-User", self.impersonate)] if self.impersonate else []
        return CIMultiDict([*found, *(("Impersonate-Group", group) for group in self.impersonate_groups)])


def find(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """The API server to speak to: `kubeconfig`, else KUBECONFIG, else the pod that we are in, else ~/.kube/config.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    named = kubeconfig or os.environ.get("KUBECONFIG")
    if not named and "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    files = [Path(part).expanduser() for part in (named or "~/.kube/config").split(os.pathsep) if part]
    present = [file for file in files if file.exists()]
    if not present:
        raise ConfigError(f"no kubeconfig at {', '.join(map(str, files))}. Name one: KUBECONFIG=/path/to/kubeconfig")
    return _from_kubeconfig(present, context)


def _in_cluster() -> Access:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    namespace = SERVICE_ACCOUNT / "namespace"
    return Access(
        server=f"https://{host}:{port}",
        tls=_trusting(file=SERVICE_ACCOUNT / "ca.crt"),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        token_file=SERVICE_ACCOUNT / "token",
    )


def _from_kubeconfig(files: Sequence[Path], context: str | None) -> Access:
    configs = [(file, _parse(file)) for file in files]
    current = context or next((config.current_context for _, config in configs if config.current_context), None)
    if not current:
        raise ConfigError(f"{files[0]}: current-context is not set. Choose one: kubectl config use-context NAME")
    _, chosen = _entry([(file, config.contexts) for file, config in configs], "contexts", current)
    at, cluster = _entry([(file, config.clusters) for file, config in configs], "clusters", chosen.context.cluster)
    user_at, user = at, User()
    if chosen.context.user:
        user_at, found = _entry([(file, config.users) for file, config in configs], "users", chosen.context.user)
        user = found.user or User()
    return Access(
        server=cluster.cluster.server.rstrip("/"),
        tls=_tls(at, cluster, user_at, user),
        namespace=chosen.context.namespace or "default",
        token=user.token or None,
        token_file=_beside(user_at, user.token_file) if user.token_file and not user.token else None,
        program=user.program,
        impersonate=user.impersonate or None,
        impersonate_groups=tuple(user.impersonate_groups or ()),
    )


def _parse(file: Path) -> Kubeconfig:
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Kubeconfig)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is no kubeconfig: {error}. See: kubectl config view") from error


def _entry(found: Sequence[tuple[Path, list[N] | None]], many: str, name: str) -> tuple[Path, N]:
    """The first of that name, and the file that it is in."""
    for file, entries in found:
        for entry in entries or ():
            if entry.name == name:
                return file, entry
    raise ConfigError(f"{found[0][0]}: {many} has no {name!r}. See what there is: kubectl config view")


def _tls(at: Path, cluster: NamedCluster, user_at: Path, user: User) -> ssl.SSLContext | bool:
    said = cluster.cluster
    if said.server.startswith("http://"):
        return True
    authority = said.certificate_authority
    with _naming(f"{at}: clusters[{cluster.name}].cluster.certificate-authority"):
        data = base64.b64decode(said.certificate_authority_data, validate=True).decode()
        context = _trusting(data=data, file=_beside(at, authority) if authority and not data else None)
    if said.insecure_skip_tls_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _naming(f"{user_at}: the user's client-certificate or client-key"):
        if user.client_certificate_data and user.client_key_data:
            pair = (user.client_certificate_data, user.client_key_data)
            _load_pair(context, *(base64.b64decode(text, validate=True) for text in pair))
        elif user.client_certificate:
            context.load_cert_chain(_beside(user_at, user.client_certificate), _beside(user_at, user.client_key))
    return context


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Say which field it is that cannot be used."""
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError, and what is no base64 a ValueError
        raise ConfigError(f"{field} cannot be used: {error}. See: kubectl config view --raw") from error


def _trusting(*, data: str = "", file: Path | None = None) -> ssl.SSLContext:
    """Trusts the authority of a cluster, as kubectl does: from Python 3.13 on the default also asks for extensions that many lack."""
    context = ssl.create_default_context(cadata=data or None, cafile=str(file) if file else None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """`ssl` reads certificates from files only; this one is readable by us alone and gone at once."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


def _beside(config: Path, name: str) -> Path:
    return config.parent / Path(name).expanduser()


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise Unavailable(f"the token {file} cannot be read: {error}") from error
