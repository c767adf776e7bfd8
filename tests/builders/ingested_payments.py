"""Card payments in a Parquet file, and `ingest` called on them as a run calls it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines import artifacts
from mlpipelines.artifacts import KEY, Data
from mlpipelines.ingestion.manifest import DataManifest
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.steps.ingest import ingest
from mlpipelines.workspace import ProjectState

DAY = 86_400
START = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())


def payments(count: int = 1000, *, start: int = 0, days: int = 120) -> pa.Table:
    """Rows spread evenly over `days`, each a function of its number."""
    rng = np.random.default_rng(7)
    number = np.arange(start, start + count)
    return pa.table(
        {
            "id": [f"p{n}" for n in number],
            "booked": pa.array(START + (number * days * DAY) // 1000, pa.timestamp("s")),
            "merchant": [f"SHOP {n % 50} *{n}" for n in number],
            "amount": rng.normal(size=count).round(2),
            "team": [("red", "blue", "blue", "blue")[n % 4] for n in number],
            "customer": [f"c{n % 90}" for n in number],
            "card": ["4929 0000 0000 0000"] * count,
            "category": [("food", "travel", "food", "books")[n % 4] for n in number],
        }
    )


def project(**changes: Any) -> Project:
    values: dict[str, Any] = {
        "name": "payments",
        "team": "finance",
        "task": "classification",
        "source": {"kind": "parquet", "path": "rows.parquet"},
        "key": "id",
        "time": "booked",
        "features": {"merchant": "string", "amount": "float"},
        "context": {"team": "string", "customer": "string"},
        "label": {"column": "category"},
    }
    return parse_project({name: value for name, value in {**values, **changes}.items() if value is not None}, origin="test")


@dataclass
class Place:
    """A project folder with a source, and the state between runs."""

    root: Path
    runs: int = 0

    @property
    def state(self) -> ProjectState:
        return ProjectState(self.root / "workspace")

    def ingest(
        self, rows: pa.Table | None = None, of: Project | None = None, *, since: datetime | None = None, until: datetime | None = None
    ) -> DataManifest:
        if rows is not None:
            pq.write_table(rows, self.root / "rows.parquet")
        self.runs += 1
        return ingest(
            project=of or project(),
            project_dir=self.root,
            state=self.state,
            data=self.data.root,
            test=self.test.root,
            predictions=self.predictions,
            since=since,
            until=until,
        )

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def data(self) -> Data:
        return Data(self.root / f"data{self.runs}")

    @property
    def test(self) -> artifacts.TestSet:
        return artifacts.TestSet(self.root / f"test{self.runs}")

    def rows(self, split: str) -> pa.Table:
        files = [self.test.rows] if split == "test" else self.data.files(split)  # type: ignore[arg-type] # a test's own literal
        return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])

    def keys(self, split: str) -> set[str]:
        return set(self.rows(split)[KEY].to_pylist())
