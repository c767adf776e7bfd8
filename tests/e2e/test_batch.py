"""From generated transactions to a trained champion to batch predictions, through the commands that a person types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpipelines.batch.output import Output, alone_in
from typed_commands import MILLRACE, environment, millrace, run, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "pipelines" / "projects" / "transactions"
FEATURES = ("merchant", "amount", "booked_at", "vat", "team", "cost_centre")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a champion that was trained on few rows."""
    folder = tmp_path_factory.mktemp("transactions")
    settings = ["source.options.rows=5000", "training.epochs=1", "evaluation.baseline.kind=majority", "evaluation.baseline.column="]
    record = run(PROJECT, "--accept-schema", *(f"--set={each}" for each in settings), workspace=folder)
    assert record["status"] == "blessed", record["failure"]
    return folder


def batch(workspace: Path, *words: str | Path, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(millrace("batch", PROJECT, "--json", *words, workspace=workspace, code=code).stdout)
    return found


def test_batch_predictions_are_those_that_a_server_gives_and_a_killed_call_is_gone_on_with(workspace: Path, tmp_path: Path) -> None:
    exports, scores = tmp_path / "exports", tmp_path / "scores"
    exports.mkdir()
    for seed in (1, 2):
        file = exports / f"seed {seed}.parquet"
        words = ["python", "generator.py", "--rows", "4000", "--seed", str(seed), "--out", str(file)]
        subprocess.run([str(Path(MILLRACE).parent / words[0]), *words[1:]], cwd=PROJECT, check=True, capture_output=True)
        pq.write_table(pq.read_table(file, partitioning=None), file, row_group_size=500)
    options = [
        "--input",
        exports,
        "--output",
        scores,
        "--keep",
        "team",
        "--rank-by",
        "confidence",
        "--top",
        "3",
        "--per",
        "day",
        "--log-share",
        "1",
    ]

    with subprocess.Popen(
        [MILLRACE, "batch", str(PROJECT), *map(str, options)], env=environment(workspace), stdout=subprocess.DEVNULL
    ) as first:
        deadline = time.monotonic() + 400
        while not list(scores.glob("_state/work/*/*.json")) and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.005)
        os.kill(first.pid, signal.SIGKILL)
    assert not (scores / "_batch.json").exists(), "killed in the middle"
    outcome = batch(workspace, *options)
    assert (outcome["resumed"], outcome["files"], outcome["rows"], outcome["scored"], outcome["rejected"]) == (True, 2, 8000, 8000, 0)
    again = batch(workspace, *options)
    assert (again["files"], again["unchanged"], again["cases"]) == (0, 2, None)
    logged = pa.concat_tables(pq.read_table(f, partitioning=None) for f in (workspace / "predictions").rglob("*.parquet"))
    assert len(set(logged["prediction_id"].to_pylist())) == logged.num_rows == 8000
    cases = pq.read_table(scores / "cases.parquet", partitioning=None)
    assert cases.num_rows == outcome["cases"] > 100
    assert max(cases["rank"].to_pylist()) <= 3

    rows = pq.read_table(exports / "seed 1.parquet", partitioning=None)
    asked = rows.slice(0, 50).select(FEATURES).to_pylist()
    lines = [{**row, "booked_at": int(row["booked_at"].timestamp())} for row in asked]
    questions = tmp_path / "rows.jsonl"
    questions.write_text("\n".join(json.dumps({name: value for name, value in row.items() if value is not None}) for row in lines))
    with served("transactions", workspace, tmp_path / "ready.json") as address:
        said = millrace("predict", "transactions", "--address", address, "--file", questions, "--json", workspace=workspace).stdout
    answers = [json.loads(line) for line in said.splitlines()]
    scored = pq.read_table(scores / "seed 1.parquet", partitioning=None).slice(0, 50)
    assert scored["transaction_id"].to_pylist() == rows["transaction_id"].to_pylist()[:50]
    assert scored["output/label"].to_pylist() == [answer["label"] for answer in answers]
    assert scored["output/confidence"].to_pylist() == pytest.approx([answer["confidence"] for answer in answers], abs=1e-5)
    assert scored["output/scores"].to_pylist()[0] == pytest.approx(answers[0]["scores"], abs=1e-5)


def test_the_projects_own_source_is_scored_for_a_window(workspace: Path, tmp_path: Path) -> None:
    words = ["--since", "2025-03-01", "--until", "2025-04-01", "--output", tmp_path / "scores", "--set=source.options.rows=5000"]
    outcome = batch(workspace, *words)
    assert outcome["scored"] == outcome["rows"] > 50
    assert "category" not in pq.read_schema(next((tmp_path / "scores").glob("*.parquet"))).names


def test_what_goes_wrong_ends_with_its_own_exit_code(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "in" / "a.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"merchant": ["a"]}), file)
    refused = millrace("batch", PROJECT, "--input", file, "--output", tmp_path / "out", workspace=workspace, code=3)
    assert "a.parquet" in refused.stderr
    assert "'amount'" in refused.stderr
    assert "inside" in millrace("batch", PROJECT, "--input", file.parent, "--output", file.parent / "o", workspace=workspace, code=2).stderr
    with alone_in(Output(tmp_path / "out")):
        busy = millrace("batch", PROJECT, "--input", file, "--output", tmp_path / "out", workspace=workspace, code=5)
    assert f"process {os.getpid()}" in busy.stderr
