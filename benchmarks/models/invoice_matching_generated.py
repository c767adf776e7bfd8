"""`invoice-matching` on its generated ledger: what is matched at the end, in months that the model has not seen.

Trained on what was booked before March 2025; March then chooses the certainty from which on 99 % of the matched transfers are right; April and May judge.
Beside it the rule that a person would write first: the number in the reference, and the amount to the penny.
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from evaluating import MILLRACE, PROJECTS, interval, project_code, run

from mlpipelines.project_file import load_project

PROJECT = "invoice-matching"
TRAINED_UNTIL = "2025-03-01"
MONTHS = ("2025-03-01", "2025-04-01", "2025-05-01", "2025-06-01")
PRECISION = 0.99


def evaluate(workspace: Path) -> dict[str, Any]:
    """A run and three months; figures by name."""
    ran = run(PROJECT, "--until", TRAINED_UNTIL, workspace=workspace)
    with project_code(PROJECT):
        import blocking  # type: ignore[import-not-found]  # the project's own, like the two below
        import generator  # type: ignore[import-not-found]
        import quality  # type: ignore[import-not-found]
    ledger = generator.ledger(**load_project(PROJECTS / PROJECT).source.options["generated"])
    truth, answers = quality.truth_of(ledger.matches.to_pylist()), []
    for since, until in pairwise(MONTHS):
        output = workspace / f"decisions-{since}"
        _batch("--since", since, "--until", until, "--output", str(output), workspace=workspace)
        answers.append(quality.decided(pq.read_table(output / "decisions.parquet", partitioning=None).to_pylist()))
    months = [{name: truth[name] for name in _booked(ledger, since, until)} for since, until in pairwise(MONTHS)]
    chosen = quality.threshold(months[0], answers[0], PRECISION)
    judges, judged = months[1] | months[2], answers[1] | answers[2]
    rule = {name: quality.Decided(invoices=invoices, certainty=1.0) for name, invoices in _by_rule(ledger, blocking.digit_runs).items()}
    return {
        "seconds": round(ran.seconds),
        "scores": ran.scores(),
        "matched": quality.quality(judges, judged),
        "rule": quality.quality(judges, rule),
        "automatic": quality.automatic(judges, judged, chosen),
    }


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    printed = [{"what": f"pair model: {name}", "value": interval(score)} for name, score in figures["scores"].items()]
    told = {"matched": "matches, April and May", "rule": "by the rule, April and May", "automatic": "without a person, April and May"}
    return printed + [
        {"what": f"{text}: {name}", "value": f"{value:.3f}"} for part, text in told.items() for name, value in figures[part].items()
    ]


def _batch(*words: str, workspace: Path) -> None:
    command = [MILLRACE, "batch", str(PROJECTS / PROJECT), "--json", "--workspace", str(workspace), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {ended.returncode}:\n{ended.stderr or ended.stdout}")


def _booked(ledger: Any, since: str, until: str) -> list[str]:
    low, high = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (since, until))
    return [row["transfer_id"] for row in ledger.transfers.to_pylist() if low <= row["booked_at"] < high]


def _by_rule(ledger: Any, digit_runs: Any) -> dict[str, frozenset[str]]:
    """A transfer pays the one invoice whose number its reference has and whose amount is the same to the penny."""
    known = {run.lstrip("0"): row for row in ledger.invoices.to_pylist() for run in digit_runs(row["number"])[1:]}
    found = {}
    for transfer in ledger.transfers.to_pylist():
        told = [known[run.lstrip("0")] for run in digit_runs(transfer["reference"]) if run.lstrip("0") in known]
        fits = {row["invoice_id"] for row in told if (row["currency"], row["amount"]) == (transfer["currency"], transfer["amount"])}
        found[transfer["transfer_id"]] = frozenset(fits) if len(fits) == 1 else frozenset()
    return found
