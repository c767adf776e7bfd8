"""A validation set is refused for what it lacks, and told which column, which value, and how much is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingested_payments import DAY, project
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion.validation_set import require_validation_set

ROWS = 1000


def held(every: int = 8, columns: dict[str, list[str]] | None = None, **wanted: Any) -> None:
    """Rows a day apart; every so many watch, the others are trained on. Category and team follow from the row's number."""
    number = np.arange(ROWS)
    table = pa.table(
        {
            "booked": pa.array(number * DAY),
            "merchant": [f"shop {n % 300}" for n in number],
            "team": [("red", "blue", "green")[n % 3] for n in number],
            "customer": ["one"] * ROWS,
            "category": [("food", "travel", "books", "fuel", "rail")[n % 5] for n in number],
            **(columns or {}),
        }
    )
    watched = number % every == 0
    require_validation_set(table, ~watched, watched, project(split={"validation_holds": wanted}))


def reasons(**wanted: Any) -> list[dict[str, Any]]:
    with pytest.raises(DataRejected, match=r"split\.validation_holds") as refused:
        held(**wanted)
    return list(refused.value.report)


def test_a_project_that_asks_for_nothing_takes_any_set() -> None:
    held(every=999)


def test_a_set_that_holds_everything_passes() -> None:
    held(pairs=1.0, distinct={"merchant": 70}, spread={"team": 0.3}, like_newest={"team": 0.1}, newest_days=200)


def test_every_label_that_is_learned_needs_two_rows_to_be_known_alike() -> None:
    (reason,) = reasons(every=201, pairs=0.9)  # five rows, one of each category
    assert reason["rule"] == "pairs"
    assert "0 of 5 labels" in reason["what"]


def test_one_label_alone_gives_no_pair_that_differs() -> None:
    only = ["food" if n % 8 == 0 else ("food", "travel")[n % 2] for n in range(ROWS)]
    assert reasons(columns={"category": only}, pairs=0.5)[0]["what"].startswith("1 of 2 labels")


def test_too_few_different_values_are_no_variety() -> None:
    (reason,) = reasons(distinct={"merchant": 76})
    assert "75 different values of merchant" in reason["what"]


def test_a_value_that_training_has_and_validation_lacks_is_named() -> None:
    teams = ["red" if n % 8 == 0 else ("red", "blue")[n % 2] for n in range(ROWS)]
    (reason,) = reasons(columns={"team": teams}, spread={"team": 0.05})
    assert reason["examples"] == "blue"
    assert "has 0 of 125 validation rows, at least 6 are needed" in reason["what"]


def test_a_rare_value_needs_no_more_than_half_of_its_share() -> None:
    teams = ["blue" if n in (1, 2, 3) else "red" for n in range(ROWS)]  # three rows, and none of them watches
    held(columns={"team": teams}, spread={"team": 0.05})


def test_a_set_that_is_not_like_the_newest_rows_is_refused() -> None:
    customers = ["old" if n < 950 else "new" for n in range(ROWS)]
    (reason,) = reasons(columns={"customer": customers}, like_newest={"customer": 0.2}, newest_days=30)
    assert reason["rule"] == "like_newest"
    assert "last 30 days" in reason["what"]


def test_every_broken_rule_is_told() -> None:
    assert {reason["rule"] for reason in reasons(every=150, pairs=0.9, distinct={"merchant": 50}, spread={"team": 0.3})} == {
        "pairs",
        "distinct",
        "spread",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"validation_holds": {"spread": {"vertical": 0.1}}}}, "vertical"),
        ({"time": None, "split": {"validation_holds": {"like_newest": {"team": 0.1}}}}, "needs 'time'"),
        ({"label": {"column": "amount_due", "kind": "number"}, "split": {"validation_holds": {"pairs": 0.5}}}, "kind 'class'"),
    ],
)
def test_rules_about_what_is_not_there_are_refused_in_the_file(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        project(**changes)


def test_the_newest_rows_are_production_s_also_where_they_are_sealed() -> None:
    number = np.arange(ROWS)
    rows = pa.table({"booked": pa.array(number * DAY), "team": [("red", "blue")[n % 2] if n < 900 else "green" for n in number]})
    train, validation = (number < 900) & (number % 8 != 0), (number < 900) & (number % 8 == 0)  # the last hundred are sealed
    asks = project(split={"validation_holds": {"like_newest": {"team": 0.5}}})
    with pytest.raises(DataRejected, match=r"1\.00 from those of the last 30 days"):
        require_validation_set(rows, train, validation, asks)
