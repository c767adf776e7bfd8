"""Batch scoring: rows a second and peak memory, and what Beam costs over a plain loop.

A `transactions` model is trained once; then generated rows in one Parquet file are scored twice, each time in a process of its own: by
`millrace batch`, and by a plain loop over the same row groups that calls the same functions without Beam. Last, a file of five million
rows goes through `millrace batch` with a model of a few operations, to see whether memory grows with the file.

    python benchmarks/batch.py [--rows 100000 1000000] [--most 5000000] [--output benchmarks/results/batch.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mlpipelines.commands.screen import console, print_table
from mlpipelines.workspace import write_json

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pipelines" / "projects" / "transactions"
MILLRACE = str(Path(sys.executable).parent / "millrace")
TRAINED_ON = 20_000
"""How good the model is does not matter here, its size does, and that does not depend on the rows."""


def main() -> int:
    """Measure, print, write. `--child` is how it starts its own other processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--most", type=int, default=5_000_000, help="rows of the largest file, for the small model")
    parser.add_argument("--folder", type=Path, help="keep the model and the files here, and use those that are there")
    parser.add_argument("--prepare", action="store_true", help="make them and measure nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "batch.json")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        what, *words = arguments.child
        if what == "plain":
            plain(*words)
        else:
            small(*words)
        return 0
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-benchmark-")))
        prepare(folder, arguments.rows, arguments.most)
        runs = [] if arguments.prepare else measure_all(folder, arguments.rows, arguments.most)
    if not runs:
        return 0
    machine = {"cores": os.cpu_count(), "python": sys.version.split()[0], "load_before": os.getloadavg()[0]}
    write_json(arguments.output, {"machine": machine, "runs": runs})
    print_table("Batch scoring", runs)
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


def prepare(folder: Path, sizes: list[int], most: int) -> None:
    """Train the model and make the files, unless they are there."""
    if not (folder / "workspace" / "models").exists():
        easy = ["training.epochs=1", "evaluation.baseline.kind=majority", "evaluation.baseline.column="]
        settings = [f"--set={each}" for each in (f"source.options.rows={TRAINED_ON}", *easy)]
        train = [MILLRACE, "run", str(PROJECT), "--workspace", str(folder / "workspace"), *settings, "--json"]
        subprocess.run(train, check=True, capture_output=True)
    for rows in sizes:
        source = folder / f"{rows}.parquet"
        if not source.exists():
            make = [sys.executable, "generator.py", "--rows", str(rows), "--out", str(source)]
            subprocess.run(make, cwd=PROJECT, check=True, capture_output=True)
    if most and not (folder / "world" / "in").exists():
        subprocess.run(itself("small", folder / "world", most), check=True, capture_output=True)


def measure_all(folder: Path, sizes: list[int], most: int) -> list[dict[str, Any]]:
    """Every size by Beam and by the plain loop, in turns, then the largest file."""
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as output:
        runs = []
        for rows in sizes:
            source, workspace = folder / f"{rows}.parquet", folder / "workspace"
            command = [MILLRACE, "batch", str(PROJECT), "--workspace", str(workspace), "--input", str(source), "--json"]
            runs.append(measure("transactions", "millrace batch", rows, [*command, "--output", f"{output}/beam-{rows}"]))
            runs.append(measure("transactions", "plain loop", rows, itself("plain", source, workspace, f"{output}/plain-{rows}")))
        if most:
            world = folder / "world"
            command = [
                MILLRACE,
                "batch",
                str(world / "payments"),
                "--workspace",
                str(world / "workspace"),
                "--input",
                str(world / "in"),
                "--json",
            ]
            runs.append(measure("a few operations", "millrace batch", most, [*command, "--output", f"{output}/most"]))
        return runs


def measure(model: str, how: str, rows: int, command: list[str]) -> dict[str, Any]:
    """One process from its start to its end. `scoring` leaves out what it takes to start Python and load the libraries and the model."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{command} ended with {process.returncode}: {said}")
    wall, scoring = time.monotonic() - started, float(json.loads(said)["seconds"])
    return {
        "model": model,
        "how": how,
        "rows": rows,
        "wall_s": round(wall, 1),
        "scoring_s": round(scoring, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "rows_per_second": round(rows / scoring),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def itself(what: str, *words: object) -> list[str]:
    """This file as another process."""
    return [sys.executable, str(Path(__file__).resolve()), "--child", what, *map(str, words)]


def plain(source: str, workspace: str, output: str) -> None:
    """Score a file as `millrace batch` does, without Beam: row group after row group, then the output file.."""
    from mlpipelines.batch.assembly import assemble
    from mlpipelines.batch.inputs import InputFile, content_of
    from mlpipelines.batch.output import Output
    from mlpipelines.batch.pinned import pin_model
    from mlpipelines.batch.prediction_log import log_settings
    from mlpipelines.batch.scoring import FileTask, Job, row_groups, score_group
    from mlpipelines.evaluation.served_model import load_model
    from mlpipelines.project_file import load_project
    from mlpipelines.workspace import Workspace

    began = time.monotonic()
    project, found = load_project(PROJECT), InputFile(name=Path(source).name, path=Path(source))
    pinned = pin_model(Workspace(Path(workspace)), project.model_name, None)
    job = Job(
        project=project,
        pinned=pinned,
        started_us=time.time_ns() // 1000,
        keep=(),
        log=log_settings(project, share=None, features=()),
        output=Output(Path(output)),
        predictions=Path(output) / "predictions",
    )
    task = FileTask(number=0, file=found, content=content_of(found.path), rows=0, work=Path(output) / "work")
    with load_model(pinned.folder) as model:
        assemble(job, model, task, [score_group(job, model, group) for group in row_groups(task)])
    print(json.dumps({"seconds": time.monotonic() - began}))


def small(folder: str, rows: str) -> None:
    """A project with a model of a few operations, and one file of `rows` rows, written piece by piece."""
    import pyarrow.parquet as pq

    sys.path.insert(0, str(ROOT / "tests" / "builders"))
    from batch_world import SCHEMA, make_world, payments

    make_world(Path(folder))
    source = Path(folder) / "in" / "rows.parquet"
    source.parent.mkdir()
    with pq.ParquetWriter(source, SCHEMA) as writer:
        for start in range(0, int(rows), 250_000):
            writer.write_table(payments(min(250_000, int(rows) - start), start=start, seed=start), row_group_size=125_000)


if __name__ == "__main__":
    sys.exit(main())
