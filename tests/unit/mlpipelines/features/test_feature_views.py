"""A feature contract over a warehouse: what is computed, what is never read, and that scoring and training cannot differ."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from event_worlds import DAYS, START, VIEWS, Event, answered, expected_rows, worlds, write
from mlpipelines.errors import ConfigError
from mlpipelines.features.contract import FeatureViews, load_views
from mlpipelines.ingestion.sources import open_source
from mlpipelines.ingestion.sources.contract import Window
from mlpipelines.ingestion.sources.feature_views import FeatureViewsSource
from mlpipelines.own_code import hash_code
from mlpipelines.project import Source
from mlpipelines.project_file import parse_project

END = START + timedelta(days=DAYS + 1)
FIVE = timedelta(hours=5)
LABEL = VIEWS.label
assert LABEL is not None
HORIZON = timedelta(days=LABEL.within_days)


@contextmanager
def warehouse(events: Sequence[Event], views: FeatureViews = VIEWS, now: datetime = END) -> Iterator[FeatureViewsSource]:
    with tempfile.TemporaryDirectory() as folder:
        url = sa.make_url(f"sqlite:///{folder}/warehouse.db")
        write(sa.create_engine(url, poolclass=sa.NullPool), events)
        yield FeatureViewsSource(url=url, views=views, file=Path("feature_views.yaml"), now=lambda: now)


def without_label(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "scam"} for row in rows]


def as_given(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows that compare with `==`, divisions aside."""
    return [
        {name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in sorted(row.items())} for row in rows
    ]


def moments(until: datetime) -> list[datetime]:
    return [START + FIVE + timedelta(days=day) for day in range(DAYS + 1) if START + FIVE + timedelta(days=day) < until]


@settings(max_examples=30)
@given(worlds())
def test_every_feature_of_every_day_is_what_one_would_count_by_hand(events: list[Event]) -> None:
    with warehouse(events) as source:
        assert answered(source, labelled=False) == as_given(
            without_label([row for moment in moments(END) for row in expected_rows(VIEWS, events, moment)])
        )


@settings(max_examples=30)
@given(worlds())
def test_training_rows_are_those_whose_label_is_known_by_now(events: list[Event]) -> None:
    told = [e.loaded_at for e in events if e.table == "verdicts"]
    known = [moment for moment in moments(END) if told and moment + HORIZON <= max(told)]
    with warehouse(events) as source:
        assert answered(source, labelled=True) == as_given([row for moment in known for row in expected_rows(VIEWS, events, moment)])


@settings(max_examples=30)
@given(worlds(), st.integers(0, DAYS))
def test_a_row_that_was_scored_is_the_row_that_a_later_training_sees(events: list[Event], day: int) -> None:
    moment = START + FIVE + timedelta(days=day)
    by_then = [event for event in events if event.loaded_at < moment]
    with warehouse(by_then, now=moment + timedelta(minutes=1)) as source:
        scored = answered(source, labelled=False, since=moment, until=moment + timedelta(days=1))
    with warehouse(events) as source:
        trained = answered(source, labelled=True, since=moment, until=moment + timedelta(seconds=1))
        looked_at_again = answered(source, labelled=False, since=moment, until=moment + timedelta(seconds=1))
    assert scored == looked_at_again
    assert trained == [] or without_label(trained) == scored


@settings(max_examples=30)
@given(worlds(), worlds(), st.integers(0, DAYS))
def test_nothing_that_happens_or_arrives_later_changes_a_row(events: list[Event], others: list[Event], day: int) -> None:
    moment = START + FIVE + timedelta(days=day)
    later = [
        replace(event, loaded_at=max(event.loaded_at, moment)) if n % 2 else replace(event, happened_at=max(event.happened_at, moment))
        for n, event in enumerate(others)
    ]
    window = {"since": moment, "until": moment + timedelta(seconds=1)}
    with warehouse(events) as source, warehouse([*events, *later]) as fuller:
        assert answered(source, labelled=False, **window) == answered(fuller, labelled=False, **window)


def event(day: float, loaded: float | None = None, **values: Any) -> Event:
    happened = START + timedelta(days=day)
    given: dict[str, Any] = {"table": "events", "user_id": "u1", "kind": "a", "amount": 1.0, "happened_at": happened}
    return Event(**{**given, "loaded_at": happened if loaded is None else START + timedelta(days=loaded), **values})


def test_an_event_at_the_very_moment_belongs_to_the_next_day() -> None:
    moment = START + FIVE + timedelta(days=1)
    with warehouse([event(0.5), replace(event(0), happened_at=moment, loaded_at=moment)]) as source:
        counts = {row["as_of"]: row["count_2_all"] for row in answered(source, labelled=False)}
    assert (counts[moment], counts[moment + timedelta(days=1)]) == (1, 2)


def test_an_event_that_arrives_late_is_in_no_row_from_before_it_arrived() -> None:
    with warehouse([event(0.5), event(0.6, loaded=2.5)]) as source:
        counts = [row["count_5_a"] for row in answered(source, labelled=False)]
    assert counts == [1, 1, 2]


def test_days_that_have_not_come_have_no_rows() -> None:
    with warehouse([event(0.5)], now=START + timedelta(days=1)) as source:
        assert answered(source, labelled=False) == []


def test_only_what_is_asked_for_is_computed() -> None:
    broken = VIEWS.model_copy(
        update={"features": {**VIEWS.features, "odd": VIEWS.features["sum_2_all"].model_copy(update={"column": "nowhere"})}}
    )
    with warehouse([event(0.5)], broken) as source:
        window = Window.between(None, END)
        asked = [chunk.rows.schema.names for chunk in source.chunks({"as_of": "as_of", "n": "count_2_all"}, "as_of", window)]
        assert asked[0] == ["as_of", "count_2_all"]
        with pytest.raises(ConfigError, match=r"features\.odd\.column names 'nowhere', which the table 'events' has not"):
            list(source.chunks({"odd": "odd"}, "as_of", window))


def test_the_newest_row_is_the_last_that_can_be_learned_from() -> None:
    with warehouse([event(0.5), event(3.5), event(7.5, table="verdicts", user_id="u2", kind="b")]) as source:
        newest = [row["as_of"] for chunk in source.newest({"as_of": "as_of"}, "as_of", Window()) for row in chunk.rows.to_pylist()]
    assert newest == [START + FIVE + timedelta(days=3)], "seven days are known, four of them are the label's"


def test_a_table_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    views = VIEWS.model_copy(update={"tables": {**VIEWS.tables, "events": VIEWS.tables["events"].model_copy(update={"name": "evnts"})}})
    with (
        warehouse([], views) as source,
        pytest.raises(ConfigError, match=r"tables\.events: the warehouse has no 'evnts'; it has events, verdicts"),
    ):
        list(source.chunks({"as_of": "as_of"}, "as_of", Window()))


def contract(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(yaml.safe_dump(VIEWS.model_dump(mode="json", exclude_defaults=True))), **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": {"n": {"table": "evens", "aggregate": "count"}}}, r"features\.n\.table names 'evens'"),
        ({"features": {"n": {"table": "events", "aggregate": "sum"}}}, r"features\.n: .*sum takes a column"),
        ({"features": {"n": {"table": "events", "aggregate": "count", "column": "kind"}}}, r"count takes no column"),
        ({"features": {"as_of": {"table": "events", "aggregate": "count"}}}, r"features\.as_of: rows have a column of that name"),
        ({"rows": {"seen": []}}, r"rows\.seen"),
        ({"windows": 3}, r"windows: Extra inputs"),
    ],
)
def test_a_wrong_contract_is_told_by_file_and_field(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = tmp_path / "feature_views.yaml"
    file.write_text(yaml.safe_dump(contract(**changes)))
    with pytest.raises(ConfigError, match=said) as refused:
        load_views(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"), [("entity: [", "is not YAML"), ("- entity", "must hold a mapping of fields, not list"), ("", "not NoneType")]
)
def test_a_file_that_is_no_contract_at_all_is_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "feature_views.yaml"
    with pytest.raises(ConfigError, match=r"does not exist\. Write it \(docs/features\.md\)"):
        load_views(file)
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        load_views(file)
    assert str(file) in str(refused.value)


def test_a_source_of_this_kind_is_opened_by_project_yaml(tmp_path: Path) -> None:
    (tmp_path / "feature_views.yaml").write_text(yaml.safe_dump(contract()))
    write(sa.create_engine(f"sqlite:///{tmp_path}/w.db", poolclass=sa.NullPool), [event(0.5), event(6, table="verdicts")])
    source = open_source(Source(kind="feature_views", url="sqlite:///w.db", views="feature_views.yaml"), tmp_path)
    rows = [row for chunk in source.chunks({"scam": "scam", "row": "row_id"}, "as_of", Window()) for row in chunk.rows.to_pylist()]
    assert rows == [{"scam": 0, "row_id": "u1@2025-03-02T05:00"}]
    with pytest.raises(ConfigError, match="views"):
        open_source(Source(kind="feature_views", url="sqlite:///w.db", views="other.yaml"), tmp_path)
    with pytest.raises(ValueError, match="needs 'views'"):
        Source(kind="feature_views", url="sqlite:///w.db")


def test_moments_are_one_a_day_whatever_part_of_them_is_asked_for() -> None:
    every = list(VIEWS.moments(None, END))
    assert every[0] == START + FIVE
    assert {later - earlier for earlier, later in itertools.pairwise(every)} == {timedelta(days=1)}
    for since in (START - timedelta(days=9), every[3], every[3] - timedelta(seconds=1), every[2] + timedelta(seconds=1)):
        assert list(VIEWS.moments(since, END)) == [moment for moment in every if moment >= since.astimezone(UTC)]


def test_a_changed_contract_is_new_code_for_what_reads_rows(tmp_path: Path) -> None:
    values = {"name": "p", "team": "t", "task": "detection", "features": {"count_2_all": "integer"}}
    project = parse_project(
        {**values, "source": {"kind": "feature_views", "url": "sqlite:///w.db", "views": "feature_views.yaml"}}, origin="here"
    )
    file = tmp_path / "feature_views.yaml"
    marks = []
    for days in (2, 3, 2):
        file.write_text(yaml.safe_dump(contract(features={"count_2_all": {"table": "events", "aggregate": "count", "days": days}})))
        marks.append(hash_code(project, tmp_path, "ingest"))
    assert marks[0] == marks[2] != marks[1]
