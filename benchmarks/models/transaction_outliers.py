"""`transaction-outliers` on its generated bookings and on two public tables of numbers, held against isolation forests on the same sealed rows.

Nothing is trained with labels. The verdict's opponent is the forest that the baseline `isolation_forest` fits. A forest is a matter of luck: `forests` says what ten of them, each
with another seed, reach on the rows that the verdict was about. The tables are ADBench's (Han et al., "ADBench: Anomaly Detection
Benchmark", 2022): `http`, network connections; `donors`, projects that ask for donations, where the ones looked for are no rarities.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from evaluating import Ran, interval, run, table
from sklearn.metrics import average_precision_score

from mlpipelines.evaluation.isolation_forest import forest_scores
from mlpipelines.project import ColumnType

TABLES = {"http": 500, "donors": 500}
"""Table: how many of the sealed rows people look at."""
FORESTS = 10


def evaluate(workspace: Path) -> dict[str, Any]:
    """One run on each table; figures by table."""
    return {
        "generated": _generated(workspace / "generated"),
        **{name: _on(name, cases, workspace / name) for name, cases in TABLES.items()},
    }


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    return [
        {"table": name, "metric": metric, "this model": interval(score), "isolation forest": f"{score['opponent']:.3f}"}
        for name, found in figures.items()
        if isinstance(found, dict) and "scores" in found
        for metric, score in found["scores"].items()
        if score["opponent"] is not None
    ]


def _generated(workspace: Path) -> dict[str, Any]:
    """The bookings of the project itself: beside the verdict, what is flagged of each oddity, and whether the first reason is the right one."""
    ran = run("transaction-outliers", workspace=workspace)
    (answers,) = ran.folder.glob("artifacts/*/evaluate/evaluation/predictions.parquet")
    told = pq.read_table(answers, partitioning=None).to_pandas()
    told["oddity"] = ran.sealed(["oddity"])["oddity"].to_pandas()
    told["right"] = [reasons[0].decode() == oddity for reasons, oddity in zip(told["predicted/reasons"], told["oddity"], strict=True)]
    kinds = {
        str(oddity): {
            "rows": len(rows),
            "flagged": round(float(rows["predicted/flagged"].mean()), 3),
            "first_reason_right": round(float(rows["right"].mean()), 3),
        }
        for oddity, rows in told.groupby("oddity")
    }
    few: dict[str, ColumnType] = {"amount": "float", "booked_at": "timestamp"}
    forests = {
        "all": _forests(ran, {"merchant": "string", "team": "string", **few}, "odd"),
        "amount and time": _forests(ran, few, "odd"),
    }
    return {**_figures(ran), "oddities": kinds, "forests": forests}


def _on(name: str, cases: int, workspace: Path) -> dict[str, Any]:
    source = table(f"outliers/adbench_{name}.parquet")
    features: dict[str, ColumnType] = {column: "float" for column in pq.read_schema(source).names if column != "label"}
    named = [word for column in features for word in ("--set", f"features.{column}=float")]
    settings = [
        "--set",
        f"source.path={source}",
        "--set",
        f"schema_file={workspace / 'schema.pbtxt'}",
        "--set",
        f"evaluation.capacity.cases={cases}",
        *named,
    ]
    ran = run("transaction-outliers", "--with", "numbers.yaml", *settings, workspace=workspace)
    return {**_figures(ran), "forests": _forests(ran, features, "label")}


def _figures(ran: Ran) -> dict[str, Any]:
    return {
        "status": ran.record["status"],
        "title": ran.verdict["title"],
        "seconds": round(ran.seconds),
        "step_seconds": {
            step: round(found["seconds"], 1) for step, found in ran.record["steps"].items() if found.get("seconds") is not None
        },
        "scores": ran.scores(),
        "differences": {score["metric"]: score["difference"] for score in ran.verdict["scores"]},
    }


def _forests(ran: Ran, features: dict[str, ColumnType], label: str) -> dict[str, Any]:
    """Average precision of forests with other seeds, from least to most, and seconds for one to learn and to score."""
    train, sealed = ran.learned("train", columns=[*features]), ran.sealed([*features, label])
    odd = sealed[label].cast(pa.int64()).to_numpy()
    started = time.monotonic()
    reached = [average_precision_score(odd, forest_scores(train, sealed, features, seed=seed)) for seed in range(FORESTS)]
    seconds = (time.monotonic() - started) / FORESTS
    return {"pr_auc": sorted(round(float(value), 4) for value in reached), "seconds_each": round(seconds, 1), "sealed_rows": len(sealed)}
