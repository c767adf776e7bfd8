"""A pod, as far as the queue needs it: the few fields of its JSON that matter, and what follows from them.

`facts` keeps about a kilobyte of a pod whose JSON has twelve. Which queue and lane it belongs to is not in the pod: see `placing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from gpuqueue import labels
from gpuqueue.cluster.api import Api, decoded
from gpuqueue.durations import seconds_of
from gpuqueue.quantities import gpus_of, whole
from gpuqueue.queue import MOST_PODS
from gpuqueue.reconcile import Phase

_TERMINAL = frozenset({"Succeeded", "Failed"})
_LONGEST_GROUP, _LONGEST_FAMILY = 253, 600
"""What the ledger's schema has room for: an entry that the API server refuses would hold up the whole queue."""
_NODE_NAME = "workflows.argoproj.io/node-name"
_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of which Kubernetes makes random suffixes."""
_RANDOM = re.compile(rf"-(?:[a-z0-9]*\d[a-z0-9]*|[{_SAFE}]{{5}}|[{_SAFE}]{{10}})$")


class Owner(msgspec.Struct, frozen=True, rename={"api_version": "apiVersion"}):
    """Who made it."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Meta(msgspec.Struct, rename={"resource_version": "resourceVersion", "created": "creationTimestamp", "owners": "ownerReferences"}):
    """Of any object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    created: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owners: list[Owner] | None = None


class Resources(msgspec.Struct):
    """What a container asks for."""

    limits: dict[str, Any] | None = None
    requests: dict[str, Any] | None = None


class Container(msgspec.Struct, rename="camel"):
    """One container."""

    resources: Resources | None = None
    restart_policy: str | None = None


class Gate(msgspec.Struct):
    """A scheduling gate."""

    name: str


class Expression(msgspec.Struct):
    """What a node's label must be."""

    key: str
    operator: str
    values: list[str] | None = None


class Term(msgspec.Struct, rename="camel"):
    """Nodes on which all of these hold."""

    match_expressions: list[Expression] | None = None


class Terms(msgspec.Struct, rename="camel"):
    """Nodes on which one of these holds."""

    node_selector_terms: list[Term] | None = None


class NodeAffinity(msgspec.Struct):
    """Nodes that it must have."""

    required: Terms | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)


class Affinity(msgspec.Struct, rename="camel"):
    """Where it wants to be."""

    node_affinity: NodeAffinity | None = None


class Spec(msgspec.Struct, rename="camel"):
    """What runs, and where."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    resource_claims: list[msgspec.Raw] | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    scheduling_gates: list[Gate] | None = None
    active_deadline_seconds: int | None = None
    node_name: str = ""


class Condition(msgspec.Struct):
    """What is said of it."""

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""


class Status(msgspec.Struct, rename={"start_time": "startTime"}):
    """How it is."""

    phase: str = ""
    start_time: str = ""
    conditions: list[Condition] | None = None


class PodObject(msgspec.Struct):
    """The part of a pod's JSON that is read."""

    metadata: Meta
    spec: Spec
    status: Status = msgspec.field(default_factory=Status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What follows from a pod alone."""

    uid: str
    namespace: str
    name: str
    version: str
    phase: Phase
    gpus: int
    pins: Mapping[str, str]
    """Node labels whose value its node selector or required affinity fixes."""
    since: float
    owner: Owner | None
    group: str | None
    """As its own label or annotation says."""
    size: int
    run_limit: float | None
    family: str
    told: Condition | None
    """Our condition, as it is."""
    running: bool
    """It has been bound to a node."""
    started: float | None
    """When a node took it up."""
    managed: bool
    """It carries our label."""


def facts(pod: PodObject, table: Mapping[str, int]) -> Facts:
    """What there is to know about a pod.

    Args:
        pod: as the API server has it.
        table: how many GPUs one unit of a resource counts as; see `quantities.gpus_of`.
    """
    meta, spec, status = pod.metadata, pod.spec, pod.status
    marks, notes = meta.labels or {}, meta.annotations or {}
    said = {key: notes.get(key, marks.get(key)) for key in (labels.GROUP, labels.GROUP_SIZE, labels.RUN_LIMIT)}
    group = _own_name(said[labels.GROUP] or "")
    owner = next((owner for owner in meta.owners or () if owner.controller), None)
    return Facts(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        version=meta.resource_version,
        phase=_phase(spec, status),
        gpus=gpus(spec, table),
        pins=pins(spec),
        since=moment(meta.created),
        owner=owner,
        group=group[:_LONGEST_GROUP] or None,
        size=_size(said[labels.GROUP_SIZE] if len(group) <= _LONGEST_GROUP else None) if group else 1,
        run_limit=_limit(said[labels.RUN_LIMIT], spec.active_deadline_seconds),
        family=_family(meta, owner, notes.get(_NODE_NAME))[:_LONGEST_FAMILY],
        told=next((condition for condition in status.conditions or () if condition.type == labels.CONDITION), None),
        running=bool(spec.node_name),
        started=moment(status.start_time) if status.start_time else None,
        managed=marks.get(labels.MANAGED) == "true",
    )


def gpus(spec: Spec, table: Mapping[str, int]) -> int:
    """The GPUs of a partial spec."""
    return gpus_of(
        {
            "containers": [_plain(container) for container in spec.containers or ()],
            "initContainers": [_plain(container) for container in spec.init_containers or ()],
            "resourceClaims": spec.resource_claims or (),
        },
        table,
    )


async def unmanaged_in(api: Api, namespace: str, table: Mapping[str, int]) -> list[Facts]:
    """Pods of a namespace that ask for GPUs, have not ended, and lack our label: they never met the gate."""
    query = {"labelSelector": f"{labels.MANAGED}!=true", "fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
    return [
        facts(pod, table)
        async for page in api.pages(f"/api/v1/namespaces/{namespace}/pods", query)
        for item in page.items or ()
        if asks((pod := decoded(item, PodObject)).spec)
    ]


def asks(spec: Spec) -> bool:
    """Whether the gate is for pods like this one, whatever the table says that its GPUs count as."""
    return gpus(spec, {}) > 0


def _plain(container: Container) -> Mapping[str, Any]:
    resources = container.resources or Resources()
    return {"restartPolicy": container.restart_policy, "resources": {"limits": resources.limits, "requests": resources.requests}}


def pins(spec: Spec) -> dict[str, str]:
    """The node labels that a pod fixes to one value: by its node selector, or alike in every term of its required affinity."""
    found = dict(spec.node_selector or {})
    required = spec.affinity and spec.affinity.node_affinity and spec.affinity.node_affinity.required
    terms = [_fixed(term.match_expressions or ()) for term in (required and required.node_selector_terms) or ()]
    if terms:
        common = set(terms[0].items()).intersection(*(set(term.items()) for term in terms[1:]))
        found = dict(common) | found
    return found


def _fixed(expressions: Iterable[Expression]) -> dict[str, str]:
    return {e.key: e.values[0] for e in expressions if e.operator == "In" and e.values and len(e.values) == 1}


def _phase(spec: Spec, status: Status) -> Phase:
    if status.phase in _TERMINAL:
        return "ended"
    return "gated" if any(gate.name == labels.GATE for gate in spec.scheduling_gates or ()) else "open"


def over(pod: PodObject) -> bool:
    """Whether it has ended for good."""
    return pod.status.phase in _TERMINAL


def _own_name(group: str) -> str:
    """A group as people name it; apart from those of owners, which are `job/NAME` and the like (`owners`), whatever somebody writes."""
    return f"named/{group}" if "/" in group else group


def _size(text: str | None) -> int:
    """A group's size as its pods say it; what is no size is one that no group has, so that it is reported and waits."""
    size = whole(text or "")
    return size if 1 <= size <= MOST_PODS else MOST_PODS + 1


def _limit(said: str | None, deadline: int | None) -> float | None:
    """The run limit: as declared, or the deadline that Kubernetes itself enforces, whichever is earlier; nonsense counts as nothing."""
    try:
        declared = None if said is None else float(seconds_of(said))
    except ValueError:
        declared = None
    known = [limit for limit in (declared, None if deadline is None else float(deadline)) if limit is not None]
    return min(known, default=None)


def _family(meta: Meta, owner: Owner | None, node: str | None) -> str:
    """Which jobs it resembles: an Argo step of a workflow, or what its owner is called without random endings."""
    if node:
        run, _, step = node.partition(".")
        return f"{meta.namespace}/{stem(run)}.{step}" if step else f"{meta.namespace}/{stem(run)}"
    return f"{meta.namespace}/{stem(owner.name if owner else meta.name)}"


def stem(name: str) -> str:
    """`name` without the numbers and random suffixes that make it unique: `nightly-train-28391023-x7k2p` is `nightly-train`."""
    shorter = _RANDOM.sub("", name)
    while shorter not in (name, ""):
        name, shorter = shorter, _RANDOM.sub("", shorter)
    return name


def moment(text: str) -> float:
    """Seconds since the epoch; 0 where the text is no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
