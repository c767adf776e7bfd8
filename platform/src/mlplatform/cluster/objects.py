"""Objects of Kubernetes as plain mappings, and what names one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Object = Mapping[str, Any]

WITH_PODS = frozenset({"Deployment", "StatefulSet", "DaemonSet"})
"""Kinds whose objects make pods from a template."""


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Name:
    """What names an object."""

    api: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, thing: Object) -> Name:
        """Of that object."""
        about = thing["metadata"]
        return cls(
            api=str(thing["apiVersion"]), kind=str(thing["kind"]), namespace=str(about.get("namespace", "")), name=str(about["name"])
        )

    @classmethod
    def read(cls, text: str) -> Name:
        """The inverse of `str`."""
        api, kind, namespace, name = text.split("|")
        return cls(api=api, kind=kind, namespace=namespace, name=name)

    def __str__(self) -> str:
        """In one word, for keeping."""
        return f"{self.api}|{self.kind}|{self.namespace}|{self.name}"

    @property
    def typed(self) -> str:
        """As kubectl is asked for it: the kind with its group, so that no other kind of the same name is meant."""
        group, slash, version = self.api.partition("/")
        return f"{self.kind}.{version}.{group}/{self.name}" if slash else f"{self.kind}/{self.name}"

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def parsed(text: str) -> list[Object]:
    """The objects in a stream of YAML documents, without what a controller of the cluster writes into them."""
    return [_ours(thing) for thing in yaml.load_all(text, Loader=_LOADER) if thing]


def listed(text: str) -> list[Object]:
    """What `kubectl … --output json` says: one object, a list of them, or nothing."""
    said = json.loads(text) if text.strip() else None
    if not said:
        return []
    return list(said["items"]) if said.get("kind") == "List" else [said]


def kept(thing: Object) -> bool:
    """Whether helm leaves it there when its release has it no more."""
    return (thing["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"


def written(things: Iterable[Object]) -> str:
    """The inverse of `parsed`: documents in JSON, which is YAML. In plain YAML a text such as `y` would be one to Python and a truth value to kubectl and helm."""
    return "".join(f"---\n{json.dumps(thing)}\n" for thing in things)


def _ours(thing: Object) -> Object:
    """The rules of an aggregated role are gathered by the cluster: whoever writes them would take them away for a moment, at every look."""
    return {key: value for key, value in thing.items() if key != "rules"} if "aggregationRule" in thing else thing


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
