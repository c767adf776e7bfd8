"""The generated bookings keep their promises: same seed same rows, in any window, and each oddity is what it says."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "transaction-outliers"

generator = module_of(PROJECT, "generator")


def table(generator: ModuleType, **options: Any) -> pa.Table:
    return pa.Table.from_batches(generator.rows(**options), schema=generator.SCHEMA)


@pytest.fixture(scope="module")
def bookings(generator: ModuleType) -> pd.DataFrame:
    return table(generator, rows=20_000).to_pandas()


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(generator: ModuleType) -> None:
    first = table(generator, rows=1_000)
    assert first.equals(table(generator, rows=1_000))
    assert not first.equals(table(generator, rows=1_000, seed=8))
    assert pc.count_distinct(first["booking_id"]).as_py() == first.num_rows == 1_000


def test_windows_that_touch_share_no_row_and_lose_none(generator: ModuleType) -> None:
    cut = datetime(2025, 5, 17, 9, 30, tzinfo=UTC)
    early, late = table(generator, rows=3_000, until=cut), table(generator, rows=3_000, since=cut)
    assert pa.concat_tables([early, late]).equals(table(generator, rows=3_000))
    assert table(generator, rows=3_000, since=datetime(2040, 1, 1, tzinfo=UTC)).num_rows == 0


def test_about_one_row_in_a_hundred_is_odd_and_says_how(generator: ModuleType, bookings: pd.DataFrame) -> None:
    assert 0.007 < bookings["odd"].mean() < 0.013
    assert ((bookings["oddity"] == "none") == (bookings["odd"] == 0)).all()
    assert set(bookings["oddity"]) == {*generator.ODDITIES, "none"}
    assert table(generator, rows=500, odd_share=0.0).column("odd").to_pylist() == [0] * 500


def test_nobody_ordinary_buys_at_night_and_who_is_odd_by_hour_does(bookings: pd.DataFrame) -> None:
    hours = bookings["booked_at"].dt.hour
    assert hours[bookings["oddity"] == "hour"].max() < 5 < hours[bookings["oddity"] == "none"].min() + 1


def test_a_team_that_is_odd_buys_what_none_of_its_others_buys(bookings: pd.DataFrame) -> None:
    kind = bookings["merchant"].str.split().str[-1]
    ordinary = set(zip(bookings["team"], kind, strict=True)) - set(
        zip(bookings["team"][bookings["odd"] == 1], kind[bookings["odd"] == 1], strict=True)
    )
    ordinary |= set(zip(bookings["team"][bookings["odd"] == 0], kind[bookings["odd"] == 0], strict=True))
    odd = bookings["oddity"] == "team"
    assert not ordinary & set(zip(bookings["team"][odd], kind[odd], strict=True))


def test_odd_amounts_are_far_above_their_trades_and_odd_names_occur_once(bookings: pd.DataFrame) -> None:
    kind = bookings["merchant"].str.split().str[-1]
    usual = bookings[bookings["odd"] == 0].groupby(kind)["amount"].median()
    odd = bookings["oddity"] == "amount"
    assert (bookings["amount"][odd] / kind[odd].map(usual)).median() > 10
    names = bookings["merchant"].value_counts()
    assert (names[bookings["merchant"][bookings["oddity"] == "merchant"]] == 1).all()


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"days": 0}, {"odd_share": 1.5}])
def test_numbers_that_mean_nothing_are_refused(generator: ModuleType, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="odd_share"):
        list(generator.rows(**wrong))


def test_the_command_writes_a_parquet_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    command = [sys.executable, PROJECT / "generator.py", "--rows", "1500", "--out", file]
    assert "1,500 rows" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert pq.read_metadata(file).num_rows == 1_500
