"""Odd bookings, from rows that nobody labelled to cases with their reasons, through the commands that a person types."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from typed_commands import MILLRACE, millrace, run, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROJECT = Path(__file__).resolve().parents[2] / "pipelines" / "projects" / "transaction-outliers"
FEATURES = ("merchant", "amount", "booked_at", "team")
SETTINGS = ("source.options.rows=8000", "training.epochs=4", "training.batch_size=64", "evaluation.capacity.cases=1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a champion that was trained on few rows, and beat an isolation forest on later ones."""
    folder = tmp_path_factory.mktemp("outliers")
    record = run(PROJECT, "--accept-schema", *(f"--set={each}" for each in SETTINGS), workspace=folder)
    assert record["status"] == "blessed", record["failure"]
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later month of the company's bookings, as its books give them out."""
    file = tmp_path_factory.mktemp("exports") / "later.parquet"
    command = [str(Path(MILLRACE).parent / "python"), "generator.py", "--rows", "8000", "--out", str(file)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(rows.slice(7000), file)
    return file


def test_the_verdict_is_against_an_isolation_forest_on_the_same_rows(workspace: Path) -> None:
    (file,) = workspace.glob("projects/*/runs/*/artifacts/*/evaluate/evaluation/verdict.json")
    verdict = json.loads(file.read_text())
    assert verdict["opponent"]["name"] == "the baseline 'isolation forest'"
    scores = {score["metric"]: score for score in verdict["scores"]}
    assert scores["pr_auc"]["challenger"]["value"] > scores["pr_auc"]["opponent"] > 0


def test_cases_come_with_their_reasons(workspace: Path, exported: Path, tmp_path: Path) -> None:
    words = ["--input", exported, "--output", tmp_path / "scores", "--keep", "oddity", "--rank-by", "score", "--top", "10", "--per", "run"]
    outcome = json.loads(millrace("batch", PROJECT, "--json", *words, workspace=workspace).stdout)
    assert (outcome["scored"], outcome["rejected"], outcome["cases"]) == (1000, 0, 10)
    cases = pq.read_table(tmp_path / "scores" / "cases.parquet", partitioning=None).to_pylist()
    odd = [case for case in cases if case["oddity"] != "none"]
    assert len(odd) >= 4, "of about ten among a thousand"
    assert sum(case["output/reasons"][0] == case["oddity"] for case in odd) >= 0.6 * len(odd)
    for case in cases:
        assert len(case["output/reasons"]) == len(case["output/distances"]) == 3
        assert case["output/flagged"], "the highest of a thousand are within the capacity"


def test_a_served_answer_says_why(workspace: Path, exported: Path, tmp_path: Path) -> None:
    rows = pq.read_table(exported, partitioning=None)
    ordinary = rows.filter(pc.and_(pc.equal(rows["odd"], 0), pc.greater(rows["amount"], 0))).select(FEATURES).to_pylist()[0]
    row: dict[str, Any] = {**ordinary, "booked_at": int(ordinary["booked_at"].timestamp()), "amount": 60 * ordinary["amount"]}
    questions = tmp_path / "rows.jsonl"
    questions.write_text(json.dumps(row))
    with served("transaction-outliers", workspace, tmp_path / "ready.json") as address:
        asked = ["predict", "transaction-outliers", "--address", address, "--file", questions]
        (usual, why) = (json.loads(millrace(*asked, "--json", *more, workspace=workspace).stdout) for more in ([], ["--explain"]))
        shown = millrace(*asked, "--explain", workspace=workspace).stdout
        body = json.dumps({"signature_name": "explain", "instances": [row]}).encode()
        with urllib.request.urlopen(f"http://{address}/v1/models/transaction-outliers:predict", body, timeout=60) as response:
            (by_rest,) = json.load(response)["predictions"]
    assert usual["reasons"][0] == "amount"
    assert {name: why[name] for name in usual} == usual
    assert set(why["explained_by"]) == set(FEATURES)
    assert why["explained_by"][0] == "amount"
    assert why["base_score"] + sum(why["attributions"]) == pytest.approx(why["score"], abs=1e-4)
    assert by_rest["explained_by"] == why["explained_by"]
    assert by_rest["attributions"] == pytest.approx(why["attributions"], abs=1e-5)
    assert "because" in shown
