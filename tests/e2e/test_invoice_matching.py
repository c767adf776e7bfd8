"""From a generated ledger to a file of matches, through the commands that a person types."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlpipelines.project_code import load_code
from typed_commands import millrace, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROJECT = Path(__file__).resolve().parents[2] / "pipelines" / "projects" / "invoice-matching"
MONTH = ("2024-06-01", "2024-07-01")
LEDGER = {"invoices": 800, "days": 200, "seed": 7}
SETTINGS = [f"source.options.generated.{name}={value}" for name, value in LEDGER.items()] + [
    "source.span=none",
    "validation.skew=null",  # a few transfers to a side are never quite alike
    "training.epochs=8",
    "training.batch_size=128",
    "split.test=0.3",
    "evaluation.budget.latency_ms=2000",
    "evaluation.resamples=200",
    "deployment.warmup_requests=5",
]


def test_a_month_is_matched_by_a_model_that_has_not_seen_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"--set={each}" for each in SETTINGS]
    record = run(PROJECT, "--until", MONTH[0], *words, workspace=tmp_path / "w")
    assert record["status"] == "blessed", record["failure"]
    scores = tmp_path / "scores"
    said = millrace(
        "batch", PROJECT, "--json", "--since", MONTH[0], "--until", MONTH[1], "--output", scores, *words, workspace=tmp_path / "w"
    ).stdout
    decisions = pq.read_table(scores / "decisions.parquet", partitioning=None).to_pylist()
    assert json.loads(said)["decisions"] == len(decisions) > 50

    monkeypatch.setattr(sys, "path", list(sys.path))
    ledger = load_code(PROJECT, "generator").ledger(**LEDGER)
    booked = dict(zip(ledger.transfers["transfer_id"].to_pylist(), ledger.transfers["booked_at"].to_pylist(), strict=True))
    low, high = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in MONTH)
    assert all(low <= booked[row["transfer_id"]] < high for row in decisions)

    true = {(match["transfer_id"], match["invoice_id"]) for match in ledger.matches.to_pylist()}
    matched = [(row["transfer_id"], row["invoice_id"]) for row in decisions if row["kind"] != "none"]
    assert sum(pair in true for pair in matched) > 0.9 * len(matched)
    sure = [(row["transfer_id"], row["invoice_id"]) for row in decisions if row["automatic"]]
    assert sum(pair in true for pair in sure) > 0.95 * len(sure) > 20

    owed = dict(zip(ledger.invoices["invoice_id"].to_pylist(), ledger.invoices["amount"].to_pylist(), strict=True))
    paid = Counter[str]()
    for row in decisions:
        if row["invoice_id"] is not None:
            paid[row["invoice_id"]] += row["amount"]
    assert all(amount <= owed[invoice] + 0.001 for invoice, amount in paid.items())
