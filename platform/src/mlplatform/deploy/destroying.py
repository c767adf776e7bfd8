"""`make destroy-platform`: what would go is named first, and only what a deployment of this environment has labelled goes.

Data goes too: volumes and namespaces that releases keep are named as such. What the environment bought in a cloud is not touched here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuqueue import labels
from mlplatform.cluster.kubectl import ENVIRONMENT, Cluster
from mlplatform.cluster.objects import Name, kept
from mlplatform.cluster.releases import Release, Releases
from mlplatform.deploy.applied import Applied, Note
from mlplatform.deploy.ground import NAMESPACE
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError
from mlplatform.plan.steps import SYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is there of an environment."""

    releases: tuple[Release, ...]
    kept: tuple[Name, ...]
    """Of releases, what helm would leave: namespaces, volumes, ledgers."""
    applied: tuple[tuple[str, tuple[Name, ...]], ...]
    """By step."""

    @property
    def nothing(self) -> bool:
        """Whether there is nothing at all."""
        return not (self.releases or self.kept or self.applied)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destruction:
    """Of one environment in one cluster."""

    environment: Environment
    cluster: Cluster
    root: Path
    say: Callable[[str], None]

    @property
    def _releases(self) -> Releases:
        return Releases(cluster=self.cluster, environment=self.environment.name, root=self.root)

    def inventory(self) -> Inventory:
        """What would go.

        Raises:
            ConfigError: it may not, or pods wait for GPUs.
        """
        if self.environment.cloud is not None and self.environment.cloud.deletion_protection:
            raise ConfigError(
                f"{self.environment.name} is protected. Write deletion_protection: false under cloud first, and have it reviewed."
            )
        if waiting := self._gated():
            raise ConfigError(
                f"Pods wait at the GPU queue's gate, and nobody would be left to open it: {', '.join(waiting)}. Delete them or let them start."
            )
        releases = tuple(self._releases.all(ours=True))
        noted = (name for name in self._going.read() if self.cluster.get(name) is not None)
        kept = tuple(dict.fromkeys([*(name for release in releases for name in self._kept(release)), *noted]))
        notes = self.cluster.list("configmaps", namespace=SYSTEM, selector=f"{ENVIRONMENT}={self.environment.name}")
        steps = [note["metadata"]["name"].removeprefix("applied-") for note in notes if note["metadata"]["name"].startswith("applied-")]
        applied = tuple((step, tuple(self._applied(step).names())) for step in steps)
        return Inventory(releases=releases, kept=kept, applied=applied)

    def destroy(self, inventory: Inventory) -> None:
        """Take it away, in an order in which nothing is left without what looks after it. Broken off, it is gone on with by a new inventory.

        Pods hold claims, also when they have ended, and the controllers that people's pods belong to are in namespaces of ours: so namespaces with claims go
        first, with all that is in them.
        """
        self._going.write(inventory.kept)
        for release in sorted(inventory.releases, key=lambda one: one.updated, reverse=True):
            self.say(f"release {release.namespace}/{release.name}")
            self._releases.uninstall(release)
        namespaces = {name.name: name for name in inventory.kept if name.kind == "Namespace"}
        others = [name for name in inventory.kept if name.kind != "Namespace" and name.namespace not in namespaces]
        for name in others:
            self.say(name.shown)
            self.cluster.delete(name)
        with_claims = {name.namespace for name in inventory.kept if name.namespace in namespaces}
        self._empty([namespaces[name] for name in namespaces if name in with_claims])
        for step, names in inventory.applied:
            for name in reversed(names):
                if self._applied(step).remove(name):
                    self.say(name.shown)
        self._empty([namespaces[name] for name in namespaces if name not in with_claims])
        self.cluster.delete(NAMESPACE, seconds=300)
        self.say(NAMESPACE.shown)

    def _empty(self, namespaces: list[Name]) -> None:
        """Delete namespaces, side by side."""
        for name in namespaces:
            self.cluster.delete(name, wait=False)
        for name in namespaces:
            self.say(name.shown)
            self.cluster.delete(name, seconds=300)

    @property
    def _going(self) -> Note:
        """Of what releases keep, while they are taken away: after a destruction that was broken off, no release is left that would name it."""
        return Note(cluster=self.cluster, environment=self.environment.name, step="destroy", name="going")

    def _kept(self, release: Release) -> list[Name]:
        """Objects that its manifest says are kept, and that are really its own."""
        found = []
        for name in self._releases.objects(release):
            if name.kind not in {"Namespace", "PersistentVolumeClaim", "GpuQueue"}:
                continue
            there = self.cluster.get(name)
            if there is not None and kept(there) and there["metadata"]["annotations"].get("meta.helm.sh/release-name") == release.name:
                found.append(name)
        return found

    def _gated(self) -> list[str]:
        pods = self.cluster.list("pods", selector=f"{labels.MANAGED}=true")
        return [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods if pod["spec"].get("schedulingGates")]

    def _applied(self, step: str) -> Applied:
        return Applied(cluster=self.cluster, environment=self.environment.name, step=step)
