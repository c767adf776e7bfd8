"""A project whose model is a small graph with a published version, for tests of batch scoring: no training, everything else real.

The model scores a card payment by its amount; it refuses a merchant whose name does not begin with a digit (a graph that fails on a row),
and answers NaN for an amount of 666.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.evaluation.served_model import fingerprint
from mlpipelines.publishing import registry
from mlpipelines.workspace import Workspace
from mlserving.store import publish_version

PROJECT_YAML = """\
name: payments
team: trust
task: detection
source: {kind: parquet, path: source.parquet}
key: payment_id
time: at
features: {merchant: string, amount: float, age: integer, tags: "[string]"}
label: {column: fraud, kind: flag}
evaluation: {capacity: {cases: 5, per: day}}
rename: {amount: gross}
"""
DAY = 86_400
FIRST_DAY = 20_148 * DAY  # 2025-03-01
CLASSES = ("honest", "scam")
SCHEMA = pa.schema(
    [
        ("payment_id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("merchant", pa.string()),
        ("amount", pa.float64()),
        ("age", pa.int32()),
        ("tags", pa.list_(pa.string())),
        ("account", pa.string()),
    ]
)


def make_world(folder: Path, *, versions: int = 1) -> Path:
    """A workspace in `folder/workspace` and a project in `folder/payments`, which is returned; the newest version is the champion."""
    project = folder / "payments"
    project.mkdir(parents=True)
    (project / "project.yaml").write_text(PROJECT_YAML)
    for version in range(1, versions + 1):
        add_version(folder / "workspace", folder / f"model-{version}", offset=0.001 * version)
    return project


def add_version(root: Path, scratch: Path, *, offset: float, champion: bool = True) -> int:
    """Register and publish another version; `offset` is added to every score."""
    workspace = Workspace(root)
    export_model(scratch, offset)
    version = registry.register_version(
        workspace,
        project="payments",
        model="payments",
        run_id=f"run-{scratch.name}",
        saved_model=scratch,
        tags={registry.FINGERPRINT: fingerprint(scratch)},
        description="made for a test",
    )
    publish_version(workspace.model_store, "payments", version, scratch)
    if champion:
        registry.promote(workspace, "payments", version)
    shutil.rmtree(scratch)
    return version


def export_model(folder: Path, offset: float) -> None:
    """The graph as a SavedModel over raw features."""
    import tensorflow as tf

    inputs = [
        tf.TensorSpec([None], tf.string, "merchant"),
        tf.TensorSpec([None], tf.float32, "amount"),
        tf.TensorSpec([None], tf.int64, "age"),
        tf.TensorSpec([None, None], tf.string, "tags"),
    ]

    class Payments(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
        def __init__(self) -> None:
            super().__init__()
            self.offset = tf.Variable(offset, dtype=tf.float32)

        @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]
        def serve(self, merchant: Any, amount: Any, age: Any, tags: Any) -> dict[str, Any]:
            digit = tf.strings.to_number(tf.strings.substr(merchant, 0, 1), tf.float32)
            known = tf.where(tf.math.is_nan(amount), 0.0, amount)
            many = tf.reduce_sum(tf.cast(tf.not_equal(tags, ""), tf.float32), axis=1)
            score = tf.math.floormod(known, 100.0) / 100.0 + self.offset + 0.0 * digit + 0.0 * many + 0.0 * tf.cast(age, tf.float32)
            score = tf.where(tf.equal(known, 666.0), float("nan") * score, score)
            scam = score > 0.5
            label = tf.where(scam, CLASSES[1], CLASSES[0])
            return {
                "score": score,
                "label": label,
                "confidence": tf.where(scam, score, 1.0 - score),
                "scores": tf.stack([1.0 - score, score], axis=1),
                "tags_seen": tf.cast(many, tf.int64),
            }

    model = Payments()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})


def payments(count: int, *, seed: int = 0, start: int = 0) -> pa.Table:
    """Payments of three days, an hour apart; amounts go over a hundred, so that scores tie now and then."""
    random = np.random.default_rng(seed)
    places = np.arange(start, start + count)
    return pa.table(
        {
            "payment_id": [f"p{place:07d}" for place in places],
            "at": pa.array((FIRST_DAY + places * 3600 % (3 * DAY)) * 1_000_000, pa.timestamp("us", "UTC")),
            "merchant": [f"{place % 10} shop {place % 50}" for place in places],
            "amount": np.where(random.random(count) < 0.05, 0.0, random.integers(0, 6_600, count) / 10.0),
            "age": pa.array(random.integers(18, 90, count), pa.int32()),
            "tags": [["new", "night"][: place % 3] for place in places],
            "account": [f"account {place % 20}" for place in places],
        },
        schema=SCHEMA,
    )


def changed(rows: pa.Table, changes: dict[int, dict[str, Any]]) -> pa.Table:
    """`rows` with some values of some rows replaced."""
    return pa.Table.from_pylist([{**row, **changes.get(place, {})} for place, row in enumerate(rows.to_pylist())], schema=rows.schema)


def write(path: Path, rows: pa.Table, *, row_group: int = 1000) -> Path:
    """`rows` as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pq.write_table(rows, file, row_group_size=row_group)
    return path
