"""What a run of the monitor costs: a prediction log of a million rows with labels, in a process of its own.

The log is real Parquet in the recorder's form, ten columns of features, one row in ten labelled; the version carries statistics of 100,000 training
rows. The memory is the peak of the whole process, libraries and all; beside it stands that of a log of a tenth of the rows, so one sees what grows.

    python benchmarks/monitor.py [--rows 1000000] [--output benchmarks/results/monitor.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "builders"))

from mlserving import store  # noqa: E402
from mlserving.predictions import files  # noqa: E402
from mlserving.predictions.records import LABEL_FIELDS, PREDICTION_FIELDS, TIME, label_folder, log_folder  # noqa: E402
from watched_model import MODEL, described  # noqa: E402  # builders are found once the path is set

BATCH, TRAINING, NUMBERS, TEXTS = 50_000, 100_000, 6, 4
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def features(random: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    """Amounts with heavy tails, and codes of more or fewer values."""
    numbers = {f"amount_{each}": pa.array(random.lognormal(3, 1 + each / 4, rows).astype(np.float32)) for each in range(NUMBERS)}
    texts = {f"code_{each}": pa.array(random.zipf(1.3 + each / 5, rows).clip(max=100_000).astype(str)) for each in range(TEXTS)}
    return numbers | texts


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """The log."""
    random = np.random.default_rng(5)
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        columns: dict[str, pa.Array] = {
            "prediction_id": pa.array([f"id-{number:09}" for number in range(start, start + count)]),
            "row": pa.array(np.zeros(count, np.int32)),
            "time": pa.array(int(NOON.timestamp() * 1e6) + np.arange(start, start + count) * 10_000, TIME),
            "model": pa.array([MODEL] * count),
            "version": pa.array(np.ones(count, np.int64)),
            "track": pa.array(random.choice(["stable", "canary"], p=[0.9, 0.1], size=count)),
            "protocol": pa.array(["grpc"] * count),
            "signature": pa.array(["serving_default"] * count),
            "latency_ms": pa.array(random.gamma(2, 2, count).astype(np.float32)),
            "label": pa.array(random.choice(["food", "fuel", "rail"], size=count)),
            "confidence": pa.array(random.beta(5, 1, count).astype(np.float32)),
            **{f"feature/{name}": column for name, column in features(random, count).items()},
        }
        yield pa.RecordBatch.from_pydict(columns, pa.schema([*PREDICTION_FIELDS, *_extra(columns)]))


def _extra(columns: dict[str, pa.Array]) -> list[pa.Field]:
    return [pa.field(name, column.type) for name, column in columns.items() if name not in PREDICTION_FIELDS.names]


def write_workspace(root: Path, rows: int) -> None:
    """A version, a log and labels."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    predictions, folder = root / "predictions", root / "models" / MODEL / "1"
    (folder / store.EXTRA).mkdir(parents=True)
    carried = statistics_pb2.DatasetFeatureStatisticsList(datasets=[described(pa.table(features(np.random.default_rng(1), TRAINING)))])
    (folder / store.TRAINING_STATISTICS).write_bytes(carried.SerializeToString())
    schema = next(batches(1)).schema
    staged = predictions / files.STAGING / "log.parquet"
    files.write(batches(rows), schema, staged, version=1)
    files.appear(staged, log_folder(predictions, MODEL, NOON) / "benchmark-000001.parquet")
    labelled = [f"id-{number:09}" for number in range(0, rows, 10)]
    count = len(labelled)
    moment = pa.array(np.full(count, int(NOON.timestamp() * 1e6) + 3_600_000_000), TIME)
    truths = pa.array(np.random.default_rng(6).choice(["food", "fuel", "rail"], size=count))
    columns = [pa.array(labelled), pa.array(np.zeros(count, np.int32)), pa.array([MODEL] * count), truths, moment, moment]
    table = pa.table([*columns, pa.array(["api"] * count), pa.nulls(count, pa.string())], LABEL_FIELDS)
    files.write(table.to_batches(), table.schema, predictions / files.STAGING / "labels.parquet")
    files.appear(predictions / files.STAGING / "labels.parquet", label_folder(predictions, MODEL, NOON) / "benchmark-000001.parquet")


def main() -> int:
    """Measure, print, write. `--run` is how it starts the process that is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "monitor.json")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        return run(arguments.run)
    results = [measured(rows) for rows in (arguments.rows // 10, arguments.rows)]
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform(), "load": os.getloadavg()[0]}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": machine, "runs": results}, indent=2) + "\n")
    for each in results:
        print(f"{each['rows']:>10,} rows: {each['seconds']:.1f} s, {each['cpu_seconds']:.1f} s of processor, {each['peak_mb']:.0f} MB")
    print(f"Written to {arguments.output}")
    return 0


def measured(rows: int) -> dict[str, float]:
    """One run over a log of so many rows."""
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        write_workspace(Path(folder), rows)
        command = [sys.executable, str(Path(__file__).resolve()), "--run", folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return {"rows": rows, **found}


def run(workspace: Path) -> int:
    """What is measured, in this process."""
    from mlserving.monitor.command import Wanted
    from mlserving.monitor.service import run as look

    began = time.monotonic()
    wanted = Wanted(
        predictions=workspace / "predictions",
        store=workspace / "models",
        models=(MODEL,),
        since="2026-11-27",
        until="2026-11-30",
        by=("code_3",),
    )
    (findings,) = look(wanted)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {"groups": len(findings.groups), "labelled": findings.groups[0].labelling.labelled, "logged": findings.rows}
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - began,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_mb": usage.ru_maxrss / 1024,
                **told,
            }
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
