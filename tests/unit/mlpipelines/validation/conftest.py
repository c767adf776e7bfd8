"""Builders for the tests of statistics, validation and schemas: data as `ingest` writes it, and the two steps over it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlpipelines.errors import DataRejected
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.workspace import ProjectState, write_json

NOW = datetime(2017, 1, 1, tzinfo=UTC)
_NEWEST = int(NOW.timestamp()) - 3600


@dataclass
class Bench:
    """One project with its folder and state, and a data set to try on it."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    @property
    def project(self) -> Project:
        base: dict[str, Any] = {
            "name": "card-payments",
            "team": "finance",
            "task": "classification",
            "source": {"kind": "parquet", "path": "rows"},
            "time": "booked",
            "features": {"merchant": "string", "amount": "float", "currency": "string", "day": "integer"},
            "label": {"column": "category"},
        }
        return parse_project({**base, **self.settings}, origin="the test")

    @property
    def project_dir(self) -> Path:
        return self.root / "project"

    @property
    def state(self) -> ProjectState:
        return ProjectState(self.root / "state")

    @property
    def schema_file(self) -> Path:
        return self.project_dir / "schema.pbtxt"

    def run(self, train: pa.Table, validation: pa.Table | None = None, *, accept_schema: bool = True, **manifest: Any) -> Path:
        """Both steps over a data set, in a new folder of its own; without validation rows an eighth of them, drawn by chance."""
        from mlpipelines.steps.statistics import compute_statistics
        from mlpipelines.steps.validate import validate

        if validation is None:
            held_out = np.random.default_rng(0).random(train.num_rows) < 1 / 8
            train, validation = train.filter(pa.array(~held_out)), train.filter(pa.array(held_out))
        self.runs += 1
        here = self.root / f"run-{self.runs}"
        write_data(here / "data", train, validation, **manifest)
        compute_statistics(project=self.project, data=here / "data", statistics=here / "statistics", page=here / "statistics.html")
        validate(
            project=self.project,
            project_dir=self.project_dir,
            state=self.state,
            data=here / "data",
            statistics=here / "statistics",
            schema=here / "schema.pbtxt",
            page=here / "validation.html",
            accept_schema=accept_schema,
            now=NOW,
        )
        return here

    def refused(self, train: pa.Table, validation: pa.Table | None = None, *, accept_schema: bool = True, **manifest: Any) -> DataRejected:
        """The same, for data that must be refused."""
        with pytest.raises(DataRejected) as caught:
            self.run(train, validation, accept_schema=accept_schema, **manifest)
        return caught.value

    @property
    def last_run(self) -> Path:
        return self.root / f"run-{self.runs}"


def write_data(folder: Path, train: pa.Table, validation: pa.Table, **manifest: Any) -> None:
    """A `Data` artifact of two spans a split; `manifest` is added to its manifest."""
    digest = hashlib.sha256()
    for split, table in (("train", train), ("validation", validation)):
        half = table.num_rows // 2
        for span, part in (("2016-11", table.slice(0, half)), ("2016-12", table.slice(half))):
            path = folder / split / span / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(part, path)
            digest.update(path.read_bytes())
    rows = {"train": train.num_rows, "validation": validation.num_rows}
    write_json(folder / "manifest.json", {"rows": rows, "content_hash": digest.hexdigest(), "source": {"path": "rows"}, **manifest})


def payments(rows: int = 2000, seed: int = 0, **columns: Any) -> pa.Table:
    """Card payments; `columns` replaces or adds columns, None takes one away."""
    random = np.random.default_rng(seed)
    amounts = random.lognormal(3, 2, rows).astype(np.float32)
    made: dict[str, Any] = {
        "merchant": pa.array(random.zipf(1.4, rows).clip(max=10**6).astype(str)),
        "amount": pa.array(amounts, mask=random.random(rows) < 0.05),
        "currency": pa.array(random.choice(["EUR", "GBP", "USD"], p=[0.2, 0.7, 0.1], size=rows)),
        "day": pa.array(random.integers(0, 7, rows)),
        "booked": pa.array(_NEWEST - random.integers(0, 10**7, rows)),
        "category": pa.array(random.choice(["food", "fuel", "travel"], p=[0.5, 0.3, 0.2], size=rows)),
        "__key": pa.array([f"key-{seed}-{i}" for i in range(rows)]),
    }
    made.update(columns)
    return pa.table({name: column for name, column in made.items() if column is not None})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(root=tmp_path)


@pytest.fixture(name="payments")
def payments_fixture() -> Callable[..., pa.Table]:
    return payments


@pytest.fixture(name="write_data")
def write_data_fixture() -> Callable[..., None]:
    return write_data


@pytest.fixture
def rejections() -> Callable[[DataRejected], Mapping[tuple[str, str], Mapping[str, object]]]:
    """An error's report by column and rule."""
    return lambda error: {(str(row["column"]), str(row["rule"])): row for row in error.report}
