"""Two months of ten real GPU clusters, replayed: how long people wait under strict order, EASY order, and without a queue.

The trace (Microsoft, 2021, MIT licence; `gpu-jobs` of the public data) says when a job came, how many GPUs it asked for and how long it ran, not
how many GPUs there were: each cluster gets the quota at which its jobs would use `--load` of it. A job's declared limit, which EASY
order counts on, is `--limit-factor` times what it ran. Without a queue a refused pod asks again after 10 to 120 seconds.

    python benchmarks/gpu_queue_traces.py [--load 0.9] [--limit-factor 2] [--output benchmarks/results/gpu_queue_traces.json]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq

mpl.use("Agg")
from matplotlib import pyplot as plt

from gpuqueue.simulate import Job, Started, overtaken, replay, retry_at_random
from mlpipelines.commands.screen import console, print_table
from mlpipelines.workspace import write_json

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MILLRACE_DATA", ROOT.parent / "shared" / "data"))
TRACE = DATA / "gpu-jobs" / "microsoft_itp_2021.parquet"
POLICIES = ("strict", "easy", "no queue")


def main() -> int:
    """Replay, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--limit-factor", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_queue_traces.json")
    arguments = parser.parse_args()
    started = time.monotonic()
    traces = read_traces(TRACE, arguments.limit_factor)
    work = [(name, policy, jobs, quota_for(jobs, arguments.load)) for name, jobs in traces.items() for policy in POLICIES]
    work.sort(key=lambda item: -len(item[2]))
    with ProcessPoolExecutor() as pool:
        rows = sorted(pool.map(measure, work), key=lambda row: (row["cluster"], POLICIES.index(row["policy"])))
    seconds = round(time.monotonic() - started, 1)
    write_json(arguments.output, {"load": arguments.load, "limit_factor": arguments.limit_factor, "seconds": seconds, "rows": rows})
    total = sum(len(jobs) for jobs in traces.values())
    print_table(f"{total:,} jobs of {len(traces)} clusters, three ways, in {seconds:.0f} s; waits in hours", rows)
    draw(rows, arguments.output.with_suffix(".svg"))
    console().print(f"Written to {arguments.output} and {arguments.output.with_suffix('.svg')}", soft_wrap=True)
    return 0


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Mean wait, longest wait, and jobs overtaken, by cluster and policy."""
    mpl.rcParams["svg.hashsalt"] = "millrace"  # the same rows give the same file
    clusters = list(dict.fromkeys(row["cluster"] for row in rows))
    figure, panels = plt.subplots(3, 1, figsize=(11, 8), sharex=True)
    for panel, (what, title) in zip(
        panels, [("mean", "Mean wait, hours"), ("longest", "Longest wait, hours"), ("overtaken", "Jobs overtaken")], strict=True
    ):
        for number, policy in enumerate(POLICIES):
            heights = [next(row[what] for row in rows if (row["cluster"], row["policy"]) == (name, policy)) for name in clusters]
            panel.bar([place + 0.27 * (number - 1) for place in range(len(clusters))], heights, width=0.25, label=policy)
        panel.set_ylabel(title)
        panel.set_xticks(range(len(clusters)), clusters)
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def read_traces(file: Path, limit_factor: float) -> dict[str, list[Job]]:
    """The jobs of each cluster."""
    if not file.exists():
        raise SystemExit(f"{file} does not exist. Name the folder of public data: MILLRACE_DATA=… {' '.join(sys.argv)}")
    found: dict[str, list[Job]] = {}
    for row in pq.read_table(file).to_pylist():
        seconds = float(max(1, row["duration"]))
        job = Job(
            key=row["job_id"],
            since=float(row["submission_time"]),
            gpus=row["num_gpu"],
            seconds=seconds,
            limit=limit_factor * seconds,
        )
        found.setdefault(row["cluster"], []).append(job)
    return found


def quota_for(jobs: list[Job], load: float) -> int:
    """GPUs of which `jobs` would use the share `load` over the time of the trace; at least what the largest job asks for."""
    span = max(job.since for job in jobs) - min(job.since for job in jobs)
    largest = max(job.gpus for job in jobs)
    return max(largest, round(sum(job.gpus * job.seconds for job in jobs) / span / load))


def measure(item: tuple[str, str, list[Job], int]) -> dict[str, Any]:
    """One cluster under one policy."""
    name, policy, jobs, quota = item
    if policy == "no queue":
        starts = retry_at_random(jobs, quota=quota)
    else:
        starts = replay(jobs, quota=quota, order="easy" if policy == "easy" else "strict")
    return {"cluster": name, "jobs": len(jobs), "GPUs": quota, "policy": policy, **waits(starts), "overtaken": overtaken(starts)}


def waits(starts: list[Started]) -> dict[str, float]:
    """Hours; `large` are the jobs that ask for at least eight GPUs."""
    every = np.array([start.wait for start in starts]) / 3600
    large = np.array([start.wait for start in starts if start.job.gpus >= 8] or [0.0]) / 3600
    p50, p95 = np.percentile(every, [50, 95])
    figures = {"mean": every.mean(), "p50": p50, "p95": p95, "longest": every.max(), "mean of large": large.mean()}
    return {figure: round(float(value), 2) for figure, value in figures.items()}


if __name__ == "__main__":
    sys.exit(main())
