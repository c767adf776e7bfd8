"""Reading and writing objects of the cluster, a whole step at a time.

Everything is applied server-side under one field manager, so that the API server itself says what would change and who else owns a field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlplatform.cluster.objects import Name, Object, listed, written
from mlplatform.cluster.programs import Programs, complaint

MANAGER = "millrace"
ENVIRONMENT = "millrace.dev/environment"
"""The label on what we applied and may remove: whose environment it is."""
STEP = "millrace.dev/step"
_UNKNOWN = ("no matches for kind", "doesn't have a resource type", "could not find the requested resource")
_GONE = ("not found", *_UNKNOWN)
_CHANGED = re.compile(r"^diff .*?/LIVE-\d+/(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What applying objects would do."""

    new: tuple[Name, ...] = ()
    changed: tuple[str, ...] = ()
    """In kubectl's words."""
    gone: tuple[Name, ...] = ()
    """What the last time had and this one has not."""
    text: str = ""
    """The difference, line by line; values of Secrets are masked."""
    unknown: str = ""
    """Why it could not be compared."""

    @property
    def nothing(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.new or self.changed or self.gone or self.unknown)

    def __add__(self, other: Change) -> Change:
        """Both."""
        return Change(
            new=self.new + other.new,
            changed=self.changed + other.changed,
            gone=self.gone + other.gone,
            text=self.text + other.text,
            unknown=self.unknown or other.unknown,
        )

    def __str__(self) -> str:
        """In a few words."""
        if self.unknown:
            return f"not compared: {self.unknown}"
        parts = [(len(self.new), "new"), (len(self.changed), "changed"), (len(self.gone), "to remove")]
        return ", ".join(f"{count} {word}" for count, word in parts if count) or "as it should be"


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What one field manager is about to write for a step."""

    things: Sequence[Object]
    manager: str = MANAGER
    before: Sequence[Name] = ()
    """What it wrote the last time: what of it is not among `things` goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cluster of a kubeconfig's context."""

    programs: Programs

    def kubernetes(self) -> str:
        """The version of its API server, as `1.36`."""
        told = json.loads(self.programs.kubectl("version", "--output", "json").stdout)["serverVersion"]
        return f"{told['major']}.{re.sub(r'[^0-9].*', '', told['minor'])}"

    def live(self, things: Sequence[Object]) -> dict[Name, Object]:
        """Those of the objects that are there, as they are."""
        if not things:
            return {}
        done = self.programs.kubectl("get", "--filename", "-", "--ignore-not-found", "--output", "json", text=written(things), lenient=True)
        if done.returncode and not any(words in done.stderr for words in _UNKNOWN):
            raise complaint("kubectl", ["get"], done.stderr)
        return {_meant(thing, things): thing for thing in listed(done.stdout)}

    def change(self, things: Sequence[Object], *, manager: str = MANAGER, before: Iterable[Name] = ()) -> Change:
        """What applying `things` would change; `before` is what was applied last time.

        Raises:
            PlatformFailure: the API server would not take it, for example because nobody may change such a field.
        """
        there = self.live(things)
        wanted = [Name.of(thing) for thing in things]
        known = [thing for thing in things if Name.of(thing) in there]
        text = self._difference(known, manager) if known else ""
        return Change(
            new=tuple(name for name in wanted if name not in there),
            changed=tuple(_CHANGED.findall(text)),
            gone=tuple(name for name in before if name not in set(wanted)),
            text=text,
        )

    def _difference(self, things: Sequence[Object], manager: str) -> str:
        arguments = _server_side("diff", manager)
        done = self.programs.kubectl(*arguments, text=written(things), lenient=True)
        if done.returncode > 1:
            raise complaint("kubectl", arguments, done.stderr)
        return done.stdout

    def foreseen(self, things: Sequence[Object], *, manager: str = MANAGER) -> dict[Name, Object]:
        """What they would be if they were applied, as the API server would keep them. Nothing is written."""
        if not things:
            return {}
        arguments = [*_server_side("apply", manager), "--dry-run=server", "--output", "json"]
        done = self.programs.kubectl(*arguments, text=written(things))
        return {_meant(thing, things): thing for thing in listed(done.stdout)}

    def apply(self, things: Sequence[Object]) -> None:
        """Make them so."""
        if things:
            self.programs.kubectl(*_server_side("apply", MANAGER), text=written(things), seconds=600)

    def get(self, name: Name) -> Object | None:
        """One object, if it is there."""
        place = ["--namespace", name.namespace] if name.namespace else []
        done = self.programs.kubectl("get", name.typed, *place, "--ignore-not-found", "--output", "json", lenient=True)
        if done.returncode and not any(words in done.stderr for words in _GONE):
            raise complaint("kubectl", ["get", name.typed], done.stderr)
        found = listed(done.stdout)
        return found[0] if found else None

    def list(self, kind: str, *, selector: str = "", namespace: str = "") -> list[Object]:
        """All of a kind, in one namespace or in all; none where the kind is not known."""
        place = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        chosen = ["--selector", selector] if selector else []
        done = self.programs.kubectl("get", kind, *place, *chosen, "--ignore-not-found", "--output", "json", lenient=True)
        if done.returncode and not any(words in done.stderr for words in _GONE):
            raise complaint("kubectl", ["get", kind], done.stderr)
        return listed(done.stdout)

    def delete(self, name: Name, *, wait: bool = True, seconds: int = 120) -> None:
        """Remove it; fine if it is gone already."""
        place = ["--namespace", name.namespace] if name.namespace else []
        arguments = ["delete", name.typed, *place, "--ignore-not-found", f"--wait={str(wait).lower()}", f"--timeout={seconds}s"]
        done = self.programs.kubectl(*arguments, seconds=seconds + 30, lenient=True)
        if done.returncode and not any(words in done.stderr for words in _GONE):
            raise complaint("kubectl", arguments, done.stderr)

    def create(self, thing: Object) -> bool:
        """Make it, if nobody has: whether we did."""
        done = self.programs.kubectl("create", "--filename", "-", text=written([thing]), lenient=True)
        if done.returncode and "already exists" not in done.stderr:
            raise complaint("kubectl", ["create"], done.stderr)
        return done.returncode == 0

    def replace(self, thing: Object) -> bool:
        """Write it over the version that it names: False where somebody was faster."""
        done = self.programs.kubectl("replace", "--filename", "-", text=written([thing]), lenient=True)
        if done.returncode and not any(words in done.stderr for words in ("has been modified", "not found")):
            raise complaint("kubectl", ["replace"], done.stderr)
        return done.returncode == 0


def marked(thing: Object, *, environment: str, step: str) -> Object:
    """The object with our labels, by which it may be removed."""
    about: Mapping[str, Any] = thing["metadata"]
    labels = {**(about.get("labels") or {}), "app.kubernetes.io/managed-by": MANAGER, ENVIRONMENT: environment, STEP: step}
    return {**thing, "metadata": {**about, "labels": labels}}


def _server_side(verb: str, manager: str) -> list[str]:
    """Of what kubectl reads, in the name of that field manager, who takes over what others wrote there."""
    return [verb, "--server-side", "--force-conflicts", f"--field-manager={manager}", "--filename", "-"]


def _meant(thing: Object, asked: Sequence[Object]) -> Name:
    """The name that we asked by: the server may answer in another version of the same group."""
    name = Name.of(thing)
    group = name.api.rpartition("/")[0]
    for one in asked:
        other = Name.of(one)
        if (other.kind, other.namespace, other.name) == (name.kind, name.namespace, name.name) and other.api.rpartition("/")[0] == group:
            return other
    return name
