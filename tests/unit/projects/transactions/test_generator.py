"""The generated transactions keep their promises: same seed same rows, in any window, as hard as they claim, drifting on request."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "transactions"

generator = module_of(PROJECT, "generator")


def table(generator: ModuleType, **options: Any) -> pa.Table:
    return pa.Table.from_batches(generator.rows(**options), schema=generator.SCHEMA)


def share(values: pa.ChunkedArray) -> float:
    return float(pc.mean(values.cast(pa.float64())).as_py())


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(generator: ModuleType) -> None:
    first = table(generator, rows=2_000)
    assert first.equals(table(generator, rows=2_000))
    assert not first.equals(table(generator, rows=2_000, seed=8))


def test_exactly_the_asked_number_of_rows_comes_each_with_its_own_key(generator: ModuleType) -> None:
    rows = table(generator, rows=5_431)
    assert rows.num_rows == 5_431
    assert pc.count_distinct(rows["transaction_id"]).as_py() == 5_431
    assert rows.num_columns == 12


def test_rows_of_a_window_are_those_of_the_whole_period(generator: ModuleType) -> None:
    since, until = datetime(2024, 3, 10, 12, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)
    whole = table(generator, rows=4_000)
    inside = pc.and_(pc.greater_equal(whole["booked_at"], since), pc.less(whole["booked_at"], until))
    assert table(generator, rows=4_000, since=since, until=until).equals(whole.filter(inside))


def test_windows_that_touch_share_no_row_and_lose_none(generator: ModuleType) -> None:
    cut = datetime(2024, 8, 17, 9, 30, tzinfo=UTC)
    parts = table(generator, rows=3_000, until=cut).num_rows + table(generator, rows=3_000, since=cut).num_rows
    assert parts == 3_000


def test_some_values_are_missing_and_some_rows_are_refunds(generator: ModuleType) -> None:
    rows = table(generator, rows=20_000)
    for column in ("merchant", "amount", "vat", "team", "cost_centre"):
        assert 0 < rows[column].null_count < 2_000, column
    assert 0.005 < share(pc.less(rows["amount"], 0)) < 0.05


def test_no_descriptor_is_longer_than_a_statement_allows(generator: ModuleType) -> None:
    assert pc.max(pc.utf8_length(table(generator, rows=5_000)["merchant"])).as_py() <= 22


def test_december_and_weekends_differ_from_other_days(generator: ModuleType) -> None:
    rows = table(generator, rows=40_000)
    weekend = pc.greater_equal(pc.day_of_week(rows["booked_at"]), 5)
    assert share(weekend) < 0.16
    meals = pc.equal(rows["category"], "meals")
    december = pc.equal(pc.month(rows["booked_at"]), 12)
    assert share(meals.filter(december)) > share(meals.filter(pc.invert(december)))


def test_a_merchant_table_is_right_often_enough_to_be_a_baseline_and_leaves_room(generator: ModuleType) -> None:
    rows = table(generator, rows=60_000).select(["merchant", "category"]).to_pandas()
    train, later = rows.iloc[:51_000], rows.iloc[51_000:]
    usual = train.groupby("merchant")["category"].agg(lambda seen: seen.mode().iloc[0])
    guess = later["merchant"].map(usual).fillna(train["category"].mode().iloc[0])
    assert 0.64 < float((guess == later["category"]).mean()) < 0.76


def test_drift_brings_merchants_nobody_has_seen(generator: ModuleType) -> None:
    quiet, moved = table(generator, rows=20_000), table(generator, rows=20_000, drift={"new_merchants": 0.4})
    assert unseen_later(moved) > unseen_later(quiet) + 0.2


def unseen_later(rows: pa.Table) -> float:
    at = int(rows.num_rows * 0.76)
    return 1 - share(pc.is_in(rows["merchant"][at:], pc.unique(rows["merchant"][:at])))


def test_drift_brings_a_currency_and_splits_a_category_from_its_day_on(generator: ModuleType) -> None:
    rows = table(generator, rows=20_000, drift="currency=SEK,split=software,since=2025-06-01")
    early = pc.less(rows["booked_at"], datetime(2025, 6, 1, tzinfo=UTC))
    news = pc.or_(pc.equal(rows["currency"], "SEK"), pc.equal(rows["category"], "software-recurring"))
    assert share(news.filter(early)) == 0
    late = rows.filter(pc.invert(early))
    assert share(pc.equal(late["currency"], "SEK")) == pytest.approx(1 / 12, abs=0.02)
    assert {"software", "software-recurring"} <= set(pc.unique(late["category"]).to_pylist())


@pytest.mark.parametrize(("drift", "named"), [("speed=3", "speed"), ("split=nothing", "nothing"), ({"new_merchants": 2}, "new_merchants")])
def test_drift_that_means_nothing_is_refused_by_name(generator: ModuleType, drift: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        list(generator.rows(rows=10, drift=drift))


def test_the_command_writes_a_parquet_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    done = subprocess.run(
        [sys.executable, PROJECT / "generator.py", "--rows", "1500", "--out", file], capture_output=True, text=True, check=True
    )
    assert "1,500 rows" in done.stdout
    assert pq.read_metadata(file).num_rows == 1_500
