"""Whether people start when they were told: expected starts on ten real GPU clusters, each asked for with no more than was known then.

Every cluster of the trace is replayed (as in gpu_queue_traces.py); at the arrival of some of its jobs the line is estimated from the jobs
that had ended by then, and compared with the start that came true. Six ways, side by side:

- "recent waits": no model at all; the waits of the hundred jobs that started last, and their ninth decile.
- "by limits": every job runs as long as it declares; what one can say without a history.
- "run times": run times from the history, where nobody declares a limit.
- "with limits": the same, where everybody declares one: the next of 1, 4, 12, 24, 72, 168 and 672 hours that is at least half as long
  again as the job truly runs (the trace does not say what people declared).
- "told": "with limits", with P90 put off by what earlier estimates were wrong. This is what `gpuqueue.estimate` tells people; and "told
  without limits" what it tells them where nobody declares a limit.

The trace names no users and no kinds of jobs, so a family is nothing but a size and a limit here.

    python benchmarks/gpu_queue_eta.py [--sample 120] [--processes 2] [--output benchmarks/results/gpu_queue_eta.json]
"""

from __future__ import annotations

import argparse
import heapq
import os
import platform
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from gpu_queue_traces import ROOT, TRACE, quota_for, read_traces

from gpuqueue.ahead import Line, easy_starts, strict_starts
from gpuqueue.estimate import Estimate, expected_starts
from gpuqueue.history import Past, coverage
from gpuqueue.queue import FOREVER, Grant, Lane, Order, Pod, Queue, Request
from gpuqueue.run_times import RunTimes
from gpuqueue.simulate import Job, Started, replay
from mlpipelines.commands.screen import console, print_table
from mlpipelines.workspace import write_json

DECLARED = [hours * 3600.0 for hours in (1, 4, 12, 24, 72, 168, 672)]
WAYS = ("recent waits", "by limits", "run times", "told without limits", "with limits", "told")
UNDECLARED = ("run times", "told without limits")
"""In EASY order limits belong to the rule: these are for strict order."""
KNOWN = 3000
"""How many of the latest pasts an estimate is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The queue at a moment at which jobs of the sample came."""

    queue: Queue
    now: float
    came: tuple[str, ...]


def main() -> int:
    """Replay, estimate, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--sample", type=int, default=120, help="arrivals of each cluster that ask")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_queue_eta.json")
    arguments = parser.parse_args()
    started = time.monotonic()
    work = [
        (order, name, jobs, quota_for(jobs, arguments.load), arguments.sample)
        for name, jobs in read_traces(TRACE, 2.0).items()
        for order in ("strict", "easy")
    ]
    work.sort(key=lambda item: -len(item[2]))
    with ProcessPoolExecutor(arguments.processes) as pool:
        told = dict(pool.map(measure, work))
    rows = [row for (order, name), pasts in sorted(told.items()) for row in summarised(order, name, pasts)]
    for order in ("strict", "easy"):
        ways = [pasts for (one, _), pasts in told.items() if one == order]
        rows += summarised(order, "all", {way: [past for one in ways for past in one[way]] for way in ways[0]})
    speeds = [
        speed(order, waiting, limits) for order in ("strict", "easy") for waiting in (100, 1000) for limits in ("alike", "all different")
    ]
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    figures = {"machine": machine, "load": arguments.load, "sample": arguments.sample, "rows": rows, "speed": speeds}
    write_json(arguments.output, {**figures, "seconds": round(time.monotonic() - started, 1)})
    print_table("How true expected starts were; hours", rows)
    print_table("One estimate of a whole line, of eight thousand pasts", speeds)
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


def measure(item: tuple[Order, str, list[Job], int, int]) -> tuple[tuple[str, str], dict[str, list[Past]]]:
    """One cluster under one order: what each of the sample was told in each way, beside what came true."""
    order, name, jobs, quota, sample = item
    jobs = [replace(job, limit=next((limit for limit in DECLARED if limit >= 1.5 * job.seconds), DECLARED[-1])) for job in jobs]
    in_order = sorted(jobs, key=lambda job: (job.since, job.key))
    chosen = {job.key for job in in_order[:: max(1, len(jobs) // sample)]}
    asked: list[Asked] = []

    def watch(queues: Sequence[Queue], now: float) -> None:
        came = tuple(request.key for request in queues[0].waiting if request.since == now and request.key in chosen)
        if came:
            asked.append(Asked(queue=queues[0], now=now, came=came))

    starts = replay(jobs, quota=quota, order=order, watch=watch)
    return (order, name), {way: walk_forward(asked, starts, way) for way in WAYS if order == "strict" or way not in UNDECLARED}


def walk_forward(asked: Sequence[Asked], starts: Sequence[Started], way: str) -> list[Past]:
    """What those of the sample who had to wait were told. Each estimate sees what had ended, and had been told, before it."""
    pasts = {start.job.key: past_of(start, declared=way not in UNDECLARED) for start in starts}
    ended = sorted(pasts.values(), key=lambda past: past.ended)
    sampled: list[Past] = []
    open_: list[tuple[float, str]] = []
    place = 0
    for one in asked:
        while place < len(ended) and ended[place].ended <= one.now:
            place += 1
        while open_ and open_[0][0] <= one.now:
            sampled.append(pasts[heapq.heappop(open_)[1]])
        if way == "recent waits":
            estimates = by_recent_waits(starts[: bisect_right(starts, one.now, key=lambda start: start.at)][-100:], one)
        else:
            estimates = said(one, ended[max(0, place - KNOWN) : place], sampled if way.startswith("told") else [], way)
        for key in one.came:
            if key in estimates and pasts[key].at > one.now:
                pasts[key] = replace(pasts[key], told_p50=estimates[key].p50, told_p90=estimates[key].p90)
                heapq.heappush(open_, (pasts[key].ended, key))
    return [past for past in pasts.values() if past.told_p50 is not None]


def said(asked: Asked, ended: Sequence[Past], sampled: Sequence[Past], way: str) -> dict[str, Estimate]:
    """One estimate. Those of the sample stand for all when it comes to how late people were."""
    if way == "by limits":
        return by_limits(asked.queue, asked.now)
    queue = without_limits(asked.queue) if way in UNDECLARED else asked.queue
    known = {past.name: past for past in (*ended, *sampled)}
    return expected_starts(queue, RunTimes(known.values()), asked.now, most=10**6)


def by_recent_waits(latest: Sequence[Started], asked: Asked) -> dict[str, Estimate]:
    """Who comes waits as those did who started last."""
    waits = sorted(start.wait for start in latest)
    if not waits:
        return {}
    p50, p90 = (asked.now + waits[round(share * (len(waits) - 1))] for share in (0.5, 0.9))
    return dict.fromkeys(asked.came, Estimate(p50=p50, p90=p90))


def by_limits(queue: Queue, now: float) -> dict[str, Estimate]:
    """Everything runs until its limit is over; what has outlived it ends now."""
    line = Line(
        lane=queue.lanes[0],
        now=now,
        held=tuple((grant.gpus, grant.ends) for grant in queue.ledger),
        waiting=tuple((request.gpus, request.run_limit or FOREVER) for request in sorted(queue.waiting, key=lambda one: one.rank)),
    )
    left = [max(0.0, ends - now) for _, ends in line.held]
    runs = [limit for _, limit in line.waiting]
    found = (strict_starts if queue.order == "strict" else easy_starts)(line, left, runs)
    in_order = sorted(queue.waiting, key=lambda one: one.rank)
    return {request.key: Estimate(p50=at, p90=at) for request, at in zip(in_order, found, strict=True) if at < FOREVER}


def without_limits(queue: Queue) -> Queue:
    """Where nobody has declared anything."""
    ledger = tuple(replace(grant, limit=None) for grant in queue.ledger)
    return replace(queue, ledger=ledger, waiting=tuple(replace(request, run_limit=None) for request in queue.waiting))


def past_of(start: Started, *, declared: bool) -> Past:
    """As the ledger's history would have it."""
    job = start.job
    return Past(
        queue=job.queue,
        lane=job.lane,
        namespace="",
        name=job.key,
        family="",
        gpus=job.gpus,
        since=job.since,
        at=start.at,
        ended=start.at + job.seconds,
        limit=job.limit if declared else None,
    )


def summarised(order: str, name: str, told: dict[str, list[Past]]) -> list[dict[str, Any]]:
    """A row for each way. How wide P90 is: as a multiple of the wait that came true."""
    rows = []
    for way, pasts in told.items():
        found = coverage(pasts)
        if found is not None:
            wide = median((past.told_p90 - past.since) / past.wait for past in pasts if past.told_p90 is not None)
            rows.append(
                {
                    "order": order,
                    "cluster": name,
                    "way": way,
                    "asked": found.told,
                    "median wait": round(median(past.wait for past in pasts) / 3600, 1),
                    "by P50": round(found.within_p50, 2),
                    "by P90": round(found.within_p90, 2),
                    "median error of P50": round(found.median_error / 3600, 2),
                    "P90 told, of the true wait": round(wide, 2),
                }
            )
    return rows


def speed(order: Order, waiting: int, limits: str) -> dict[str, Any]:
    """The best of ten estimates of a made-up line: one in three of its jobs asks for more than one GPU."""
    sizes, quota = (1, 1, 4, 1, 1, 8), 128

    def limit(number: int) -> float:
        return (3600.0, 14400.0, 86400.0)[number % 3] if limits == "alike" else 600.0 + 89.0 * (number * 7919 % 1000)

    pasts = [
        Past(
            queue="q",
            lane="l4",
            namespace="",
            name=str(i),
            family=f"f{i % 40}",
            gpus=sizes[i % 6],
            since=0.0,
            at=0.0,
            ended=600.0 * (1 + i * 7919 % 331),
        )
        for i in range(8000)
    ]
    held = tuple(
        Grant(key=f"g{i}", namespace="", name="", lane="l4", pods=(Pod(uid=f"g{i}", gpus=sizes[i % 6]),), at=-100.0 * i, limit=limit(i))
        for i in range(47)
    )
    line = tuple(
        Request(
            key=f"w{i}",
            namespace="",
            name=f"{i:06}",
            lane="l4",
            pods=(Pod(uid=f"w{i}", gpus=8 if i == 0 else sizes[i % 6]),),
            since=i - 2e4,
            run_limit=limit(i),
        )
        for i in range(waiting)
    )
    queue = Queue(name="q", lanes=(Lane(name="l4", quota=((0.0, quota),)),), order=order, ledger=held, waiting=line)
    run_times, families = RunTimes(pasts), {request.key: f"f{number % 40}" for number, request in enumerate(line)}
    best = FOREVER
    for _ in range(10):
        began = time.perf_counter()
        found = expected_starts(queue, run_times, 0.0, families=families)
        best = min(best, time.perf_counter() - began)
    return {"order": order, "waiting": waiting, "limits": limits, "estimates": len(found), "ms": round(1000 * best, 1)}


if __name__ == "__main__":
    sys.exit(main())
