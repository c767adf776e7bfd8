"""Every morning no more cases than people can look at, nobody twice, and what people say of them is learned from."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpipelines.project_file import load_project
from mlserving.predictions import reading
from typed_commands import millrace, run, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PROJECT = Path(__file__).resolve().parents[2] / "pipelines" / "projects" / "scam-users"
CASES = 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes the project small, over a warehouse of few accounts."""
    file = tmp_path_factory.mktemp("warehouse") / "warehouse.db"
    words = [str(PROJECT / "generator.py"), "--users", "400", "--days", "110", "--out", str(file)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    small = [f"source.url=sqlite:///{file}", f"evaluation.capacity.cases={CASES}", "split.gap_days=10", "training.epochs=3"]
    small += ["training.parameters.members=4", "training.parameters.hidden=32", "training.batch_size=64", "evaluation.resamples=200"]
    small += ["evaluation.margin=1.0", "evaluation.guards=[]"]  # whether so small a model got better is not the question here
    return [f"--set={each}" for each in small]


def morning(day: str, next_day: str, settings: list[str], workspace: Path) -> dict[str, Any]:
    """What Airflow asks for: the accounts of a day, ranked."""
    window = ["--since", day, "--until", next_day, "--output", workspace / "scores", "--rank-by", "score", "--once-per", "user_id"]
    outcome: dict[str, Any] = json.loads(millrace("batch", PROJECT, "--json", *window, *settings, workspace=workspace).stdout)
    return outcome


def delivered(workspace: Path) -> pa.Table:
    return pq.read_table(workspace / "scores" / "cases.parquet", partitioning=None)


def test_cases_of_two_mornings_are_few_and_new_and_verdicts_on_them_are_learned_from(settings: list[str], tmp_path: Path) -> None:
    first = run(PROJECT, *settings, workspace=tmp_path)
    assert first["status"] == "blessed", first["failure"]

    outcome = morning("2025-04-10", "2025-04-11", settings, tmp_path)
    assert outcome["scored"] == outcome["rows"] > 10 * CASES
    assert outcome["logged"] == outcome["scored"], "every account is logged with what the model saw"
    cases = [delivered(tmp_path)]
    morning("2025-04-11", "2025-04-12", settings, tmp_path)
    cases.append(delivered(tmp_path))
    assert [len(each) for each in cases] == [CASES, CASES]
    people = [user for each in cases for user in each["user_id"].to_pylist()]
    assert len(set(people)) == 2 * CASES
    assert morning("2025-04-11", "2025-04-12", settings, tmp_path)["files"] == 0, "asked once more, nothing is scored or delivered again"

    why(delivered(tmp_path).to_pylist()[0], tmp_path)

    verdicts = tmp_path / "verdicts.csv"
    with verdicts.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["prediction_id", "label", "labelled_at", "reviewer"])
        for number, each in enumerate(name for table in cases for name in table["prediction_id"].to_pylist()):
            lines.writerow([each, number % 2, "2025-04-12T09:00:00Z", "mia"])
    millrace("labels", "import", verdicts, "--model", "scam-users", workspace=tmp_path)

    second = run(PROJECT, *settings, workspace=tmp_path)
    assert second["status"] == "blessed", second["failure"]
    assert second["facts"]["learned"].startswith(f"{2 * CASES} predictions among them")


def why(case: dict[str, Any], workspace: Path) -> None:
    """What a moderator is told who asks why: each feature's part, and together with the score of a typical account they are the score of the case."""
    features = load_project(PROJECT).features
    logged = reading.log(workspace / "predictions", "scam-users").table(["prediction_id", *(f"feature/{name}" for name in features)])
    (seen,) = (row for row in logged.to_pylist() if row["prediction_id"] == case["prediction_id"])
    asked = {name: seen[f"feature/{name}"] for name in features if seen[f"feature/{name}"] is not None}
    (workspace / "case.jsonl").write_text(json.dumps(asked))
    with served("scam-users", workspace, workspace / "ready.json") as address:
        words = ["--address", address, "--explain", "--json", "--file", workspace / "case.jsonl"]
        answer = json.loads(millrace("predict", "scam-users", *words, workspace=workspace).stdout)
    assert answer["score"] == pytest.approx(case["score"], abs=1e-5)
    assert set(answer["explained_by"]) == set(features)
    assert answer["base_score"] + sum(answer["attributions"]) == pytest.approx(answer["score"], abs=1e-3)
