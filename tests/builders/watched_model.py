"""A model that is watched: a version with statistics of its training, and a prediction log and labels as the recorder writes them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlserving import store
from mlserving.monitor.reference import PREDICTIONS, SLICE
from mlserving.monitor.settings import MonitorSettings
from mlserving.predictions import files
from mlserving.predictions.records import LABEL_FIELDS, PREDICTION_FIELDS, TIME, label_folder, log_folder
from mlserving.statistics.columns import Column, columns_of

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
MODEL = "cards"


def described(table: pa.Table, name: str = "train") -> statistics_pb2.DatasetFeatureStatistics:
    """Statistics in TensorFlow Data Validation's form: quantiles of numbers, ranks of text."""
    dataset = statistics_pb2.DatasetFeatureStatistics(name=name, num_examples=table.num_rows)
    for column in table.column_names:
        feature = dataset.features.add()
        feature.path.step.append(column)
        values = table[column].combine_chunks()
        present = values.drop_null()
        text = pa.types.is_string(values.type)
        common = feature.string_stats.common_stats if text else feature.num_stats.common_stats
        common.num_non_missing, common.tot_num_values = len(present), len(present)
        if text:
            counts = sorted(pc.value_counts(present).to_pylist(), key=lambda entry: -entry["counts"])
            feature.string_stats.unique = len(counts)
            for entry in counts[:2000]:
                feature.string_stats.rank_histogram.buckets.add(label=entry["values"], sample_count=entry["counts"])
        elif len(present):
            numbers = np.asarray(present.to_numpy(zero_copy_only=False), np.float64)
            feature.num_stats.min, feature.num_stats.max, feature.num_stats.mean = numbers.min(), numbers.max(), numbers.mean()
            histogram = feature.num_stats.histograms.add(type=statistics_pb2.Histogram.QUANTILES)
            edges = np.quantile(numbers, np.linspace(0, 1, 41), method="inverted_cdf")
            for low, high in pairwise(edges):
                histogram.buckets.add(low_value=low, high_value=high, sample_count=len(numbers) / 40)
    return dataset


def column_of(values: Sequence[Any] | np.ndarray, kind: pa.DataType | None = None) -> Column:
    """One column as the monitor reads it from a version."""
    return columns_of(described(pa.table({"x": pa.array(values, kind)})))["x"]


def payments(rows: int, seed: int) -> dict[str, pa.Array]:
    """Features of card payments."""
    random = np.random.default_rng(seed)
    return {
        "amount": pa.array(random.lognormal(3, 1.5, rows).astype(np.float32)),
        "currency": pa.array(random.choice(["EUR", "GBP", "USD"], p=[0.2, 0.7, 0.1], size=rows)),
        "team": pa.array(random.choice(["fleet", "schools", "parks"], p=[0.5, 0.3, 0.2], size=rows)),
    }


def answers(rows: int, seed: int) -> dict[str, pa.Array]:
    """What a model of three classes says of them, surer or less."""
    random = np.random.default_rng([seed, 1])
    return {
        "label": pa.array(random.choice(["food", "fuel", "rail"], p=[0.5, 0.3, 0.2], size=rows)),
        "confidence": pa.array(random.beta(5, 1.2, rows).astype(np.float32)),
    }


@dataclass
class Watched:
    """A workspace with one model."""

    root: Path
    files_written: int = 0
    logged: list[dict[str, pa.Array]] = field(default_factory=list)

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def folder(self, version: int = 1) -> Path:
        return self.models / MODEL / str(version)

    def publish(self, version: int = 1, *, training: Mapping[str, pa.Array] | None = None, carries: bool = True, **settings: Any) -> None:
        """A version; without `carries` one from before versions carried anything."""
        folder = self.folder(version)
        (folder / store.EXTRA).mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"")
        if carries:
            asked = described(pa.table(dict(training if training is not None else payments(20_000, 1))))
            answered = described(pa.table(answers(20_000, 1)), PREDICTIONS)
            carried = statistics_pb2.DatasetFeatureStatisticsList(datasets=[asked, answered])
            for column in settings.get("slices", ()):
                values = pa.table(dict(training if training is not None else payments(20_000, 1)))
                for value in values[column].unique().to_pylist() if column in values.column_names else ():
                    carried.datasets.append(described(values.filter(pc.equal(values[column], value)), f"{SLICE}{column}={value}"))
            (folder / store.TRAINING_STATISTICS).write_bytes(carried.SerializeToString())
            (folder / store.MONITOR_SETTINGS).write_text(MonitorSettings(**settings).model_dump_json())

    def log(
        self,
        rows: int = 2000,
        *,
        seed: int = 2,
        version: int = 1,
        track: str = "stable",
        start: datetime = NOON,
        features: Mapping[str, pa.Array | None] | None = None,
        outputs: Mapping[str, pa.Array] | None = None,
    ) -> list[str]:
        """Predictions, one a second from `start`; `features` and `outputs` replace or add columns, None takes one away. Returns their ids."""
        said = answers(rows, seed)
        asked = {name: column for name, column in {**payments(rows, seed), **(features or {})}.items() if column is not None}
        ids = [f"{uuid.uuid4().hex[:12]}-{number}" for number in range(rows)]
        told = {**said, **(outputs or {})}
        columns: dict[str, pa.Array] = {
            "prediction_id": pa.array(ids),
            "row": pa.array(np.zeros(rows, np.int32)),
            "time": pa.array([start + timedelta(seconds=number) for number in range(rows)], TIME),
            "model": pa.array([MODEL] * rows),
            "version": pa.array(np.full(rows, version)),
            "track": pa.array([track] * rows),
            "protocol": pa.array(["grpc"] * rows),
            "signature": pa.array(["serving_default"] * rows),
            "latency_ms": pa.array(np.full(rows, 2.5, np.float32)),
            "label": told["label"],
            "confidence": told["confidence"],
            **{f"feature/{name}": column for name, column in asked.items()},
            **{f"output/{name}": column for name, column in told.items()},
        }
        extra = [pa.field(name, column.type) for name, column in columns.items() if name not in PREDICTION_FIELDS.names]
        schema = pa.schema([*PREDICTION_FIELDS, *extra])
        self._write(log_folder(self.predictions, MODEL, start), pa.table(columns, schema), version)
        self.logged.append({"id": columns["prediction_id"], **told})
        return ids

    def label(
        self,
        ids: Sequence[str],
        truths: Sequence[str],
        *,
        source: str = "api",
        after: timedelta = timedelta(hours=2),
        start: datetime = NOON,
    ) -> None:
        """What became known, so long after `start`."""
        moment = start + after
        table = pa.table(
            {
                "prediction_id": pa.array(ids, pa.string()),
                "row": pa.array(np.zeros(len(ids), np.int32)),
                "model": pa.array([MODEL] * len(ids), pa.string()),
                "label": pa.array(truths, pa.string()),
                "labelled_at": pa.array([moment] * len(ids), TIME),
                "received_at": pa.array([moment] * len(ids), TIME),
                "source": pa.array([source] * len(ids), pa.string()),
                "reviewer": pa.array(["ada" if source == "review" else None] * len(ids), pa.string()),
            },
            LABEL_FIELDS,
        )
        self._write(label_folder(self.predictions, MODEL, moment), table, None)

    def _write(self, folder: Path, table: pa.Table, version: int | None) -> None:
        self.files_written += 1
        staged = self.predictions / files.STAGING / f"{self.files_written}.parquet"
        files.write(table.to_batches(), table.schema, staged, version=version)
        files.appear(staged, folder / f"test-{self.files_written:06}.parquet")
