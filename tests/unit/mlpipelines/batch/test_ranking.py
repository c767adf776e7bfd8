"""Who is delivered to reviewers: rank, cut, ties, and nobody twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpipelines.batch.ranking import CANDIDATES, Rule, compact, period_name, period_numbers, rule_of, select
from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project

DAY = 86_400


def a_project(**changes: Any) -> Project:
    values = {
        "name": "scams",
        "team": "trust",
        "task": "detection",
        "source": {"kind": "parquet", "path": "unused"},
        "time": "at",
        "features": {"amount": "float"},
        "label": {"column": "fraud", "kind": "flag"},
    }
    return parse_project({**values, **changes}, origin="project.yaml")


def candidates(*rows: tuple[int, float, str, str | None]) -> pa.Table:
    """(period, score, prediction id, whom)."""
    values = [{"period": p, "score": s, "id": i, "file": 0, "row": at, "once": o} for at, (p, s, i, o) in enumerate(rows)]
    return pa.Table.from_pylist(values, schema=CANDIDATES)


def a_rule(cases: int, *, once_per: str | None = None) -> Rule:
    return Rule(output="score", cases=cases, per="day", once_per=once_per)


def delivered(table: pa.Table) -> list[tuple[int, int, str]]:
    return list(zip(table["period"].to_pylist(), table["rank"].to_pylist(), table["id"].to_pylist(), strict=True))


def test_the_highest_scores_of_each_day_are_delivered_as_many_as_reviewers_can_look_at() -> None:
    found = select(candidates((1, 0.2, "a", None), (1, 0.9, "b", None), (2, 0.1, "c", None), (1, 0.5, "d", None)), a_rule(2), (), Counter())
    assert delivered(found) == [(1, 1, "b"), (1, 2, "d"), (2, 1, "c")]


def test_rows_that_tie_are_ordered_by_their_ids_whatever_the_order_they_come_in() -> None:
    rows = [(1, 0.5, name, None) for name in "dbeac"]
    expected = [(1, 1, "a"), (1, 2, "b"), (1, 3, "c")]
    assert delivered(select(candidates(*rows), a_rule(3), (), Counter())) == expected
    assert delivered(select(candidates(*reversed(rows)), a_rule(3), (), Counter())) == expected


def test_nobody_is_delivered_twice_and_the_next_one_moves_up() -> None:
    rows = [
        (1, 0.9, "a", "ann"),
        (1, 0.8, "b", "ann"),
        (1, 0.7, "c", "bob"),
        (2, 0.9, "d", "bob"),
        (2, 0.5, "e", "eve"),
        (2, 0.4, "f", None),
    ]
    found = select(candidates(*rows), a_rule(2, once_per="user"), {"eve"}, Counter())
    assert delivered(found) == [(1, 1, "a"), (1, 2, "c"), (2, 1, "f")]


def test_what_earlier_runs_delivered_of_a_day_takes_its_room_and_ranks_go_on() -> None:
    rows = [(1, 0.9, "a", None), (1, 0.8, "b", None), (2, 0.9, "c", None)]
    found = select(candidates(*rows), a_rule(3), (), Counter({1: 2, 2: 3}))
    assert delivered(found) == [(1, 3, "a")]


def test_of_no_rows_nobody_is_delivered() -> None:
    assert select(candidates(), a_rule(3), (), Counter()).num_rows == 0


row = st.tuples(
    st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9]), st.text("abcdef", min_size=1, max_size=3), st.sampled_from([None, "x", "y", "z"])
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(row, max_size=30), cases=st.integers(1, 5), once=st.booleans(), known=st.sets(st.sampled_from(["x", "y"])))
def test_rows_that_cannot_be_selected_may_be_left_out_before(
    rows: list[tuple[int, float, str, str | None]], cases: int, once: bool, known: set[str]
) -> None:
    table = candidates(*(rows if once else [(p, s, i, None) for p, s, i, _ in rows]))
    rule = a_rule(cases, once_per="user" if once else None)
    found = select(table, rule, known if once else (), Counter())
    assert select(compact(table, rule), rule, known if once else (), Counter()).equals(found)
    people = [each for each in found["once"].to_pylist() if each is not None]
    assert len(people) == len(set(people))
    assert not known & set(people) or not once
    assert all(count <= cases for count in Counter(found["period"].to_pylist()).values())


def test_days_and_weeks_are_utcs_and_weeks_begin_on_monday() -> None:
    seconds = np.array([-1, 0, DAY - 1, DAY, 1_740_787_200, 1_740_787_200 + 2 * DAY])  # 2025-03-01 was a Saturday
    assert [period_name("day", n) for n in period_numbers("day", seconds).tolist()] == [
        "1969-12-31",
        "1970-01-01",
        "1970-01-01",
        "1970-01-02",
        "2025-03-01",
        "2025-03-03",
    ]
    assert [period_name("week", n) for n in period_numbers("week", seconds[-2:]).tolist()] == ["2025-W09", "2025-W10"]
    assert period_name("run", period_numbers("run", seconds)[0]) == "run"


def test_the_capacity_that_models_are_judged_by_is_the_one_that_cases_are_cut_at() -> None:
    project = a_project(evaluation={"metric": "recall_at_capacity", "capacity": {"cases": 50, "per": "week"}})
    assert rule_of(project, rank_by="score", top=None, per=None, once_per=None) == Rule(output="score", cases=50, per="week")
    assert rule_of(project, rank_by="score", top=7, per="day", once_per="u") == Rule(output="score", cases=7, per="day", once_per="u")
    assert rule_of(a_project(), rank_by="score", top=7, per=None, once_per=None).per == "run"


def test_a_ranking_that_nobody_said_how_to_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.capacity"):
        rule_of(a_project(), rank_by="score", top=None, per=None, once_per=None)
    with pytest.raises(ConfigError, match="--top 0"):
        rule_of(a_project(), rank_by="score", top=0, per=None, once_per=None)
    with pytest.raises(ConfigError, match="--per day needs `time`"):
        rule_of(a_project(time=None), rank_by="score", top=5, per="day", once_per=None)
