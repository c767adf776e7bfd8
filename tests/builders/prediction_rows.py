"""Rows of a prediction log and labels, written as the recorder writes them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlserving.predictions import files
from mlserving.predictions.label_journal import table_of
from mlserving.predictions.records import PREDICTION_FIELDS, label_folder, log_folder

NOON = datetime(2025, 12, 31, 12, tzinfo=UTC)


def a_prediction(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Predictions of a series: one a minute from noon on."""
    return {
        "prediction_id": f"id-{number}", "row": 0, "time": NOON + timedelta(minutes=number), "model": "transactions", "version": 1,
        "track": "stable", "protocol": "rest", "signature": "serving_default", "latency_ms": 1.5, "label": "food", "confidence": 0.9,
    } | changes  # fmt: skip


def a_label(number: int = 0, label: str = "food", minutes: float = 60, **changes: Any) -> dict[str, Any]:
    """The label of prediction `number`, told some minutes after noon."""
    told = int((NOON + timedelta(minutes=minutes)).timestamp() * 1e6)
    return {
        "prediction_id": f"id-{number}", "row": 0, "model": "transactions", "label": label, "labelled_at": told, "received_at": told,
        "source": "api", "reviewer": None,
    } | changes  # fmt: skip


def write_log(predictions: Path, rows: list[dict[str, Any]], extra: Mapping[str, pa.DataType] | None = None) -> Path:
    """One file of rows of one day and model. `extra` types the columns beyond those that every row has."""
    schema = pa.schema([*PREDICTION_FIELDS, *(pa.field(name, kind) for name, kind in (extra or {}).items())])
    table = pa.Table.from_pylist(rows, schema)
    versions = {row["version"] for row in rows}
    path = log_folder(predictions, rows[0]["model"], rows[0]["time"]) / f"{uuid.uuid4().hex}.parquet"
    files.write(files.sliced(table), schema, path, version=versions.pop() if len(versions) == 1 else None)
    return path


def write_labels(predictions: Path, labels: list[dict[str, Any]]) -> Path:
    """One file of labels that were received on one day."""
    table = table_of(labels)
    path = label_folder(predictions, labels[0]["model"], table["received_at"][0].as_py()) / f"{uuid.uuid4().hex}.parquet"
    files.write(files.sliced(table), table.schema, path)
    return path
