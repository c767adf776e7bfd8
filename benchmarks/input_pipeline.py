"""How many rows a second the input pipeline of `train` delivers, with no model behind it.

Transformed Parquet files of a known shape are written to a temporary folder and read as `train` reads them: shuffled, in
batches, for two epochs (the second has its decoded row groups in memory where they fit). Beside it runs what one would write
first: record batches through `tf.data`'s own `unbatch`, `shuffle` and `batch`, on as many rows as it manages in a while.

    python benchmarks/input_pipeline.py [--rows 1000000] [--batch 1024] [--output benchmarks/results/input_pipeline.json]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import tensorflow as tf

from mlpipelines.artifacts import LABEL
from mlpipelines.commands.screen import console, print_table
from mlpipelines.project_code import FeatureSpec
from mlpipelines.training.input_pipeline import ordered_batches, training_batches
from mlpipelines.training.row_windows import steps_per_epoch
from mlpipelines.training.transformed_rows import LabelSpec, Split, open_split
from mlpipelines.workspace import write_json

ROOT = Path(__file__).resolve().parent.parent
ROWS_A_FILE = 1 << 16
SHUFFLE_ROWS = 200_000
PLAIN_SECONDS = 5.0
NUMBERS = {f"number_{i}": FeatureSpec(dtype="float32") for i in range(10)}
SHAPES = {
    "10 numbers": NUMBERS,
    "10 numbers, a text": {**NUMBERS, "text": FeatureSpec(dtype="string")},
    "10 numbers, 64 ids": {**NUMBERS, "ids": FeatureSpec(dtype="int64", shape=(64,))},
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "input_pipeline.json")
    arguments = parser.parse_args()
    results = [measure(name, rows=arguments.rows, batch=arguments.batch) for name in SHAPES]
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "tensorflow": tf.__version__, "pyarrow": pa.__version__}
    write_json(arguments.output, {"machine": machine, "rows": arguments.rows, "batch": arguments.batch, "results": results})
    print_table(f"Rows a second: {arguments.rows:,} rows, batches of {arguments.batch}", [row_of(result) for result in results])
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


def measure(shape: str, *, rows: int, batch: int) -> dict[str, Any]:
    """Rows a second of both ways, for one shape of rows."""
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        files = write_rows(Path(folder), SHAPES[shape], rows)
        split = open_split(files, SHAPES[shape], LabelSpec(kind="class", classes=10))
        stream = training_batches(split, batch_size=batch, shuffle_rows=SHUFFLE_ROWS, seed=1)
        steps = steps_per_epoch(rows, batch)
        iterator = iter(stream)
        first, second = (steps * batch / drain(iterator, steps) for _ in range(2))
        in_order = rows / drain(iter(ordered_batches(split, batch_size=batch)), -(-rows // batch))
        return {
            "shape": shape,
            "shuffled_first_epoch": round(first),
            "shuffled_second_epoch": round(second),
            "in_order": round(in_order),
            "plain_tf_data": round(plain(split, batch)),
            "peak_mb_so_far": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def write_rows(folder: Path, features: dict[str, FeatureSpec], rows: int) -> list[Path]:
    """Files as `transform` writes them."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, ROWS_A_FILE):
        count = min(ROWS_A_FILE, rows - start)
        columns = {name: column(spec, count, rng) for name, spec in features.items()}
        table = pa.table({**columns, LABEL: rng.integers(0, 10, count)})
        pq.write_table(table, folder / f"part-{start:09d}.parquet", compression="lz4")
    return sorted(folder.glob("*.parquet"))


def column(spec: FeatureSpec, rows: int, rng: np.random.Generator) -> pa.Array:
    """Random values of a feature."""
    if spec.dtype == "string":
        return pa.array([f"card payment {number}".encode() for number in rng.integers(0, 5000, rows)])
    if spec.shape:
        return pa.FixedSizeListArray.from_arrays(pa.array(rng.integers(0, 1 << 15, rows * spec.shape[0])), spec.shape[0])
    return pa.array(rng.normal(size=rows).astype(np.float32))


def drain(iterator: Any, steps: int) -> float:
    """Seconds to take `steps` batches inside TensorFlow, as `fit` does."""

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def take(batches: Any, count: tf.Tensor) -> tf.Tensor:
        seen = tf.constant(0, tf.int64)
        for _ in tf.range(count):
            seen += tf.shape(next(batches)[1], out_type=tf.int64)[0]
        return seen

    concrete = take.get_concrete_function(iterator, tf.constant(0))
    started = time.perf_counter()
    concrete(iterator, tf.constant(steps))
    return time.perf_counter() - started


def plain(split: Split, batch: int) -> float:
    """Rows a second of the obvious pipeline, over the first few seconds."""
    specs = {name: tf.TensorSpec([None, *spec.shape], spec.dtype) for name, spec in split.tensors.items()}

    def record_batches() -> Iterator[dict[str, Any]]:
        source = ds.dataset([str(group.file) for group in split.groups], format="parquet")
        for rows in source.to_batches(columns=list(specs), batch_size=batch):
            yield {name: array_of(rows[name], split.tensors[name]) for name in specs}

    stream = tf.data.Dataset.from_generator(record_batches, output_signature=specs)
    shuffled = stream.unbatch().shuffle(min(SHUFFLE_ROWS, split.rows // 2)).batch(batch).prefetch(tf.data.AUTOTUNE)
    started, seen = time.perf_counter(), 0
    for rows in shuffled:
        seen += int(rows[LABEL].shape[0])
        if time.perf_counter() - started > PLAIN_SECONDS and seen > batch:
            break
    filled = min(SHUFFLE_ROWS, split.rows // 2)  # rows that were read into the shuffle buffer, and not given out yet
    return min(seen + filled, split.rows) / (time.perf_counter() - started)


def array_of(values: pa.Array, spec: FeatureSpec) -> Any:
    """A column of a record batch as an array [rows, *shape]."""
    flat = values.flatten() if spec.shape else values
    return flat.to_numpy(zero_copy_only=False).reshape(-1, *spec.shape)


def row_of(result: dict[str, Any]) -> dict[str, str]:
    """One line of the table."""
    numbers = {
        "first epoch": result["shuffled_first_epoch"],
        "second epoch": result["shuffled_second_epoch"],
        "in order": result["in_order"],
        "unbatch, shuffle, batch": result["plain_tf_data"],
        "peak MB so far": result["peak_mb_so_far"],
    }
    return {"rows of": result["shape"], **{name: f"{number:,}" for name, number in numbers.items()}}


if __name__ == "__main__":
    raise SystemExit(main())
