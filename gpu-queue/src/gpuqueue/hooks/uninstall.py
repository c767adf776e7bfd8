"""`helm uninstall` asks first: pods that wait at the gate would wait for ever, with nobody left to open it.

Pods that run lose nothing. The kind, the queues and their ledgers stay in the cluster, and a new installation goes on from them.

python -m gpuqueue.hooks.uninstall
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from gpuqueue import labels
from gpuqueue.cluster import access, pods
from gpuqueue.cluster.api import Api, decoded
from gpuqueue.errors import GpuQueueError

_SHOWN = 10


async def waiting(api: Api) -> list[str]:
    """`namespace/name` of every pod that has our gate."""
    found = []
    async for page in api.pages("/api/v1/pods", {"labelSelector": f"{labels.MANAGED}=true"}):
        for item in page.items or ():
            pod = decoded(item, pods.PodObject)
            if any(gate.name == labels.GATE for gate in pod.spec.scheduling_gates or ()):
                found.append(f"{pod.metadata.namespace}/{pod.metadata.name}")
    return sorted(found)


def refusal(names: list[str]) -> str:
    """Why not, and what to do."""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return (
        f"pods wait at the gate and nobody would be left to open it ({len(names)}): {shown}. "
        "Let them start (raise the quota: kubectl edit gq) or delete them, then uninstall again. "
        "To leave them waiting for the next installation: helm uninstall --no-hooks"
    )


async def _ask(kubeconfig: str | None) -> list[str]:
    async with Api(access.find(kubeconfig), agent="gpu-queue-uninstall") as api:
        return await waiting(api)


def main() -> int:
    """Returns 3 if pods wait, and what a command of ours returns if the cluster does not say."""
    parser = argparse.ArgumentParser(prog="gpuqueue.hooks.uninstall", description=__doc__)
    parser.add_argument("--kubeconfig", help="default: the pod that this runs in")
    try:
        names = asyncio.run(_ask(parser.parse_args().kubeconfig))
    except GpuQueueError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if names:
        print(refusal(names), file=sys.stderr)
    return 3 if names else 0


if __name__ == "__main__":
    sys.exit(main())
