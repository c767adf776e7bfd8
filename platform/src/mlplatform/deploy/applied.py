"""What each step has applied, kept in the cluster itself, so that what a later version no longer has is removed, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlplatform.cluster.kubectl import ENVIRONMENT, Cluster, Writing, marked
from mlplatform.cluster.objects import Name, Object
from mlplatform.plan.steps import SYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Names of objects, kept in a ConfigMap of ours.

    Args:
        cluster: where.
        environment: whose.
        step: of which step it is a part.
        name: of the ConfigMap.
    """

    cluster: Cluster
    environment: str
    step: str
    name: str

    def read(self) -> list[Name]:
        """What was written last; nothing where nothing was."""
        kept = self.cluster.get(Name(api="v1", kind="ConfigMap", namespace=SYSTEM, name=self.name))
        return [Name.read(line) for line in (kept or {}).get("data", {}).get("objects", "").splitlines()]

    def write(self, names: Sequence[Name]) -> None:
        """Keep these, in place of what was kept."""
        about = {"name": self.name, "namespace": SYSTEM}
        note = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"objects": "\n".join(map(str, names))}}
        self.cluster.apply([marked(note, environment=self.environment, step=self.step)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Of one step that applies objects itself.

    Args:
        cluster: where.
        environment: whose.
        step: its name.
    """

    cluster: Cluster
    environment: str
    step: str

    @property
    def note(self) -> Note:
        """Where it is kept."""
        return Note(cluster=self.cluster, environment=self.environment, step=self.step, name=f"applied-{self.step}")

    def names(self) -> list[Name]:
        """What has been applied."""
        return self.note.read()

    def writing(self, things: Sequence[Object]) -> Writing:
        """What applying would write."""
        return Writing(things=self._marked(things), before=self.names())

    def apply(self, things: Sequence[Object]) -> None:
        """Apply, and remove what the last time had beyond it. What is about to be applied is noted before: killed in between, nothing is forgotten."""
        before, now = self.names(), [Name.of(thing) for thing in things]
        gone = [name for name in before if name not in set(now)]
        self.note.write([*now, *gone])
        self.cluster.apply(self._marked(things))
        for name in reversed(gone):
            self.remove(name)
        self.note.write(now)

    def remove(self, name: Name) -> bool:
        """Delete an object, if it still carries our label."""
        there = self.cluster.get(name)
        if there is None or (there["metadata"].get("labels") or {}).get(ENVIRONMENT) != self.environment:
            return False
        self.cluster.delete(name)
        return True

    def _marked(self, things: Sequence[Object]) -> list[Object]:
        return [marked(thing, environment=self.environment, step=self.step) for thing in things]
