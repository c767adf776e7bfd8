"""`batch-inference`, compiled and run: what a cluster would run, on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch_world import changed, payments, write
from mlpipelines.batch_pipeline import compile_batch_pipeline
from mlpipelines.project_file import load_project

pytestmark = pytest.mark.slow
RUN = """
import json, sys
from pathlib import Path
from mlpipelines.localrun import run_pipeline
from mlpipelines.step_processes import steps_as_forks
if __name__ == "__main__":
    with steps_as_forks():
        run_pipeline(Path(sys.argv[1]), {"cache": False, "arguments": json.loads(sys.argv[2])}, cache=Path(sys.argv[1]) / "cache")
"""


def run_compiled(world: Path, folder: Path, **arguments: Any) -> list[dict[str, Any]]:
    """Compile the project's batch pipeline and run it with kfp.local; returns what its step said."""
    folder.mkdir()
    compile_batch_pipeline(load_project(world / "payments"), folder / "pipeline.yaml")
    script = folder / "run.py"
    script.write_text(RUN)
    places = {"project_dir": str(world / "payments"), "workspace": str(world / "workspace")}
    environment = {"MILLRACE_RUN_DIR": str(folder), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, str(script), str(folder), json.dumps({**places, **arguments})]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (folder / "events.jsonl").exists(), said.stdout + said.stderr
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_compiled_pipeline_scores_files_and_says_no_to_rows_that_cannot_be_scored(world: Path, tmp_path: Path) -> None:
    write(world / "in" / "a.parquet", payments(60))
    out = world / "out"
    words: dict[str, Any] = {
        "input": str(world / "in"),
        "output": str(out),
        "keep": ["account"],
        "rank_by": "score",
        "top": 2,
        "per": "run",
    }
    events = run_compiled(world, tmp_path / "first", **words)
    assert [event["event"] for event in events if event["event"] in ("started", "finished", "failed")] == ["started", "finished"]
    (facts,) = [event["facts"] for event in events if event["event"] == "note"]
    assert (facts["files"], facts["rows"], facts["rejected"], facts["version"], facts["cases"]) == (1, 60, 0, 2, 2)
    assert pq.read_table(out / "cases.parquet", partitioning=None)["rank"].to_pylist() == [1, 2]
    assert "account" in pq.read_schema(out / "a.parquet").names

    write(world / "in" / "b.parquet", changed(payments(10, start=60), {1: {"age": None}}))
    events = run_compiled(world, tmp_path / "second", **words)
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert (failed["kind"], failed["exit_code"]) == ("DataRejected", 3)
    assert pq.read_metadata(out / "b.parquet").num_rows == 9, "what can be scored is scored"
