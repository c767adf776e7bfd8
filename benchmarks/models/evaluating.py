"""What the evaluations of the models have in common: where the real tables lie, one run of a project, and where figures are written.

A module of this folder evaluates one project on a real table: it runs the project exactly as `millrace run` does, computes what the verdict
does not say (a rival from another library, what happens to customers nobody has seen), and returns its figures. `evaluate.py` calls them.
The tables are public and not part of this repository; `MILLRACE_DATA` says where they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.artifacts import Data, SplitName
from mlpipelines.evaluation.served_model import answer_rows, load_model
from mlpipelines.project import Project

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = ROOT / "pipelines" / "projects"
RESULTS = ROOT / "benchmarks" / "results" / "models"
MILLRACE = str(Path(sys.executable).parent / "millrace")
RESAMPLES = 1000
_SEED = 17
_LONGEST = 3600
_DATA = "artifacts/*/ingest/data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run of a project."""

    record: Mapping[str, Any]
    """What `millrace run --json` says."""
    verdict: Mapping[str, Any]
    """What `evaluate` decided, as its verdict.json has it."""
    folder: Path
    """The run's own folder in the workspace; its artifacts lie below."""
    seconds: float

    def sealed(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The sealed rows, as `ingest` keeps them."""
        return pq.read_table(self.folder.parents[1] / "sealed" / "test.parquet", columns=columns, partitioning=None)

    def learned(self, *splits: SplitName, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of splits; those of the one other run whose `ingest` this one took over, where it read none itself."""
        runs = [self.folder] if any(self.folder.glob(_DATA)) else [run for run in self.folder.parent.iterdir() if any(run.glob(_DATA))]
        (data,) = (found for run in runs for found in run.glob(_DATA))
        files = [file for split in splits for file in Data(data).files(split)]
        return pa.concat_tables(pq.read_table(file, columns=columns, partitioning=None) for file in files)

    def answers(self, project: Project, rows: pa.Table) -> dict[str, Any]:
        """What the trained model answers for raw rows, by output."""
        (saved,) = self.folder.glob("artifacts/*/train/model/saved_model")
        with load_model(saved) as model:
            return answer_rows(model, project, rows)

    def scores(self) -> dict[str, dict[str, Any]]:
        """By metric: `value`, `low` and `high` (the interval) of this model, and the `opponent`'s value."""
        return {each["metric"]: {**each["challenger"], "opponent": each["opponent"]} for each in self.verdict["scores"]}


def table(name: str) -> Path:
    """A real table, `folder/file.parquet` below `MILLRACE_DATA`.

    Raises:
        SystemExit: it is not there.
    """
    file = Path(os.environ.get("MILLRACE_DATA", ROOT.parent / "shared" / "data")) / name
    if not file.is_file():
        raise SystemExit(f"{file} is not there. Set MILLRACE_DATA to the folder that holds {name}.")
    return file


def run(project: str, *words: str | Path, workspace: Path) -> Ran:
    """`millrace run PROJECT --accept-schema WORDS…`.

    Raises:
        SystemExit: it ended without a verdict.
    """
    command = [MILLRACE, "run", str(PROJECTS / project), "--accept-schema", "--json", "--workspace", str(workspace), *map(str, words)]
    started = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST)
    record = json.loads(ended.stdout or "{}")
    found = list(workspace.glob(f"projects/*/runs/{record.get('run')}/artifacts/*/evaluate/evaluation/verdict.json"))
    if len(found) != 1:
        raise SystemExit(f"{' '.join(command)}\nended with {ended.returncode} and no verdict:\n{ended.stderr or ended.stdout}")
    seconds = time.monotonic() - started
    return Ran(record=record, verdict=json.loads(found[0].read_text()), folder=found[0].parents[4], seconds=seconds)


@contextmanager
def project_code(project: str) -> Iterator[None]:
    """Let the block import the modules of a project's folder, as its steps do."""
    sys.path.insert(0, str(PROJECTS / project))
    try:
        yield
    finally:
        sys.path.remove(str(PROJECTS / project))


def resampled(rows: int, value: Callable[[npt.NDArray[np.int64]], float]) -> dict[str, float]:
    """`value` of all rows, with its 95 % percentile interval over `RESAMPLES` draws of as many rows with replacement; the same draws each time.

    They are the draws of `mlpipelines.evaluation.bootstrap` with this seed. Its `interval` would also correct the bias, and its metrics are functions
    of weights, which a calibration error over bins of equally many rows is not.

    Args:
        rows: how many there are.
        value: of the numbers of some rows [rows].
    """
    rng = np.random.default_rng(_SEED)
    low, high = np.quantile([value(rng.integers(0, rows, rows)) for _ in range(RESAMPLES)], [0.025, 0.975])
    return {"value": value(np.arange(rows)), "low": float(low), "high": float(high)}


def interval(estimate: Mapping[str, Any]) -> str:
    """`0.714 [0.709, 0.718]`."""
    low, high = estimate.get("low"), estimate.get("high")
    return f"{estimate['value']:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")
