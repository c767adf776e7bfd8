"""Cases for reviewers, from files to cases, over several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_world import changed, payments, write
from mlpipelines.batch import delivery
from mlpipelines.batch.request import BatchOutcome
from mlpipelines.errors import ConfigError

pytestmark = pytest.mark.slow
Score = Callable[..., BatchOutcome]


def cases(world: Path) -> pa.Table:
    return pq.read_table(world / "out" / "cases.parquet", partitioning=None)


def test_each_day_has_its_highest_scores_as_the_projects_capacity_says(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(400))
    write(world / "in" / "b.parquet", payments(400, seed=1, start=400))
    assert score(rank_by="score").cases == 15
    found = cases(world)
    assert Counter(found["period"].to_pylist()) == {"2025-03-01": 5, "2025-03-02": 5, "2025-03-03": 5}
    assert found["rank"].to_pylist() == [1, 2, 3, 4, 5] * 3
    every = pa.concat_tables(pq.read_table(world / "out" / f"{name}.parquet", partitioning=None) for name in "ab").to_pylist()
    for day in ("2025-03-01", "2025-03-02", "2025-03-03"):
        of_the_day = [row for row in every if row["at"].strftime("%Y-%m-%d") == day]
        best = sorted(of_the_day, key=lambda row: (-row["output/score"], row["prediction_id"]))[:5]
        mine = [row["prediction_id"] for row in found.to_pylist() if row["period"] == day]
        assert mine == [row["prediction_id"] for row in best]
    assert found["score"].to_pylist() == [float(value) for value in found["output/score"].to_pylist()]
    assert set(found["input_file"].to_pylist()) <= {"a.parquet", "b.parquet"}


def test_whom_one_run_delivered_no_later_run_delivers_again(world: Path, score: Score) -> None:
    ranking = {"rank_by": "score", "top": 8, "per": "run", "once_per": "account"}
    write(world / "in" / "a.parquet", payments(200))
    score(**ranking)
    first = cases(world)["case_key"].to_pylist()
    write(world / "in" / "b.parquet", payments(200, seed=1, start=200))
    score(**ranking)
    second = cases(world)["case_key"].to_pylist()
    write(world / "in" / "c.parquet", payments(200, seed=2, start=400))
    assert score(**ranking).cases == 4, "there are twenty accounts"
    third = cases(world)["case_key"].to_pylist()
    assert sorted([*first, *second, *third]) == sorted({f"account {n}" for n in range(20)})
    assert len(list((world / "out" / "_cases").glob("*.parquet"))) == 3


def test_a_late_file_gets_only_the_room_that_its_day_has_left(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(3))  # the first three hours of the first day
    assert score(rank_by="score").cases == 3
    write(world / "in" / "b.parquet", payments(24))
    assert score(rank_by="score").cases == 2
    assert cases(world)["rank"].to_pylist() == [4, 5]


def test_a_call_with_nothing_new_leaves_the_last_cases_where_they_are(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(50))
    score(rank_by="score")
    before = (world / "out" / "cases.parquet").read_bytes()
    assert score(rank_by="score").cases is None
    assert (world / "out" / "cases.parquet").read_bytes() == before


def test_many_rows_are_ranked_in_little_memory_to_the_same_end(world: Path, score: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world / "in" / "a.parquet", payments(3000))
    score(rank_by="score", once_per="account")
    whole = cases(world).drop_columns(["prediction_time"])
    monkeypatch.setattr(delivery, "_AT_ONCE", 100)
    monkeypatch.setattr(delivery, "_COMPACT_FROM", 150)
    score(rank_by="score", once_per="account", output=world / "again")
    again = pq.read_table(world / "again" / "cases.parquet", partitioning=None).drop_columns(["prediction_time"])
    assert again.equals(whole)


def test_a_row_without_a_time_belongs_to_the_day_of_the_run(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", changed(payments(4), {2: {"at": None}}))
    assert score(rank_by="score").cases == 4
    assert len(set(cases(world)["period"].to_pylist())) == 2


def test_columns_of_different_types_are_told_of_and_names_of_ours_are_refused(world: Path, score: Score) -> None:
    write(world / "in" / "a.parquet", payments(4))
    write(world / "in" / "b.parquet", payments(4, start=4).set_column(6, "account", pa.array([[1]] * 4)))
    with pytest.raises(ConfigError, match="types that do not go together"):
        score(rank_by="score", keep=("account",))
    with pytest.raises(ConfigError, match="--keep rank"):
        score(rank_by="score", keep=("rank",))
