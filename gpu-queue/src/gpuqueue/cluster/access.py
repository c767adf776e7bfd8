"""Where the API server is and as whom we speak to it: a service account inside a pod, or a kubeconfig outside.

Written by hand because what reads kubeconfigs in Python brings every model of Kubernetes along. What people use is understood:
several files in KUBECONFIG, certificates and tokens inline or in files, and programs that print credentials, such as GKE's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gpuqueue.errors import ConfigError, Unavailable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS = 60.0
"""How long a token from a file is used before the file is read again: the kubelet rotates it."""
_PROGRAM_SECONDS = 30.0

Entry = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Access:
    """An API server and the credentials for it."""

    server: str
    tls: ssl.SSLContext | bool = True
    namespace: str = "default"
    token: str | None = None
    token_file: Path | None = None
    program: Entry | None = None
    """What prints credentials: command, arguments, environment (`exec` of a kubeconfig)."""
    impersonate: str | None = None
    _read_at: float = field(default=-1e9, init=False)
    _expires: float = field(default=0.0, init=False)

    async def headers(self) -> dict[str, str]:
        """What goes with each request.

        Raises:
            Unavailable: the program that prints credentials failed.
        """
        if self.token_file and time.monotonic() - self._read_at > _TOKEN_SECONDS:
            self.token, self._read_at = _read(self.token_file), time.monotonic()
        if self.program and (self.token is None or time.time() > self._expires):
            self.token, self._expires = await _credential(self.program)
        found = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return found | ({"Impersonate-User": self.impersonate} if self.impersonate else {})


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
    current = context or next((config["current-context"] for _, config in configs if config.get("current-context")), None)
    if not current:
        raise ConfigError(f"{files[0]}: current-context is not set. Choose one: kubectl config use-context NAME")
    _, chosen = _entry(configs, "contexts", "context", current)
    at, cluster = _entry(configs, "clusters", "cluster", chosen.get("cluster", ""))
    user_at, user = _entry(configs, "users", "user", chosen["user"]) if chosen.get("user") else (at, {})
    if not cluster.get("server"):
        raise ConfigError(f"{at}: clusters[{chosen.get('cluster')}].cluster.server is not set")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        tls=_tls(at, cluster, user_at, user),
        namespace=chosen.get("namespace") or "default",
        token=user.get("token"),
        token_file=_beside(user_at, user["tokenFile"]) if user.get("tokenFile") else None,
        program=user.get("exec"),
        impersonate=user.get("as"),
    )


def _parse(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is no kubeconfig. See: kubectl config view")
    return config


def _entry(configs: Sequence[tuple[Path, Entry]], many: str, one: str, name: str) -> tuple[Path, dict[str, Any]]:
    for file, config in configs:
        for entry in config.get(many) or ():
            if entry.get("name") == name:
                return file, entry.get(one) or {}
    raise ConfigError(f"{configs[0][0]}: {many} has no {name!r}. See what there is: kubectl config view")


def _tls(at: Path, cluster: Entry, user_at: Path, user: Entry) -> ssl.SSLContext | bool:
    if str(cluster["server"]).startswith("http://"):
        return True
    data = base64.b64decode(cluster.get("certificate-authority-data") or "").decode()
    file = cluster.get("certificate-authority")
    context = _trusting(data=data, file=_beside(at, file) if file and not data else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _inline(user, "client-certificate"), _inline(user, "client-key")
    if certificate and key:
        _load_pair(context, certificate, key)
    elif user.get("client-certificate"):
        context.load_cert_chain(_beside(user_at, user["client-certificate"]), _beside(user_at, user["client-key"]))
    return context


def _trusting(*, data: str = "", file: Path | None = None) -> ssl.SSLContext:
    """Trusts the authority of a cluster, as kubectl does: from Python 3.13 on the default also asks for extensions that many lack."""
    context = ssl.create_default_context(cadata=data or None, cafile=str(file) if file else None)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _inline(user: Entry, name: str) -> bytes:
    return base64.b64decode(user.get(f"{name}-data") or "")


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


async def _credential(program: Entry) -> tuple[str, float]:
    command = [program["command"], *(program.get("args") or ())]
    settings = {item["name"]: item["value"] for item in program.get("env") or ()}
    asked = {"apiVersion": program.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **settings, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaint = await asyncio.wait_for(process.communicate(), _PROGRAM_SECONDS)
        status = json.loads(out)["status"]
        token = str(status["token"])
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} of the kubeconfig is not installed. {program.get('installHint') or ''}".strip()) from error
    except (OSError, ValueError, KeyError, TimeoutError) as error:
        told = complaint.decode(errors="replace").strip()[-500:] if "complaint" in locals() else ""
        raise Unavailable(f"{' '.join(command)} gave no token: {told or error!r}. Sign in again, then: kubectl get namespaces") from error
    expires = status.get("expirationTimestamp")
    return token, datetime.fromisoformat(expires).timestamp() - _TOKEN_SECONDS if expires else time.time() + 300
