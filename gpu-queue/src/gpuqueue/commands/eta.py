"""`gpuq eta`: when those who wait are likely to start, and when a pod that came now would; with how true such answers have been."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

from gpuqueue.cluster.api import Api
from gpuqueue.cluster.forecast import estimates
from gpuqueue.commands import reading
from gpuqueue.commands.screen import print_json, print_table, say
from gpuqueue.durations import seconds_of, words_of
from gpuqueue.errors import ConfigError
from gpuqueue.history import Coverage, coverage
from gpuqueue.queue import Pod, Queue, Request
from gpuqueue.run_times import RunTimes
from gpuqueue.words import clock

_NEW = "?"


def add_parser(subparsers: Any) -> None:
    """`eta`."""
    parser = subparsers.add_parser("eta", help="when a pod that came now would start, or when those who wait will")
    parser.add_argument("lane", help="QUEUE/LANE")
    parser.add_argument("--gpus", type=int, help="of a pod that came now; without it: all who wait")
    parser.add_argument("--run-limit", help="of that pod, such as 2h")
    parser.add_argument("--json", action="store_true")
    reading.add_options(parser)
    parser.set_defaults(question=eta)


async def eta(api: Api, options: argparse.Namespace) -> int:
    """Answer."""
    seen = await reading.look(api, options)
    board, now = seen.board(), time.time()
    name, _, lane = options.lane.partition("/")
    queue = board.queues.get(name)
    if queue is None or queue.lane(lane) is None:
        known = [f"{queue.name}/{each.name}" for queue in board.queues.values() for each in queue.lanes]
        raise ConfigError(f"no lane {options.lane}. There are: {', '.join(known) or 'none'}")
    asked = queue if options.gpus is None else _with_newcomer(queue, lane, options, now)
    found = estimates(asked, RunTimes(seen.pasts), now)
    rows = [request for request in asked.waiting if request.lane == lane and (options.gpus is None or request.key == _NEW)]
    rows.sort(key=lambda request: request.rank)
    truth = coverage([past for past in seen.pasts if past.queue == name])
    if options.json:
        print_json(
            [
                {
                    "name": r.name,
                    "gpus": r.gpus,
                    "p50": found[r.key].p50 if r.key in found else None,
                    "p90": found[r.key].p90 if r.key in found else None,
                }
                for r in rows
            ]
        )
        return 0
    print_table(
        ["Who", "#GPUs", "Likely start", "9 in 10 by"],
        [
            (r.name, r.gpus, *((clock(found[r.key].p50, now), clock(found[r.key].p90, now)) if r.key in found else ("unknown", "unknown")))
            for r in rows
        ],
    )
    say(_truth(truth) if rows else "Nobody waits.")
    return 0


def _with_newcomer(queue: Queue, lane: str, options: argparse.Namespace, now: float) -> Queue:
    try:
        limit = seconds_of(options.run_limit) if options.run_limit else None
    except ValueError as error:
        raise ConfigError(f"--run-limit: {error}") from error
    if options.gpus < 1:
        raise ConfigError(f"--gpus {options.gpus}: a pod that waits asks for at least 1")
    pod = Pod(uid=_NEW, gpus=options.gpus, name="a pod that came now")
    newcomer = Request(key=_NEW, namespace="", name=pod.name, lane=lane, pods=(pod,), since=now, run_limit=limit)
    return replace(queue, waiting=(*queue.waiting, newcomer))


def _truth(truth: Coverage | None) -> str:
    if truth is None:
        return "Nobody has started yet who was told an expected start, so how true these are is not known."
    return (
        f"Of {truth.told} who were told, {truth.within_p90:.0%} started by their 9-in-10 time; "
        f"half were off by less than {words_of(truth.median_error)}."
    )
