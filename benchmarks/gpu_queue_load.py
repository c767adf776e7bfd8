"""What the benchmarks of the GPU queue have in common: pods that several clients create, somebody who watches them, and figures of processes."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import gpu_objects as make
from gpuqueue.cluster.api import Api

TEAMS = [f"team-{letter}" for letter in "abcde"]
NODES = 50
GPUS = NODES * 8
L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
CLIENTS = 4
ENDS = "test.millrace/succeeds-after"
NAME = "test.millrace/name"
"""A label by which a pod is known here: the pod of a Job has a name of its own."""
LOAD = "test.millrace/load"
"""A label that says in which load a pod came: what becomes of earlier ones is no news."""

Row = dict[str, Any]


class Meta(msgspec.Struct):
    """Of a watched pod."""

    name: str
    namespace: str
    labels: dict[str, str] = {}


class Spec(msgspec.Struct, rename={"gates": "schedulingGates"}):
    """Of a watched pod."""

    gates: list[Any] | None = None


class Status(msgspec.Struct):
    """Of a watched pod."""

    phase: str = ""


class Pod(msgspec.Struct):
    """A watched pod."""

    metadata: Meta
    spec: Spec
    status: Status


class Event(msgspec.Struct):
    """Of a watch."""

    type: str
    object: Pod


@dataclass(slots=True)
class Times:
    """When things happened, by the clock of this process."""

    selector: str = "gpu-queue.dev/managed=true"
    """Of the pods that are watched."""
    created: dict[str, float] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, api: Api, since: str) -> None:
        """Watch every such pod from `since` on, for ever."""
        query = {"labelSelector": self.selector}
        async for line in api.watch("/api/v1/pods", since=since, silence=120, lasting=3000, query=query):
            if b'"BOOKMARK"' in line[:40]:
                continue
            event, now = msgspec.json.decode(line, type=Event), time.monotonic()
            meta = event.object.metadata
            key = f"{meta.namespace}/{meta.labels.get(NAME, meta.name)}"
            if not event.object.spec.gates:
                self.opened.setdefault(key, now)
            if event.object.status.phase == "Succeeded":
                self.ended.setdefault(key, now)
            self._moved.set()

    async def until(self, done: Callable[[], bool], seconds: float = 600.0) -> None:
        """Return once `done()`, looked at whenever something was seen.

        Raises:
            TimeoutError: it did not come to that.
        """
        async with asyncio.timeout(seconds):
            while not done():
                self._moved.clear()
                await self._moved.wait()

    def waits(self) -> list[float]:
        """From the answer to the creation until the gate was seen open."""
        return [opened - self.created[key] for key, opened in self.opened.items() if key in self.created]

    def handovers(self, quota: int) -> list[float]:
        """From seeing a pod end until the gate of the next in its line was seen open: the k-th end lets in the (quota + k)-th pod.

        Only of pods that were waiting when the GPU became free.
        """
        found = []
        for queue in TEAMS:
            ends = sorted(at for key, at in self.ended.items() if key.startswith(f"{queue}/"))
            opens = sorted((at, self.created.get(key, at)) for key, at in self.opened.items() if key.startswith(f"{queue}/"))[quota:]
            found += [opened - ended for ended, (opened, created) in zip(ends, opens, strict=False) if created < ended]
        return found


async def create(
    api: Api, times: Times, names: Iterable[str], *, ends_after: str = "", labels: Mapping[str, str] | None = None, jobs: bool = False
) -> None:
    """Create one-GPU pods, or Jobs of one, in the teams' namespaces in turn, from several clients at once."""
    todo = list(enumerate(names))

    async def client(mine: Sequence[tuple[int, str]]) -> None:
        for number, name in mine:
            team = TEAMS[number % len(TEAMS)]
            thing = _job(name, team, ends_after, labels or {}) if jobs else _pod(name, ends_after, labels or {})
            await api.request("POST", f"/apis/batch/v1/namespaces/{team}/jobs" if jobs else f"/api/v1/namespaces/{team}/pods", body=thing)
            times.created[f"{team}/{name}"] = time.monotonic()

    await asyncio.gather(*(client(todo[first::CLIENTS]) for first in range(CLIENTS)))


def _pod(name: str, ends_after: str, labels: Mapping[str, str]) -> Row:
    pod = make.pod(name, gpus=1, nodeSelector=L4)
    pod["metadata"] |= {"annotations": {ENDS: ends_after} if ends_after else {}, "labels": {NAME: name, **labels}}
    return pod


def _job(name: str, namespace: str, ends_after: str, labels: Mapping[str, str]) -> Row:
    """Both carry the labels: a queue may look for its own on the Job or on the pod."""
    job = make.job(name, namespace, parallelism=1, gpus=1, ends_after=ends_after)
    job["metadata"]["labels"] = job["spec"]["template"]["metadata"]["labels"] = {NAME: name, **labels}
    return job


async def version(api: Api) -> str:
    """The resource version of now."""
    async for page in api.pages("/api/v1/pods"):
        return page.metadata.resource_version
    return ""


def machine() -> Row:
    """What the figures were taken on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def percentile(values: list[float], share: float) -> float:
    """To three digits."""
    return round(float(np.percentile(values, share)), 3) if values else float("nan")


def rss(pid: int, what: str = "VmRSS") -> float:
    """Resident memory in MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what))
    return round(int(line.split()[1]) / 1024, 1)


def cpu(pid: int) -> float:
    """Seconds of CPU so far."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")
