"""Statistics: TFDV's own numbers, from Parquet, whatever the columns hold; both splits and the whole in one reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlpipelines.artifacts import Statistics
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.steps.statistics import compute_statistics
from mlpipelines.validation.columns import Snapshot, read_snapshot, read_statistics
from mlserving.statistics.distances import shift

SEEDS = 20
Write = Callable[..., None]


def project(**features: str) -> Project:
    values = {
        "name": "things",
        "team": "finance",
        "task": "detection",
        "source": {"kind": "parquet", "path": "x"},
        "features": features,
    }
    return parse_project(values, origin="the test")


def described(folder: Path, write_data: Write, train: pa.Table, validation: pa.Table | None = None, **features: str) -> Snapshot:
    write_data(folder / "data", train, train if validation is None else validation)
    compute_statistics(
        project=project(**(features or {"x": "float"})), data=folder / "data", statistics=folder / "statistics", page=folder / "page.html"
    )
    return read_snapshot(folder / "statistics")


def test_each_split_and_the_whole_are_described_and_the_key_is_not(
    tmp_path: Path, write_data: Write, payments: Callable[..., pa.Table]
) -> None:
    train, validation = payments(1000), payments(200, seed=1)
    found = described(tmp_path, write_data, train, validation)
    assert found.rows == {"train": 1000, "validation": 200}
    assert set(found.whole) == set(train.column_names) - {"__key"}
    both = pa.concat_tables([train, validation])
    assert found.whole["amount"].missing == both["amount"].null_count
    counts = found.whole["currency"].texts
    assert counts is not None
    assert dict(counts.counts) == {entry["values"]: entry["counts"] for entry in both["currency"].value_counts().to_pylist()}
    days = found.whole["day"].numbers
    assert days is not None
    assert (days.minimum, days.maximum) == (0, 6)
    assert days.mean == pytest.approx(np.mean(both["day"].to_numpy()))


def test_the_whole_is_what_tfdv_says_about_all_rows_at_once(tmp_path: Path, write_data: Write, payments: Callable[..., pa.Table]) -> None:
    train, validation = payments(600), payments(200, seed=1)
    described(tmp_path / "split", write_data, train, validation)
    described(tmp_path / "once", write_data, pa.concat_tables([train, validation]), train.slice(0, 0))
    merged, once = (read_statistics(Statistics(tmp_path / name / "statistics").whole).datasets[0] for name in ("split", "once"))
    assert merged.num_examples == once.num_examples
    for ours, theirs in zip(merged.features, once.features, strict=True):
        assert ours.path == theirs.path
        assert ours.num_stats.common_stats == theirs.num_stats.common_stats
        assert ours.string_stats.rank_histogram == theirs.string_stats.rank_histogram
        assert ours.num_stats.mean == pytest.approx(theirs.num_stats.mean, nan_ok=True)


def test_lists_bytes_broken_text_and_empty_columns_are_described(tmp_path: Path, write_data: Write) -> None:
    broken = pa.StringArray.from_buffers(3, pa.array([0, 2, 5, 8], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfea\0bxyz"))
    table = pa.table(
        {
            "tags": pa.array([["red", "blue"], [], None]),
            "sizes": pa.array([[1, None, 3], [4], [5]]),
            "image": pa.array([b"\x89PNG" * 1000, None, b"JFIF"]),
            "text": broken,
            "nothing": pa.nulls(3, pa.float32()),
            "number": pa.array([1.0, float("nan"), None], pa.float32()),
            "flag": pa.array([0, 1, 1]),
        }
    )
    features = {"tags": "[string]", "sizes": "[integer]", "image": "bytes", "text": "string", "nothing": "float", "number": "float"}
    whole = described(tmp_path, write_data, table, **features, flag="integer").whole
    assert {name: column.missing for name, column in whole.items()} == {
        "tags": 2,
        "sizes": 0,
        "image": 2,
        "text": 0,
        "nothing": 6,
        "number": 4,
        "flag": 0,
    }
    assert whole["tags"].texts is not None
    assert dict(whole["tags"].texts.counts) == {"red": 2, "blue": 2}
    assert whole["sizes"].numbers is not None
    assert whole["sizes"].numbers.mean == pytest.approx(3.25)
    assert whole["text"].texts is not None
    assert whole["text"].texts.distinct == 3
    page = (tmp_path / "page.html").read_text()
    assert "PNG" not in page
    assert "red" in page


def test_a_split_without_rows_is_described_as_such(tmp_path: Path, write_data: Write, payments: Callable[..., pa.Table]) -> None:
    assert described(tmp_path, write_data, payments(10), payments(10).slice(0, 0)).rows == {"train": 10, "validation": 0}


def test_a_truncated_file_is_named(tmp_path: Path, write_data: Write, payments: Callable[..., pa.Table]) -> None:
    write_data(tmp_path / "data", payments(100), payments(100))
    file = tmp_path / "data" / "train" / "2016-12" / "part-0.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataRejected, match=r"2016-12/part-0.parquet cannot be read as Parquet.*`millrace run"):
        compute_statistics(project=project(x="float"), data=tmp_path / "data", statistics=tmp_path / "s", page=tmp_path / "p.html")
    assert not (tmp_path / "s").exists()


def test_damaged_statistics_are_named(tmp_path: Path) -> None:
    (tmp_path / "whole.pb").write_bytes(b"\xff" * 10)
    with pytest.raises(ConfigError, match=r"whole.pb cannot be read as statistics"):
        read_snapshot(tmp_path)


def test_the_page_escapes_what_the_data_says(tmp_path: Path, write_data: Write) -> None:
    table = pa.table({"x": pa.array(["<script>alert(1)</script>"] * 4)})
    described(tmp_path, write_data, table, x="string")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_samples_of_one_distribution_stay_quiet_in_tfdvs_own_sketches(tmp_path: Path, write_data: Write) -> None:
    """The simulation of `test_drift`, with the histograms that TFDV really writes: each column is a seed."""
    draws: dict[str, Callable[[Any, int], Any]] = {
        "amount": lambda random, rows: random.lognormal(3, 2, rows).astype(np.float32),
        "merchant": lambda random, rows: random.zipf(1.3, rows).astype(str),
    }
    for rows in (300, 5000):
        samples = [
            {
                f"{name}{seed}": pa.array(draw(np.random.default_rng([seed, side]), rows))
                for name, draw in draws.items()
                for seed in range(SEEDS)
            }
            for side in (0, 1)
        ]
        found = described(tmp_path / str(rows), write_data, pa.table(samples[0]), pa.table(samples[1]))
        shifts = {name: shift(found.train[name], found.validation[name]) for name in found.whole}
        assert [name for name, moved in shifts.items() if moved is None or moved.exceeds(0.05)] == []
