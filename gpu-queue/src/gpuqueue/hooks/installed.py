"""`helm test`: ask the cluster what somebody with a GPU pod would meet, and say what is not as it should be.

Pods are only asked for (dry run), in a namespace that the test brings. Each question is asked again until the answer is right or time is up: right
after an installation the API server takes a few seconds to put policies in force.

python -m gpuqueue.hooks.installed --namespace gpu-queue --try-in gpu-queue-test --api http://gpu-queue.gpu-queue
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from gpuqueue import labels
from gpuqueue.cluster import access, gpu_queues
from gpuqueue.cluster.api import Api
from gpuqueue.errors import GpuQueueError, Refused, Unavailable

PERSISTENCE_SECONDS = 90.0
_GPU = "nvidia.com/gpu"

Question = tuple[str, Callable[[], Awaitable[str]]]
"""What should be so, and how to find out: empty if it is, else what is there instead."""


class Visit:
    """The questions.

    Args:
        api: the cluster, as somebody who may create pods in `try_in`.
        namespace: of the release.
        try_in: a namespace that has opted in.
        page: address of the page and the API.
    """

    def __init__(self, api: Api, *, namespace: str, try_in: str, page: str) -> None:
        self._api, self._namespace, self._page = api, namespace, page
        self._pods = f"/api/v1/namespaces/{try_in}/pods?dryRun=All"

    def questions(self) -> list[Question]:
        """In the order in which a failure explains the next ones."""
        return [
            ("the API server knows the kind GpuQueue", self._kind),
            ("a GPU pod waits at the gate and carries our label", self._gpu_pod),
            ("a pod without GPUs stays as it is", self._cpu_pod),
            ("a GPU pod that names its node is refused", self._bypass),
            ("a replica of the controller leads", self._leader),
            ("the API tells strangers nothing", self._stranger),
            ("the API answers whom the cluster knows", self._visitor),
        ]

    async def _kind(self) -> str:
        await self._api.request("GET", f"{gpu_queues.PATH}?limit=1")
        return ""

    async def _gpu_pod(self) -> str:
        pod = await self._created(_pod(gpus=1))
        gates = [gate["name"] for gate in pod["spec"].get("schedulingGates", ())]
        label = pod["metadata"].get("labels", {}).get(labels.MANAGED)
        return "" if gates == [labels.GATE] and label == "true" else f"gates {gates}, label {label}"

    async def _cpu_pod(self) -> str:
        pod = await self._created(_pod())
        changed = pod["spec"].get("schedulingGates") or labels.MANAGED in pod["metadata"].get("labels", {})
        return f"it came back as {pod}" if changed else ""

    async def _bypass(self) -> str:
        try:
            await self._created(_pod(gpus=1, nodeName="somewhere"))
        except Refused as error:
            return "" if "passes by the queue" in error.message else str(error)
        return "it was accepted"

    async def _leader(self) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/gpu-queue"
        before = await self._read(path)
        await asyncio.sleep(before["spec"].get("leaseDurationSeconds") or 1)
        after = await self._read(path)
        renewed = after["spec"].get("holderIdentity") and after["spec"]["renewTime"] != before["spec"].get("renewTime")
        return "" if renewed else f"nobody renews the Lease {self._namespace}/gpu-queue: {after['spec']}"

    async def _stranger(self) -> str:
        code, text = await self._ask({})
        return "" if code == 401 else f"{code}: {text[:200]}"  # noqa: PLR2004 (who are you)

    async def _visitor(self) -> str:
        code, text = await self._ask(await self._api.access.headers())
        return "" if code == 200 and "leader" in msgspec.json.decode(text) else f"{code}: {text[:200]}"  # noqa: PLR2004 (OK)

    async def _created(self, pod: Mapping[str, Any]) -> Any:
        return msgspec.json.decode(await self._api.request("POST", self._pods, body=pod))

    async def _read(self, path: str) -> Any:
        return msgspec.json.decode(await self._api.request("GET", path))

    async def _ask(self, headers: Mapping[str, str]) -> tuple[int, str]:
        """What the page's server says; its certificate may be for another name, and what matters here is who answers whom."""
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self._page}/api/v1/queues", headers=headers, ssl=False) as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._page} did not answer: {error or type(error).__name__}") from error


def _pod(*, gpus: int = 0, **spec: Any) -> dict[str, Any]:
    limits = {"cpu": "1", "memory": "64Mi"} | ({_GPU: str(gpus)} if gpus else {})
    container = {"name": "main", "image": "never-pulled", "resources": {"limits": limits}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asked-for"}, "spec": {"containers": [container], **spec}}


async def ask(questions: Sequence[Question], *, seconds: float = PERSISTENCE_SECONDS) -> int:
    """Ask each until it is answered right, or at least once and until `seconds` are over for all; returns how many were not."""
    wrong, deadline = 0, time.monotonic() + seconds
    for what, question in questions:
        found = await _persistently(question, deadline)
        wrong += bool(found)
        print(f"FAILED  {what}: {found}" if found else f"ok      {what}", flush=True)
    return wrong


async def _persistently(question: Callable[[], Awaitable[str]], deadline: float) -> str:
    while True:
        try:
            found = await question()
        except GpuQueueError as error:
            found = str(error)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(1)


async def _visit(arguments: argparse.Namespace) -> int:
    async with Api(access.find(arguments.kubeconfig), agent="gpu-queue-test") as api:
        visit = Visit(api, namespace=arguments.namespace, try_in=arguments.try_in, page=arguments.api)
        return await ask(visit.questions(), seconds=arguments.seconds)


def main() -> int:
    """Ask everything; returns 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(prog="gpuqueue.hooks.installed", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: the pod that this runs in")
    parser.add_argument("--namespace", required=True, help="of the release")
    parser.add_argument("--try-in", required=True, help="a namespace that has opted in")
    parser.add_argument("--api", required=True, help="address of the page and the API")
    parser.add_argument("--seconds", type=float, default=PERSISTENCE_SECONDS, help="for all questions together")
    return 1 if asyncio.run(_visit(parser.parse_args())) else 0


if __name__ == "__main__":
    sys.exit(main())
