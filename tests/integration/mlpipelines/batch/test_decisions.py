"""A project's `decisions.py`: what many scores decide together, once for each run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch_world import payments, write
from mlpipelines.batch.request import BatchOutcome
from mlpipelines.errors import ConfigError

pytestmark = pytest.mark.slow
Score = Callable[..., BatchOutcome]
RICHEST = """\
import pyarrow as pa

COLUMNS = ("account", "amount")


def decide(rows):
    best = rows.group_by("account").aggregate([("output/score", "max")])
    return best.rename_columns(["account", "score"]).sort_by("account")
"""


def test_a_project_decides_on_all_rows_of_a_run_with_the_columns_that_it_names(world: Path, score: Score) -> None:
    (world / "payments" / "decisions.py").write_text(RICHEST)
    write(world / "in" / "a.parquet", payments(100))
    write(world / "in" / "b.parquet", payments(100, seed=1, start=100))
    assert score().decisions == 20
    every = [row for name in "ab" for row in pq.read_table(world / "out" / f"{name}.parquet", partitioning=None).to_pylist()]
    found = pq.read_table(world / "out" / "decisions.parquet", partitioning=None).to_pylist()
    assert found == [
        {"account": account, "score": max(row["output/score"] for row in every if row["account"] == account)}
        for account in sorted({row["account"] for row in every})
    ]
    assert score().decisions is None, "nothing new was scored"
    write(world / "in" / "c.parquet", payments(10, seed=2, start=200))
    assert score().decisions == 10, "the new file's rows only"
    assert len(list((world / "out" / "_decisions").glob("*.parquet"))) == 2


def test_what_is_decided_once_is_not_decided_again_by_whoever_goes_on_with_the_run(
    world: Path, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "payments" / "decisions.py").write_text(RICHEST)
    write(world / "in" / "a.parquet", payments(50))
    with monkeypatch.context() as killed:
        killed.setattr("mlpipelines.batch.run._delivered", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            score()
    first = (world / "out" / "decisions.parquet").read_bytes()
    (world / "payments" / "decisions.py").write_text(RICHEST.replace('"max"', '"min"'))
    outcome = score()
    assert outcome.resumed
    assert (world / "out" / "decisions.parquet").read_bytes() == first


def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("COLUMNS = ()\n", "a function decide"),
        ("COLUMNS = 'account'\n\ndef decide(rows):\n    return rows\n", "COLUMNS, a tuple"),
        ("COLUMNS = ('output/score',)\n\ndef decide(rows):\n    return rows\n", "output/score"),
        ("COLUMNS = ()\n\ndef decide(rows):\n    return 3\n", "must return a pyarrow.Table, not int"),
        ("import nothing_of_that_name\n", "fails on import"),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_name(world: Path, score: Score, text: str, said: str) -> None:
    (world / "payments" / "decisions.py").write_text(text)
    write(world / "in" / "a.parquet", payments(10))
    with pytest.raises(ConfigError, match=said):
        score()


def test_a_file_that_lacks_a_column_that_it_reads_is_named_with_the_column(world: Path, score: Score) -> None:
    (world / "payments" / "decisions.py").write_text(RICHEST.replace('"amount"', '"nobody"'))
    write(world / "in" / "a.parquet", payments(10))
    outcome = score()
    assert "'nobody'" in outcome.failed["a.parquet"]
    assert outcome.decisions is None


def test_an_input_that_is_called_like_the_decisions_is_refused(world: Path, score: Score) -> None:
    (world / "payments" / "decisions.py").write_text(RICHEST)
    write(world / "in" / "decisions.parquet", payments(10))
    with pytest.raises(ConfigError, match=r"decisions\.parquet.*decisions\.py"):
        score()
