"""Small warehouses of events, drawn by Hypothesis, and the obvious way to compute what a feature contract says about them.

`expected_rows` walks over every event for every feature in plain Python. It is slow and has no window functions, joins or CASE in it, which is
why it can be believed; what the databases answer is held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

from mlpipelines.features.contract import Feature, FeatureViews, Part
from mlpipelines.ingestion.sources.contract import Window
from mlpipelines.ingestion.sources.feature_views import FeatureViewsSource
from mlserving.database import Moment

START = datetime(2025, 3, 1, tzinfo=UTC)
DAYS = 7
_ANY: dict[str, dict[str, Any]] = {
    "count": {},
    "sum": {"column": "amount"},
    "mean": {"column": "amount"},
    "min": {"column": "amount"},
    "max": {"column": "amount"},
    "distinct": {"column": "kind"},
    "days_since_last": {},
    "days_since_first": {},
    "latest": {"column": "kind"},
}
VIEWS = FeatureViews.model_validate(
    {
        "entity": "user_id",
        "at": "05:00",
        "first": START.date(),
        "rows": {"seen": [{"table": "events", "days": 3}], "unless": [{"table": "verdicts", "where": {"kind": "a"}}]},
        "label": {"column": "scam", "table": "verdicts", "where": {"kind": ["a", "b"]}, "within_days": 4},
        "tables": {name: {"happened": "happened_at", "arrived": "loaded_at"} for name in ("events", "verdicts")},
        "features": {
            f"{aggregate}_{days or 'ever'}_{where or 'all'}": {
                "table": "events",
                "aggregate": aggregate,
                **column,
                **({"days": days} if days else {}),
                **({"where": {"kind": where}} if where else {}),
            }
            for aggregate, column in _ANY.items()
            for days, where in ((2, None), (5, "a"), (None, "b"))
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of a table of events."""

    table: str
    user_id: str | None
    kind: str | None
    amount: float | None
    happened_at: datetime
    loaded_at: datetime


def _moments() -> st.SearchStrategy[datetime]:
    """Whole hours for the most part, so that events fall on moments and on the edges of windows."""
    hours = st.integers(0, DAYS * 24).map(lambda hour: START + timedelta(hours=hour))
    fives = st.integers(0, DAYS).map(lambda day: START + timedelta(days=day, hours=5))
    return st.one_of(hours, fives, fives.map(lambda moment: moment - timedelta(microseconds=1)))


def worlds() -> st.SearchStrategy[list[Event]]:
    """Some events of three users and of nobody; amounts are quarters, whose sums are exact in any order."""
    event = st.builds(
        Event,
        table=st.sampled_from(["events", "events", "events", "verdicts"]),
        user_id=st.sampled_from(["u1", "u2", "u3", None]),
        kind=st.sampled_from(["a", "b", "c", None]),
        amount=st.one_of(st.none(), st.integers(-8, 40).map(lambda quarters: quarters / 4)),
        happened_at=_moments(),
        loaded_at=_moments(),
    )
    return st.lists(event, max_size=25)


def write(engine: sa.Engine, events: Sequence[Event]) -> None:
    """Both tables with these events, and nothing else."""
    metadata = sa.MetaData()
    for name in ("events", "verdicts"):
        columns = [
            sa.Column("user_id", sa.Text),
            sa.Column("kind", sa.Text),
            sa.Column("amount", sa.Float),
            sa.Column("happened_at", Moment),
            sa.Column("loaded_at", Moment),
        ]
        sa.Table(name, metadata, *columns)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with engine.begin() as connection:
        for name, table in metadata.tables.items():
            rows = [{column.name: getattr(event, column.name) for column in table.c} for event in events if event.table == name]
            if rows:
                connection.execute(table.insert(), rows)


def answered(
    source: FeatureViewsSource, *, labelled: bool, since: datetime | None = None, until: datetime | None = None
) -> list[dict[str, Any]]:
    """What the source yields for a window, in an order of our own."""
    names = [name for name in source.views.columns() if labelled or source.views.label is None or name != source.views.label.column]
    found = source.chunks({name: name for name in names}, "as_of", Window.between(since, until))
    return sorted((row for chunk in found for row in chunk.rows.to_pylist()), key=lambda row: (row["as_of"], row["user_id"]))


def expected_rows(views: FeatureViews, events: Sequence[Event], moment: datetime) -> list[dict[str, Any]]:
    """Everybody's row as of `moment`, label and all, the obvious way."""
    known = [e for e in events if e.happened_at < moment and e.loaded_at < moment and e.user_id is not None]
    seen = {e.user_id for part in views.rows.seen for e in _of(part, known) if e.happened_at >= moment - timedelta(days=part.days)}
    gone = {e.user_id for part in views.rows.unless for e in _of(part, known)}
    return [_row(views, events, known, str(user), moment) for user in sorted(str(each) for each in seen - gone)]


def _row(views: FeatureViews, events: Sequence[Event], known: Sequence[Event], user: str, moment: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {"user_id": user, "as_of": moment, "row_id": f"{user}@{moment:%Y-%m-%dT%H:%M}"}
    for name, feature in views.features.items():
        start = moment - timedelta(days=feature.days) if feature.days else datetime.min.replace(tzinfo=UTC)
        row[name] = _value(feature, [e for e in _of(feature, known) if e.user_id == user and e.happened_at >= start], moment)
    if views.label is not None:
        end = moment + timedelta(days=views.label.within_days)
        row[views.label.column] = int(any(e.user_id == user and moment <= e.loaded_at < end for e in _of(views.label, events)))
    return row


def _of(part: Part, events: Sequence[Event]) -> list[Event]:
    def fits(event: Event) -> bool:
        return all(getattr(event, name) in (value if isinstance(value, list) else [value]) for name, value in part.where.items())

    return [event for event in events if event.table == part.table and fits(event)]


def _value(feature: Feature, mine: Sequence[Event], moment: datetime) -> Any:
    numbers = [e.amount for e in mine if e.amount is not None]
    days = [(moment - e.happened_at) / timedelta(days=1) for e in mine]
    newest = max(mine, key=lambda e: (e.happened_at, e.loaded_at, e.kind or ""), default=None)
    return {
        "count": len(mine),
        "distinct": len({e.kind for e in mine} - {None}),
        "sum": float(sum(numbers)),
        "mean": sum(numbers) / len(numbers) if numbers else None,
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
        "days_since_last": min(days, default=None),
        "days_since_first": max(days, default=None),
        "latest": None if newest is None else newest.kind,
    }[feature.aggregate]
