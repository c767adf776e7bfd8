"""What it costs to find which invoices a transfer may pay, among very many: candidates of pipelines/projects/invoice-matching on Beam.

    python benchmarks/invoice_candidates.py [--invoices 100000] [--days 720]

A ledger is generated first, in a process of its own, and is not part of the figures. Then `pairs.rows` makes candidate pairs with all their
columns, on Beam's in-process runner, as `ingest` calls it. Recall is the share of true pairs that are among the candidates.
Writes benchmarks/results/invoice_candidates.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pipelines" / "projects" / "invoice-matching"
RESULT = ROOT / "benchmarks" / "results" / "invoice_candidates.json"
_TABLES = ("invoices", "transfers", "matches")


def main() -> int:
    """Generate, find, count, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--invoices", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=720)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(measured(arguments.folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="millrace-candidates-") as folder:
        made = ["generator.py", "--invoices", str(arguments.invoices), "--days", str(arguments.days), "--out", folder]
        subprocess.run([sys.executable, *made], cwd=PROJECT, check=True, capture_output=True)
        told = subprocess.run([sys.executable, __file__, "--folder", folder], check=True, capture_output=True, text=True).stdout
    figures = {"machine": {"cores": os.cpu_count()}, **json.loads(told.splitlines()[-1])}
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    return 0


def measured(folder: Path) -> dict[str, Any]:
    """Find candidates of the tables in `folder`, in this process."""
    sys.path.insert(0, str(PROJECT))
    import pairs  # type: ignore[import-not-found]  # the project's own

    files = {name: str(folder / f"{name}.parquet") for name in _TABLES}
    began, before = time.monotonic(), time.process_time()
    rows = matched = 0
    for batch in pairs.rows(files=files, beam_from=0):
        rows += batch.num_rows
        matched += sum(batch.column("matched").to_pylist())
    seconds, cpu = time.monotonic() - began, time.process_time() - before
    transfers, invoices = (pq.read_metadata(files[name]).num_rows for name in ("transfers", "invoices"))
    true = len(pq.read_table(files["matches"], columns=["invoice_id"], partitioning=None)["invoice_id"].drop_null())
    return {
        "transfers": transfers,
        "invoices": invoices,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "candidates_per_transfer": round(rows / transfers, 2),
        "share_of_all_pairs": rows / transfers / invoices,
        "recall": round(matched / true, 4),
    }


if __name__ == "__main__":
    sys.exit(main())
