"""What a plan is made of. A step has one owner, who alone writes its objects, and is done when all of them are ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlplatform.plan.registry_rights import RegistryRights

SYSTEM = "millrace-system"
"""The namespace that is ours alone: the lock, what each step has applied, and the releases that belong to no component."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A release of a chart in helm/."""

    path: str
    """From the root of the repository."""
    release: str
    namespace: str
    values: Mapping[str, Any]
    kept: tuple[str, ...] = ()
    """Values that the release may have changed by itself and an upgrade leaves alone, as paths: a rollout's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteChart:
    """A release of somebody else's chart, fetched when it is deployed."""

    repository: str
    chart: str
    version: str
    release: str
    namespace: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """A kustomization in k8s/, applied server-side."""

    path: str
    settings: Mapping[str, Mapping[str, str]]
    """By ConfigMap of it: what this environment sets otherwise."""
    fetched: str = ""
    """What of it is fetched from its release when it is deployed; empty if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A password, token or key by the name under which it is kept."""

    name: str
    length: int = 32
    """Of what is made by chance, where an environment wants that; 0: nobody can make it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretObject:
    """A Secret of the cluster and what it is made of."""

    namespace: str
    name: str
    data: Mapping[str, str]
    """By key, a text with `{{ .NAME }}` where a credential stands."""
    sources: Mapping[str, Credential]
    """By NAME."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Secrets from files, or ones that somebody else makes and a deployment looks for."""

    objects: tuple[SecretObject, ...]
    made_here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One of a plan."""

    name: str
    what: str
    """For people: what is there when it is done."""
    owner: str
    """Who alone writes its objects."""
    source: Chart | RemoteChart | Manifests | Secrets | RegistryRights
    ready: str = "all its pods are ready"
    """What is waited for, for people."""
    patience: int = 300
    """Seconds that may take."""

    @property
    def namespace(self) -> str:
        """Where it is, or most of it."""
        return self.source.namespace if isinstance(self.source, Chart | RemoteChart) else SYSTEM

    @property
    def fetched(self) -> str:
        """What is fetched when it is deployed; empty: everything is in the repository."""
        match self.source:
            case RemoteChart() as chart:
                return f"{chart.chart} {chart.version} from {chart.repository}"
            case Manifests() as manifests:
                return manifests.fetched
            case _:
                return ""
