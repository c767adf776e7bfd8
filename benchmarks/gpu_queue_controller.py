"""The GPU queue's controller on a real control plane: how soon a freed GPU is given on, how many a second, at what cost in requests and memory.

Five queues with 400 GPUs on 50 fake nodes; one-GPU pods that end after a second, created by four clients at once. Beside Kueue, in one run:
`gpu_queue_beside_kueue.py`.

    python benchmarks/gpu_queue_controller.py [--sizes 1000] [--waiting 10000] [--output benchmarks/results/gpu_queue_controller.json]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "builders")]

from gpu_queue_load import GPUS, NODES, TEAMS, Row, Times, cpu, create, machine, percentile, rss, version  # noqa: E402

import binaries  # noqa: E402
import gpu_objects as make  # noqa: E402
from api_client import Refused  # noqa: E402
from control_plane import ControlPlane, Node  # noqa: E402
from gpuqueue.cluster import access  # noqa: E402
from gpuqueue.cluster.api import Api  # noqa: E402
from mlpipelines.commands.screen import console, print_table  # noqa: E402
from mlpipelines.workspace import write_json  # noqa: E402

QUOTA = GPUS // len(TEAMS)
SHORT = 8
"""The quota of a queue in which a long line waits."""
PROBES = "127.0.0.1:28765"
_SETTLES = 30.0
"""Seconds until everybody who waits has been looked at and estimated, and as many again for the figures."""


def main() -> int:
    """Run all, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000], help="pods of each turnover run")
    parser.add_argument("--line", type=int, default=2000, help="pods that wait for 40 GPUs")
    parser.add_argument("--burst", type=int, default=2000, help="pods that all fit")
    parser.add_argument("--waiting", type=int, default=10_000, help="pods that wait while memory is measured")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_queue_controller.json")
    arguments = parser.parse_args()
    parts: list[tuple[str, Callable[[], Coroutine[Any, Any, list[Row]]]]] = [
        *(("turnover", functools.partial(turnover, size, QUOTA)) for size in arguments.sizes),
        ("a long line", functools.partial(turnover, arguments.line, SHORT)),
        ("burst", functools.partial(burst, arguments.burst)),
        ("waiting", functools.partial(waiting, arguments.waiting)),
        ("admission", admission),
    ]
    rows: dict[str, list[Row]] = {}
    for title, part in parts:
        started = time.monotonic()
        rows[title] = [*rows.get(title, []), *asyncio.run(part())]
        console().print(f"{title}: {time.monotonic() - started:.0f} s")
    write_json(arguments.output, {"machine": machine(), **rows})
    for title, table in rows.items():
        print_table(title, table)
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


def names(size: int) -> list[str]:
    """Of so many pods."""
    return [f"job-{number:05}" for number in range(size)]


async def turnover(size: int, quota: int) -> list[Row]:
    """Pods that come, wait, run a second and go."""
    async with cluster(quota) as (plane, api):
        with controller(plane) as process:
            await led()
            return [await _turned_over(api, process, size, quota)]


async def _turned_over(api: Api, process: subprocess.Popen[bytes], size: int, quota: int) -> Row:
    before, times = await scraped(), Times()
    following = asyncio.create_task(times.follow(api, await version(api)))
    started = time.monotonic()
    await create(api, times, names(size), ends_after="1s")
    await times.until(lambda: len(times.ended) == size)
    seconds = time.monotonic() - started
    following.cancel()
    handovers = times.handovers(quota)
    return {
        "pods": size,
        "GPUs": quota * len(TEAMS),
        "finished/s": round(size / seconds, 1),
        "handovers": len(handovers),
        "waited p50 s": percentile(times.waits(), 50),
        "waited p99 s": percentile(times.waits(), 99),
        "freed to open p50 s": percentile(handovers, 50),
        "freed to open p99 s": percentile(handovers, 99),
        **await costs(before, size),
        "RSS MiB": rss(process.pid),
    }


async def burst(size: int) -> list[Row]:
    """Pods that are there already and all fit, when the controller comes."""
    async with cluster(size, run=False) as (plane, api):
        times = Times()
        following = asyncio.create_task(times.follow(api, await version(api)))
        await create(api, times, names(size))
        with controller(plane) as process:
            await times.until(lambda: len(times.opened) == size)
            seconds = max(times.opened.values()) - min(times.opened.values())
            following.cancel()
            return [{"pods": size, "grants/s": round(size / seconds, 1), **await costs(Counter(), size), "RSS MiB": rss(process.pid)}]


async def waiting(size: int) -> list[Row]:
    """Pods that wait in five lines, at whose fronts nothing moves."""
    async with cluster(1, run=False) as (plane, api), background(create(api, Times(), names(size))) as created:
        await created
        with controller(plane) as process:
            await led()
            await asyncio.sleep(_SETTLES)
            usage, page = cpu(process.pid), await scraped()
            await asyncio.sleep(_SETTLES)
            later = await scraped()
            rounds, spent = (later[name] - page[name] for name in ("gpuqueue_round_seconds_count", "gpuqueue_round_seconds_sum"))
            return [
                {
                    "waiting": size,
                    "RSS MiB": rss(process.pid),
                    "highest RSS MiB": rss(process.pid, "VmHWM"),
                    "CPU of one core": round((cpu(process.pid) - usage) / _SETTLES, 3),
                    "round s": round(spent / max(1.0, rounds), 3),
                }
            ]


async def admission(samples: int = 300) -> list[Row]:
    """What the gate adds to creating a pod: dry runs in a namespace with it and in one without, in turn."""
    async with cluster(1, run=False) as (plane, api):
        plane.client.request("POST", "/api/v1/namespaces", make.namespace("plain", managed=False))
        taken: dict[str, list[float]] = {"plain": [], TEAMS[0]: []}
        for number in range(samples):
            for namespace, seconds in taken.items():
                began = time.perf_counter()
                await api.request(
                    "POST", f"/api/v1/namespaces/{namespace}/pods", body=make.pod(f"p{number}", gpus=1), query={"dryRun": "All"}
                )
                seconds.append(1000 * (time.perf_counter() - began))
    names = {"plain": "no gate", TEAMS[0]: "gate and guards"}
    return [
        {"admission": names[namespace], **{f"p{share} ms": percentile(seconds, share) for share in (50, 90, 99)}}
        for namespace, seconds in taken.items()
    ]


# -- the cluster ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def cluster(quota: int, *, run: bool = True) -> AsyncIterator[tuple[ControlPlane, Api]]:
    """A control plane with our chart and five queues; with nodes and what makes pods run only if `run`."""
    nodes = [Node(name=f"gpu-{number}") for number in range(NODES)] if run else []
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder) / "plane", controllers=run, nodes=nodes) as plane:
        millrace(plane, quota)
        async with Api(access.find(str(plane.kubeconfig))) as api:
            yield plane, api


def millrace(plane: ControlPlane, quota: int) -> None:
    """Our chart, but for its pods, and a queue for each team."""
    client = plane.client
    client.apply(make.namespace(make.RELEASE_NAMESPACE, managed=False))
    for thing in rendered():
        client.apply(thing)
    plane.wait("the kind GpuQueue", lambda: answers(plane, "/apis/gpu-queue.dev/v1/gpuqueues"))
    for team in TEAMS:
        client.apply(make.namespace(team))
    set_quotas(plane, quota)
    probe = f"/api/v1/namespaces/{TEAMS[0]}/pods?dryRun=All"
    plane.wait("the gate", lambda: "schedulingGates" in client.request("POST", probe, make.pod(gpus=1))["spec"])


def set_quotas(plane: ControlPlane, quota: int) -> None:
    """So many GPUs for each team."""
    for team in TEAMS:
        queue = make.queue(team, lanes=[make.lane(quota=quota)])
        # guards that look at other queues come up a moment after the kind
        plane.wait(f"queue {team}", functools.partial(done, functools.partial(plane.client.apply, queue)))


def rendered() -> list[Mapping[str, Any]]:
    """Our chart's objects."""
    helm = binaries.paths(["helm"])["helm"]
    version = binaries.pinned("kubernetes", "k8s.io/kubernetes")
    command = [str(helm), "template", "gpu-queue", str(ROOT / "helm" / "gpu-queue"), "--namespace", make.RELEASE_NAMESPACE]
    command += ["--kube-version", version, "--include-crds", "--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [thing for thing in yaml.safe_load_all(text) if thing and thing["kind"] not in ("Deployment", "Pod")]


def answers(plane: ControlPlane, path: str) -> bool:
    """Whether there is something at `path`."""
    return done(lambda: plane.client.request("GET", path))


def done(ask: Callable[[], object]) -> bool:
    """Whether the API server does it already."""
    try:
        ask()
    except Refused:
        return False
    return True


def controller(plane: ControlPlane) -> subprocess.Popen[bytes]:
    """One replica, as a context manager that ends it."""
    kubeconfig = plane.kubeconfig_for(make.CONTROLLER.user)
    command = [sys.executable, "-m", "gpuqueue", "controller", "--kubeconfig", str(kubeconfig), "--namespace", make.RELEASE_NAMESPACE]
    command += ["--identity", "benchmark", "--probes", PROBES]
    log = (plane.logs / "controller.log").open("wb")
    return _Ended(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ})


class _Ended(subprocess.Popen[bytes]):
    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()


@asynccontextmanager
async def background(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A task that is gone afterwards."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()


# -- the figures ------------------------------------------------------------------------------------------------------------


async def led() -> None:
    """Return when the controller leads."""
    while True:
        try:
            if (await scraped()).get("gpuqueue_leader") == 1:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)


async def scraped() -> Counter[str]:
    """The controller's metrics, summed over all labels, and the requests by verb and resource."""
    reader, writer = await asyncio.open_connection(*PROBES.split(":"))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("gpuqueue_"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]  # a Counter of floats
            if name.startswith("gpuqueue_api_requests_total"):
                labels = dict(part.split("=") for part in name.partition("{")[2].rstrip("}").split(","))
                found[f"{labels['verb']} {labels['resource']}".replace('"', "")] += float(value)  # type: ignore[assignment]
    return found


async def costs(before: Counter[str], size: int) -> Row:
    """The controller's requests for each pod that was let in."""
    after = await scraped()
    spent = {name: (after[name] - before[name]) / size for name in after if " " in name}
    verbs = ("PATCH", "PUT", "POST")
    writes = sum(count for name, count in spent.items() if name.startswith(verbs) and not name.endswith(("leases", "reviews")))
    return {
        "writes/pod": round(writes, 2),
        "of them ledger": round(spent.get("PUT gpuqueues/status", 0.0), 2),
        "gate": round(spent.get("PATCH pods", 0.0), 2),
        "telling": round(spent.get("PATCH pods/status", 0.0) + spent.get("POST events", 0.0), 2),
        "reads/pod": round(sum(count for name, count in spent.items() if name.startswith("GET")), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
