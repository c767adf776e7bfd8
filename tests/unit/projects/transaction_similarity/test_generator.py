"""Generated transactions are the same every time, and hold what the project's description says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "transaction-similarity"

generator = module_of(PROJECT, "generator")


def table(generator: ModuleType, **options: object) -> pa.Table:
    return pa.Table.from_batches(generator.rows(**{"rows": 4000, **options}), schema=generator.SCHEMA)


def test_the_same_seed_gives_the_same_rows_and_a_newcomer_changes_none_of_them(generator: ModuleType) -> None:
    plain, again, more = table(generator), table(generator), table(generator, newcomer_rows=50)
    assert plain.equals(again)
    assert more.slice(0, 4000).equals(plain)
    assert not plain.equals(table(generator, seed=8))


def test_a_window_holds_the_rows_of_its_days(generator: ModuleType) -> None:
    since, until = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 9, 1, tzinfo=UTC)
    booked = table(generator)["booked_at"]
    inside = pc.and_(pc.greater_equal(booked, pa.scalar(since)), pc.less(booked, pa.scalar(until)))
    assert table(generator, since=since, until=until).equals(table(generator).filter(inside).combine_chunks())


def test_the_newest_rows_are_full_of_merchants_that_were_not_there_before(generator: ModuleType) -> None:
    rows = table(generator, rows=20_000).sort_by("booked_at")
    brands = pc.replace_substring_regex(rows["merchant"], " [0-9]*$", "")
    old, new = brands.slice(0, 17_000), brands.slice(17_000)
    unseen = pc.invert(pc.is_in(new, value_set=pc.unique(old)))
    assert 0.05 < pc.mean(unseen.cast(pa.float64())).as_py() < 0.6


def test_every_category_has_its_vertical_and_comes_through_every_operator(generator: ModuleType) -> None:
    rows = table(generator, rows=20_000)
    assert len(pc.unique(rows["category"])) == len(generator.CATEGORIES)
    pairs = rows.group_by(["vertical", "operator"]).aggregate([([], "count_all")])
    assert pairs.num_rows == len({kind.vertical for kind in generator.CATEGORIES}) * len(generator.OPERATORS)


def test_the_newcomer_brings_a_category_that_nobody_had(generator: ModuleType) -> None:
    newcomer = table(generator, newcomer_rows=50).filter(pc.field("customer") == "newhaven")
    assert newcomer.num_rows == 50
    assert pc.unique(newcomer["category"]).to_pylist() == [generator.NEWCOMER.name]
    assert generator.NEWCOMER.name not in pc.unique(table(generator)["category"]).to_pylist()


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"days": 0}, {"newcomer_rows": -1}])
def test_numbers_out_of_range_are_refused(generator: ModuleType, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        list(generator.rows(**wrong))
