"""`make benchmark`: how long each step takes, and how its cost grows with the rows.

Two projects, each in an empty workspace, exactly as `millrace run` does it: `transactions` on generated rows in Parquet, whose model reads
a hundred pieces of text a row, and what `millrace new` writes, on rows in CSV, whose model is a small network. Seconds and
peak memory of each step are what the run recorded; orchestration is what is left of the wall time: processes, imports, kfp.local itself.

    python benchmarks/pipeline.py [--rows 100000 1000000] [--projects transactions new] [--output benchmarks/results/pipeline.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
STEPS = ("ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish")


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--projects", nargs="+", choices=("transactions", "new"), default=["transactions", "new"])
    parser.add_argument("--epochs", type=int, default=1, help="of training; the other steps do not depend on it")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "pipeline.json")
    arguments = parser.parse_args()
    results = [measure(project, rows, arguments.epochs) for project in arguments.projects for rows in arguments.rows]
    write_json(arguments.output, {"machine": machine(), "epochs": arguments.epochs, "runs": results})
    for result in results:
        title = f"{result['project']}, {result['rows']:,} rows × {result['columns']} columns: {result['status']}, {result['wall']:.1f} s"
        print_table(title, rows_of(result))
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


def transactions(folder: Path, rows: int) -> tuple[Path, Path]:
    """The project and a Parquet file of `rows` rows for it."""
    source = folder / "rows.parquet"
    subprocess.run([sys.executable, "generator.py", "--rows", str(rows), "--out", source], cwd=PROJECT, check=True, capture_output=True)
    return PROJECT, source


def new(folder: Path, rows: int) -> tuple[Path, Path]:
    """What `millrace new` writes, and a CSV file of `rows` rows for it."""
    subprocess.run([MILLRACE, "new", "visits", "--into", folder], check=True, capture_output=True)
    source = folder / "rows.csv"
    code = f"import generator, pyarrow as pa, pyarrow.csv as c; c.write_csv(pa.Table.from_batches(generator.rows(rows={rows})), '{source}')"
    subprocess.run([sys.executable, "-c", code], cwd=folder / "visits", check=True)
    return folder / "visits", source


def measure(project: str, rows: int, epochs: int) -> dict[str, Any]:
    """One run of `rows` generated rows in a workspace of its own."""
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        where, source = {"transactions": transactions, "new": new}[project](Path(folder), rows)
        started = time.monotonic()
        changes = (f"source.kind={source.suffix[1:]}", f"source.path={source}", f"training.epochs={epochs}")
        command = [MILLRACE, "run", str(where), "--workspace", f"{folder}/workspace", "--accept-schema", "--json"]
        command += [f"--set={change}" for change in changes]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.monotonic() - started
        if not run.stdout:
            raise SystemExit(f"the run said nothing:\n{run.stderr}")
        record = json.loads(run.stdout)
        if record["failure"]:
            raise SystemExit(f"the run failed: {record['failure']}")
        columns = len(_columns(source))
    in_steps = sum(step["seconds"] for step in record["steps"].values())
    done = [name for name in STEPS if record["steps"][name]["status"] == "done"]
    return {
        "project": project,
        "rows": rows,
        "columns": columns,
        "status": record["status"],
        "wall": round(wall, 1),
        "orchestration": round(wall - in_steps, 1),
        "orchestration_per_step": round((wall - in_steps) / max(len(done), 1), 2),
        "steps": {name: record["steps"][name] for name in done},
        "facts": {name: value for name, value in record["facts"].items() if isinstance(value, (int, float, str))},
    }


def _columns(file: Path) -> list[str]:
    import pyarrow.dataset as ds

    names: list[str] = ds.dataset(file, format=file.suffix[1:]).schema.names
    return names


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of one run."""
    rows = [{"step": name, "seconds": step["seconds"], "peak MB": round(step["peak_mb"])} for name, step in result["steps"].items()]
    to_transform = sum(result["steps"][name]["seconds"] for name in ("ingest", "statistics", "validate", "transform"))
    rows.append({"step": "ingest → transform", "seconds": round(to_transform, 1), "peak MB": None})
    rows.append({"step": "orchestration", "seconds": result["orchestration"], "peak MB": None})
    rows.append({"step": "all", "seconds": result["wall"], "peak MB": max(round(step["peak_mb"]) for step in result["steps"].values())})
    return rows


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
