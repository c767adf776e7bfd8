"""The GPU queue beside Kueue: the same pods and Jobs through each of them, in turn, on the same machine, on control planes that are made alike.

Five teams with 400 GPUs on 50 fake nodes. One-GPU pods that run a second, created by four clients at once; then Jobs of one such pod; then a
line that waits until its quota is raised to hold all of it. Each has its turn twice, in both orders, and each turn has a control plane of its own,
so that nobody pays for what another left behind. Requests are counted from the API server's audit log.

    python benchmarks/gpu_queue_beside_kueue.py [--pods 400] [--jobs 300] [--burst 400] [--turns millrace kueue kueue millrace]

Kueue's manager is built from Go modules the first time, which takes minutes: python tools/binaries.py kueue
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "builders")]

from gpu_queue_controller import controller, led, millrace, set_quotas  # noqa: E402
from gpu_queue_load import GPUS, LOAD, NODES, TEAMS, Row, Times, create, machine, percentile, rss, version  # noqa: E402
from kueue_release import LOCAL_QUEUE, QUEUE_LABEL, USER, kueue, queue  # noqa: E402

import gpu_objects as make  # noqa: E402
from control_plane import ControlPlane, Node  # noqa: E402
from gpuqueue.cluster import access  # noqa: E402
from gpuqueue.cluster.api import Api  # noqa: E402
from mlpipelines.commands.screen import console, print_table  # noqa: E402
from mlpipelines.workspace import write_json  # noqa: E402

OUTPUT = ROOT / "benchmarks" / "results" / "gpu_queue_beside_kueue.json"
OURSELVES = "admin"
"""As whom this benchmark creates things: its own requests are nobody's cost."""
PATIENCE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One of the two."""

    user: str
    """As whom its controller speaks to the API server."""
    labels: Mapping[str, str]
    """What pods and Jobs need to be queued by it."""
    quotas: Callable[[ControlPlane, int], None]
    """Gives every team so many GPUs."""


def main() -> int:
    """Run all turns, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pods", type=int, default=400, help="pods that come and go")
    parser.add_argument("--jobs", type=int, default=300, help="Jobs that come and go")
    parser.add_argument("--burst", type=int, default=400, help="pods that wait and then all fit")
    parser.add_argument("--turns", nargs="+", choices=SYSTEMS, default=["millrace", "kueue", "kueue", "millrace"])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    rows: dict[str, list[Row]] = {"pods": [], "Jobs": [], "burst": []}
    for number, name in enumerate(arguments.turns, start=1):
        console().print(f"turn {number} of {len(arguments.turns)}: {name}")
        for load, row in asyncio.run(turn(name, arguments.pods, arguments.jobs, arguments.burst)).items():
            rows[load].append({"turn": number, "by": name, **row})
    write_json(arguments.output, {"machine": machine(), **rows})
    for load, table in rows.items():
        print_table(load, [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in table])
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


async def turn(name: str, pods: int, jobs: int, burst: int) -> dict[str, Row]:
    """All loads through one of them, on a control plane of its own."""
    system = SYSTEMS[name]
    with control_plane() as (plane, audit), RUNNING[name](plane) as manager:
        await ready(name, plane, system)
        async with Api(access.find(str(plane.kubeconfig))) as api:
            measured = Measured(plane=plane, api=api, system=system, audit=audit, process=manager)
            return {
                "pods": await measured.turnover([f"pod-{number:05}" for number in range(pods)], jobs=False),
                "Jobs": await measured.turnover([f"job-{number:05}" for number in range(jobs)], jobs=True),
                "burst": await measured.burst([f"burst-{number:05}" for number in range(burst)]),
            }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is measured in a turn."""

    plane: ControlPlane
    api: Api
    system: System
    audit: Path
    process: subprocess.Popen[bytes]

    async def turnover(self, names: Sequence[str], *, jobs: bool) -> Row:
        """Those that come, wait, run a second and go."""
        load = "jobs" if jobs else "pods"
        since, times, started = self.audit.stat().st_size, Times(selector=f"{LOAD}={load}"), time.monotonic()
        following = asyncio.create_task(times.follow(self.api, await version(self.api)))
        await create(self.api, times, names, ends_after="1s", labels={LOAD: load, **self.system.labels}, jobs=jobs)
        await times.until(lambda: len(times.ended) == len(names), PATIENCE)
        seconds = time.monotonic() - started
        following.cancel()
        return {
            "finished/s": round(len(names) / seconds, 1),
            "admitted after p50 s": percentile(times.waits(), 50),
            "p99 s": percentile(times.waits(), 99),
            **await self._costs(since, len(names)),
        }

    async def burst(self, names: Sequence[str]) -> Row:
        """Those that wait for a quota which is then raised so that all fit."""
        self.system.quotas(self.plane, 0)
        times = Times(selector=f"{LOAD}=burst")
        following = asyncio.create_task(times.follow(self.api, await version(self.api)))
        await create(self.api, times, names, labels={LOAD: "burst", **self.system.labels})
        await asyncio.sleep(5)  # whoever waits has been looked at and told
        assert not times.opened, "somebody was admitted without any quota"
        since, raised = self.audit.stat().st_size, time.monotonic()
        self.system.quotas(self.plane, GPUS // len(TEAMS))
        await times.until(lambda: len(times.opened) == len(names), PATIENCE)
        following.cancel()
        opened = sorted(times.opened.values())
        costs = await self._costs(since, len(names))
        return {"grants/s": round(len(names) / (opened[-1] - raised), 1), "first after s": round(opened[0] - raised, 2), **costs}

    async def _costs(self, since: int, admitted: int) -> Row:
        """Requests for each that was admitted, once nothing more comes of them."""
        await asyncio.sleep(3)
        spent = requests(self.audit, since)
        own = {what: count for (user, what), count in spent.items() if user == self.system.user}
        return {
            "requests": round(sum(spent.values()) / admitted, 1),
            "writes": round(_writes(spent) / admitted, 1),
            "its own requests": round(sum(own.values()) / admitted, 2),
            "its own writes": round(_writes({(self.system.user, what): count for what, count in own.items()}) / admitted, 2),
            "RSS MiB": rss(self.process.pid),
            "by component": _by_component(spent, self.system.user, admitted),
            "its own, by verb": {what: round(count / admitted, 2) for what, count in sorted(own.items()) if count / admitted >= 0.01},
        }


def requests(audit: Path, since: int) -> Counter[tuple[str, str]]:
    """(who, verb and resource) of every request after the byte `since` of the audit log, without watches, leases and our own."""
    found: Counter[tuple[str, str]] = Counter()
    with audit.open("rb") as log:
        log.seek(since)
        for line in log:
            event = json.loads(line)
            what, user = event.get("objectRef", {}), event["user"]["username"]
            if event["verb"] == "watch" or what.get("resource") in (None, "leases") or user == OURSELVES:
                continue
            kind = "/".join(filter(None, [what["resource"], what.get("subresource")]))
            found[user, f"{event['verb']} {kind}"] += 1
    return found


def _writes(spent: Mapping[tuple[str, str], int]) -> int:
    return sum(count for (_, what), count in spent.items() if what.partition(" ")[0] not in ("get", "list"))


def _by_component(spent: Mapping[tuple[str, str], int], own: str, admitted: int) -> dict[str, float]:
    found: Counter[str] = Counter()
    for (user, _), count in spent.items():
        found["itself" if user == own else user.rpartition(":")[2]] += count
    return {name: round(count / admitted, 2) for name, count in found.most_common() if count / admitted >= 0.01}


# -- the two ----------------------------------------------------------------------------------------------------------------


@contextmanager
def control_plane() -> Iterator[tuple[ControlPlane, Path]]:
    """A control plane with fake nodes, and its audit log."""
    with tempfile.TemporaryDirectory() as name:
        folder, audit = Path(name), Path(name) / "audit.log"
        rules = {"omitStages": ["RequestReceived", "ResponseStarted"], "rules": [{"level": "Metadata"}]}
        (folder / "audit.json").write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **rules}))
        more = {"kube-apiserver": [f"--audit-policy-file={folder / 'audit.json'}", f"--audit-log-path={audit}"]}
        nodes = [Node(name=f"gpu-{number}") for number in range(NODES)]
        with ControlPlane(folder / "plane", controllers=True, nodes=nodes, more=more) as plane:
            yield plane, audit


@contextmanager
def our_own(plane: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    """Our chart and one replica of its controller."""
    millrace(plane, GPUS // len(TEAMS))
    with controller(plane) as process:
        yield process


@contextmanager
def kueues(plane: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    """Kueue's manager with a queue for each team."""
    for team in TEAMS:
        plane.client.apply(make.namespace(team, managed=False))
    with kueue(plane) as manager:
        kueue_quotas(plane, GPUS // len(TEAMS))
        yield manager


def kueue_quotas(plane: ControlPlane, gpus: int) -> None:
    """So many GPUs for each team."""
    for team in TEAMS:
        queue(plane, team, gpus)


SYSTEMS = {
    "millrace": System(user=make.CONTROLLER.user, labels={}, quotas=set_quotas),
    "kueue": System(user=USER, labels={QUEUE_LABEL: LOCAL_QUEUE}, quotas=kueue_quotas),
}
RUNNING = {"millrace": our_own, "kueue": kueues}


async def ready(name: str, plane: ControlPlane, system: System) -> None:
    """Return once a pod would be gated and somebody is there to open the gate."""
    if name == "millrace":
        await led()
    pod = make.pod(gpus=1)
    pod["metadata"]["labels"] = dict(system.labels)
    path = f"/api/v1/namespaces/{TEAMS[0]}/pods?dryRun=All"
    plane.wait("the gate", lambda: "schedulingGates" in plane.client.request("POST", path, pod)["spec"])


if __name__ == "__main__":
    sys.exit(main())
