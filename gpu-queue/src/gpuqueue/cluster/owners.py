"""Whose pods start together: what a pod's owner says about its size.

A pod of a Job, JobSet or training job does not say how many siblings it has; its owner does, so that is read, once for each owner and again
while some are missing. Owners of any other kind (an Argo workflow, a notebook) make no group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gpuqueue.cluster.api import Api, decoded
from gpuqueue.cluster.pods import Facts, Meta, Owner, Spec, asks
from gpuqueue.errors import Gone, Refused, Unavailable

_AGAIN_SECONDS = 2.0
_KEPT_SECONDS = 3600.0
_RESOURCES = {
    ("batch", "Job"): "jobs",
    ("jobset.x-k8s.io", "JobSet"): "jobsets",
    ("kubeflow.org", "PyTorchJob"): "pytorchjobs",
    ("kubeflow.org", "TFJob"): "tfjobs",
    ("kubeflow.org", "MPIJob"): "mpijobs",
    ("kubeflow.org", "XGBoostJob"): "xgboostjobs",
    ("kubeflow.org", "JAXJob"): "jaxjobs",
    ("kubeflow.org", "PaddleJob"): "paddlejobs",
}


class _Template(msgspec.Struct):
    spec: Spec


class _JobSpec(msgspec.Struct):
    template: _Template
    parallelism: int | None = None
    completions: int | None = None


class _JobStatus(msgspec.Struct):
    succeeded: int = 0


class _Job(msgspec.Struct):
    metadata: Meta
    spec: _JobSpec
    status: _JobStatus = msgspec.field(default_factory=_JobStatus)


class _JobTemplate(msgspec.Struct):
    spec: _JobSpec


class _ReplicatedJob(msgspec.Struct, rename={"depends_on": "dependsOn"}):
    template: _JobTemplate
    replicas: int = 1
    depends_on: list[msgspec.Raw] | None = None


class _Startup(msgspec.Struct, rename={"order": "startupPolicyOrder"}):
    order: str = ""


class _JobSetSpec(msgspec.Struct, rename={"jobs": "replicatedJobs", "startup": "startupPolicy"}):
    jobs: list[_ReplicatedJob] | None = None
    startup: _Startup | None = None


class _JobSet(msgspec.Struct):
    spec: _JobSetSpec


class _Replicas(msgspec.Struct):
    template: _Template
    replicas: int = 1


class _TrainingJob(msgspec.Struct):
    spec: dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pods that start together; of size 1, a pod that starts by itself."""

    name: str | None = None
    size: int = 1


ALONE = Group()


@dataclass(slots=True)
class _Known:
    group: Group
    at: float
    trouble: str = ""


class Owners:
    """Remembers what owners say.

    Args:
        api: whom to ask.
        changed: is called when something was learned.
    """

    def __init__(self, api: Api, changed: Callable[[], None]) -> None:
        self._api, self._changed = api, changed
        self._known: dict[str, _Known] = {}
        self._wanted: dict[str, tuple[str, Owner]] = {}
        self._asked = asyncio.Event()

    def group_of(self, pod: Facts) -> tuple[Group, str]:
        """The group of a pod, and what keeps it from being known; what is not known yet is asked for by `learn`."""
        owner = pod.owner
        if pod.group is not None:
            return Group(name=pod.group, size=pod.size), ""
        if owner is None or _resource(owner) is None:
            return ALONE, ""
        known = self._known.get(owner.uid)
        if known is None:
            self._want(pod.namespace, owner)
            return ALONE, f"{owner.kind} {owner.name} says how many pods start together; it is being read"
        if known.trouble:
            self.ask_again(pod)
        return known.group, known.trouble

    def ask_again(self, pod: Facts) -> None:
        """Its group is not complete: perhaps the owner has changed its mind."""
        owner = pod.owner
        if owner is not None and (known := self._known.get(owner.uid)) and time.monotonic() - known.at > _AGAIN_SECONDS:
            self._want(pod.namespace, owner)

    async def wanted(self) -> None:
        """Return when there is something to learn."""
        await self._asked.wait()

    async def learn(self) -> None:
        """Read what is wanted."""
        wanted, self._wanted = self._wanted, {}
        self._asked.clear()
        for uid, (namespace, owner) in wanted.items():
            before = self._known.get(uid)
            try:
                known = _Known(await self._read(namespace, owner), time.monotonic())
            except (Refused, Unavailable, msgspec.MsgspecError) as error:
                known = _Known(ALONE, time.monotonic(), f"{owner.kind} {owner.name} cannot be read: {error}")
            self._known[uid] = known
            if before is None or (before.group, before.trouble) != (known.group, known.trouble):
                self._changed()
        self._known = {uid: known for uid, known in self._known.items() if time.monotonic() - known.at < _KEPT_SECONDS}

    def _want(self, namespace: str, owner: Owner) -> None:
        self._wanted[owner.uid] = (namespace, owner)
        self._asked.set()

    async def _read(self, namespace: str, owner: Owner) -> Group:
        group, _, version = owner.api_version.partition("/")
        path = f"/apis/{group}/{version}/namespaces/{namespace}/{_resource(owner)}/{owner.name}"
        try:
            text = await self._api.request("GET", path)
        except Gone:
            return ALONE
        if owner.kind == "Job":
            return await self._of_job(namespace, owner, decoded(text, _Job))
        if owner.kind == "JobSet":
            return _of_jobset(owner, decoded(text, _JobSet))
        return _of_training_job(owner, decoded(text, _TrainingJob))

    async def _of_job(self, namespace: str, owner: Owner, job: _Job) -> Group:
        """A Job made by a JobSet is part of that one's group, unless the JobSet starts its Jobs one after another."""
        above = next((each for each in job.metadata.owners or () if each.controller and each.kind == "JobSet"), None)
        if above is not None and (whole := await self._read(namespace, above)) is not ALONE:
            return whole
        size = _parallel(job.spec)
        if job.spec.completions is not None:
            size = min(size, max(1, job.spec.completions - job.status.succeeded))
        elif job.status.succeeded:
            return ALONE  # a work queue that has come to its end makes no new pods
        return _group("job", owner.name, size)


def _resource(owner: Owner) -> str | None:
    return _RESOURCES.get((owner.api_version.partition("/")[0], owner.kind))


def _of_jobset(owner: Owner, jobset: _JobSet) -> Group:
    jobs = jobset.spec.jobs or []
    in_turn = any(job.depends_on for job in jobs) or (jobset.spec.startup is not None and jobset.spec.startup.order == "InOrder")
    if in_turn:
        return ALONE
    return _group(
        "jobset", owner.name, sum(job.replicas * _parallel(job.template.spec) for job in jobs if asks(job.template.spec.template.spec))
    )


def _of_training_job(owner: Owner, job: _TrainingJob) -> Group:
    """The `…ReplicaSpecs` of Kubeflow's training jobs; only pods that ask for GPUs are behind the gate."""
    specs: list[Mapping[str, Any]] = [decoded(raw, dict[str, _Replicas]) for name, raw in job.spec.items() if name.endswith("ReplicaSpecs")]
    return _group(
        owner.kind.lower(), owner.name, sum(each.replicas for spec in specs for each in spec.values() if asks(each.template.spec))
    )


def _parallel(job: _JobSpec) -> int:
    parallelism = 1 if job.parallelism is None else job.parallelism
    return parallelism if job.completions is None else min(parallelism, job.completions)


def _group(kind: str, name: str, size: int) -> Group:
    """The slash keeps it apart from groups that people name (`pods.facts`)."""
    return Group(name=f"{kind}/{name}", size=size) if size > 1 else ALONE
