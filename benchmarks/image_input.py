"""How many images a second reach the model in training: read from Parquet, decoded, changed and put into batches.

The project `image-content` reads the bytes of files from the transformed rows and decodes them in its `batches`; both run here with no
model behind them. Beside them, in turns, runs what one would write first: `tf.data` over a folder of JPEG files, each read, decoded, made
to fit and changed by itself with `tf.image`, in parallel as `tf.data` sees fit.

    python benchmarks/image_input.py [--rounds 3] [--output benchmarks/results/image_input.json]

Seconds are told by the clock and of the processors, since a machine may have other work.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from mlpipelines.artifacts import LABEL
from mlpipelines.commands.screen import console, print_table
from mlpipelines.project_code import FeatureSpec, ModelContext, load_code
from mlpipelines.training.input_pipeline import training_batches
from mlpipelines.training.transformed_rows import LabelSpec, open_split
from mlpipelines.workspace import write_json

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pipelines" / "projects" / "image-content"
FEATURES = {"image": FeatureSpec(dtype="string")}
BATCH = 64
WARM_UP = 3
SHAPES = {32: 4_000, 224: 640}
"""Pixels of a side, and how many images there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Images a second."""

    clock: float
    processor: float
    """Of one core's time."""


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "image_input.json")
    arguments = parser.parse_args()
    results = [measure(size, count, arguments.rounds) for size, count in SHAPES.items()]
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "tensorflow": tf.__version__, "pyarrow": pa.__version__}
    write_json(arguments.output, {"machine": machine, "batch": BATCH, "rounds": arguments.rounds, "results": results})
    print_table(f"Images a second by the clock (of a core's time), batches of {BATCH}", [row_of(result) for result in results])
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


def measure(size: int, count: int, rounds: int) -> dict[str, Any]:
    """Every way in turn, `rounds` times over the same images; the median of each."""
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        rows = next(load_code(PROJECT, "generator").rows(rows=count, size=size))
        mean_bytes = round(sum(map(len, rows["image"].to_pylist())) / count)
        ways = {**ours(rows, size, Path(folder)), "files": plain(rows, size, Path(folder) / "files")}
        found: dict[str, list[Rate]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(rate(way(), steps=max(10, count // BATCH)))
    told = {name: {"clock": median(rates, "clock"), "processor": median(rates, "processor")} for name, rates in found.items()}
    return {"size": size, "images": count, "bytes": mean_bytes, **told}


def median(rates: list[Rate], name: str) -> int:
    """In the middle of the rounds."""
    middle: float = statistics.median(getattr(each, name) for each in rates)
    return round(middle)


def ours(rows: pa.RecordBatch, size: int, folder: Path) -> dict[str, Callable[[], tf.data.Dataset]]:
    """The project's way: `read`, as `train` reads transformed rows, and `ours`, what `batches` makes of them."""
    file = folder / "part-0.parquet"
    pq.write_table(pa.table({"image": rows["image"], LABEL: pa.array([0] * len(rows))}), file, compression="lz4")
    split = open_split([file], FEATURES, LabelSpec(kind="class", classes=2))
    code = load_code(PROJECT, "model")
    context = ModelContext(
        features=FEATURES, task="classification", classes=("a", "b"), parameters={"image_size": size, "erase": 0.2}, seed=1
    )

    def read() -> tf.data.Dataset:
        return training_batches(split, batch_size=BATCH, shuffle_rows=10_000, seed=1)

    return {"read": read, "ours": lambda: code.batches(read(), context)}


def plain(rows: pa.RecordBatch, size: int, folder: Path) -> Callable[[], tf.data.Dataset]:
    """The obvious way: one file for each image, each image changed by itself."""
    folder.mkdir()
    for number, image in enumerate(rows["image"].to_pylist()):
        (folder / f"{number:06d}.jpg").write_bytes(image)

    def seen(path: tf.Tensor) -> tf.Tensor:
        pixels = tf.image.resize(tf.cast(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), tf.float32) / 127.5 - 1.0, [size, size])
        padded = tf.image.resize_with_crop_or_pad(pixels, size + size // 5, size + size // 5)
        changed = tf.image.random_flip_left_right(tf.image.random_crop(padded, [size, size, 3]))
        changed = tf.image.random_saturation(tf.image.random_contrast(tf.image.random_brightness(changed, 0.2), 0.8, 1.2), 0.8, 1.2)
        return tf.ensure_shape(changed, [size, size, 3])

    def way() -> tf.data.Dataset:
        files = tf.data.Dataset.list_files(str(folder / "*.jpg"), shuffle=True, seed=1).repeat()
        return files.map(seen, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)

    return way


def rate(dataset: tf.data.Dataset, *, steps: int) -> Rate:
    """Take some batches to warm up, then `steps`."""
    batches: Iterator[Any] = iter(dataset)
    for _ in range(WARM_UP):
        next(batches)
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(batches)
    taken = steps * BATCH
    return Rate(clock=taken / (time.perf_counter() - clock), processor=taken / max(1e-9, time.process_time() - processor))


def row_of(result: dict[str, Any]) -> dict[str, str]:
    """One line of the table."""
    names = {"read": "bytes from Parquet", "ours": "decoded and changed", "files": "tf.data over files"}
    rates = {told: f"{result[name]['clock']:,} ({result[name]['processor']:,})" for name, told in names.items()}
    return {"images of": f"{result['size']} × {result['size']}, {result['bytes']:,} bytes", **rates}


if __name__ == "__main__":
    sys.exit(main())
