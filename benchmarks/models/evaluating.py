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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = ROOT / "pipelines" / "projects"
RESULTS = ROOT / "benchmarks" / "results" / "models"
MILLRACE = str(Path(sys.executable).parent / "millrace")
_LONGEST = 3600


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


def interval(estimate: Mapping[str, Any]) -> str:
    """`0.714 [0.709, 0.718]`."""
    low, high = estimate.get("low"), estimate.get("high")
    return f"{estimate['value']:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")
