"""What a person may see of the cluster, read with their own credentials: every question that `gpuq` answers begins here.

Nothing of the controller is asked, so the answers are there when it is not. Whoever may not list the pods of every namespace of a queue
gets what the controller last wrote on their own pod instead.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec

from gpuqueue.cluster import access, gpu_queues, pods
from gpuqueue.cluster.api import Api, decoded
from gpuqueue.cluster.archive import Archive, ConfigMap
from gpuqueue.cluster.board import Board
from gpuqueue.cluster.board import board as board_of
from gpuqueue.cluster.forecast import estimates
from gpuqueue.cluster.owners import Owners
from gpuqueue.cluster.view import View
from gpuqueue.controller.settings import Settings, decode
from gpuqueue.errors import Gone, Refused
from gpuqueue.history import Past
from gpuqueue.labels import MANAGED
from gpuqueue.run_times import RunTimes

CHART_NAMESPACE = "gpu-queue"
_MANAGED = {"labelSelector": f"{MANAGED}=true"}


@dataclass(slots=True)
class Seen:
    """What could be read."""

    view: View
    settings: Settings
    """What the controller is told, or the defaults for those who may not read that."""
    hidden: list[str] = field(default_factory=list)
    """Namespaces of queues whose pods this person may not list."""
    pasts: list[Past] = field(default_factory=list)
    """What has run; empty if they may not read it."""

    def board(self) -> Board:
        """The picture."""
        now = time.time()
        known = board_of(self.view, now)
        run_times = RunTimes(self.pasts)
        found = {key: e for queue in known.queues.values() if queue.waiting for key, e in estimates(queue, run_times, now).items()}
        return replace(known, starts={key: (each.p50, each.p90) for key, each in found.items()})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Whom to ask."""
    parser.add_argument("--kubeconfig", help="default: KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", help="of the kubeconfig")
    parser.add_argument("--queue-namespace", default=CHART_NAMESPACE, help="where the controller is installed (default: %(default)s)")


@asynccontextmanager
async def reaching(options: argparse.Namespace) -> AsyncIterator[Api]:
    """The API server."""
    async with Api(access.find(options.kubeconfig, options.context)) as api:
        yield api


async def look(api: Api, options: argparse.Namespace, *, history: bool = True) -> Seen:
    """All that this person may see.

    Raises:
        Refused: they may not list GpuQueues, or the cluster has none.
        Unavailable: the API server does not answer.
    """
    owners = Owners(api, lambda: None)
    seen = Seen(view=View(owners, lambda _: None), settings=await settings_of(api, options))
    async for page in _queues(api):
        for item in page:
            seen.view.put_policy(gpu_queues.read(item))
    for namespace in seen.view.namespaces:
        try:
            await _pods_in(api, namespace, seen.view, seen.settings.gpus)
        except Refused:
            seen.hidden.append(namespace)
    seen.view.seen()
    await owners.learn()
    seen.view.owner_changed()
    if history:
        seen.pasts = await read_history(api, options)
    return seen


async def read_history(api: Api, options: argparse.Namespace) -> list[Past]:
    """What has run, or nothing for those who may not read it."""
    try:
        return await Archive(api, namespace=options.queue_namespace, days=0).load()
    except Refused:
        return []


async def find_pod(api: Api, namespace: str, name: str) -> pods.Facts:
    """One pod.

    Raises:
        Gone: there is none of that name.
    """
    try:
        return pods.facts(decoded(await api.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}"), pods.PodObject), {})
    except Gone as error:
        raise Gone(404, error.reason, f"no pod {name} in namespace {namespace}. See: kubectl get pods -n {namespace}") from error


async def _queues(api: Api) -> AsyncIterator[list[msgspec.Raw]]:
    try:
        async for page in api.pages(gpu_queues.PATH):
            yield page.items or []
    except Gone as error:
        raise Gone(
            404, error.reason, "this cluster has no kind GpuQueue. Install the chart: helm install gpu-queue helm/gpu-queue"
        ) from error


async def settings_of(api: Api, options: argparse.Namespace) -> Settings:
    """The controller's settings; the defaults for those who may not read them."""
    try:
        found = await api.get(f"/api/v1/namespaces/{options.queue_namespace}/configmaps/gpu-queue", ConfigMap)
        return decode((found.data or {}).get("settings.yaml", "").encode())
    except (Refused, msgspec.MsgspecError):
        return Settings()


async def _pods_in(api: Api, namespace: str, view: View, table: Mapping[str, int]) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    async for page in api.pages(path, _MANAGED):
        for item in page.items or ():
            view.put_pod(pods.facts(decoded(item, pods.PodObject), table))
    view.unmanaged |= {pod.uid: pod for pod in await pods.unmanaged_in(api, namespace, table)}
