"""The contract and one moment, as one SELECT: the only place where a feature is computed. Pure: nothing is connected.

The moment and the start of each window are bound parameters, worked out here, so the statement has no arithmetic of times, in which databases differ,
and says the same to PostgreSQL, SQLite, or whatever else SQLAlchemy speaks. Each table is read once for all its features; a
condition inside each aggregate says which of the table's events are its own.

A batch has one moment for all its rows, so this is a point-in-time join with the moment fixed. A training over n days is n of these statements,
each over the longest window and not over all of history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mlpipelines.features.contract import EventTable, Feature, FeatureViews, Part
from mlserving.database import Moment

Select = sa.Select[*tuple[Any, ...]]
Condition = sa.ColumnElement[bool]
DAY_SECONDS = 86_400.0


def rows_at(views: FeatureViews, moment: datetime, *, labelled: bool = False) -> Select:
    """Everybody's row as of `moment`, under the entity's name and the features'.

    Days since an event come as the event's time: `days_since` makes days of it.

    Args:
        views: the contract.
        moment: aware; what happened or arrived at it, or later, is not read.
        labelled: with the label, which alone looks at what arrived from the moment on.
    """
    who = _population(views, moment)
    columns: dict[str, sa.ColumnElement[Any]] = {views.entity: who.c.entity}
    joined: sa.FromClause = who
    for found in _aggregates(views, moment):
        joined = joined.outerjoin(found, found.c.entity == who.c.entity)
        columns |= {name: _none_of(views.features[name], found.c[name]) for name in found.c.keys() if name != "entity"}  # noqa: SIM118 - not a dict
    if labelled and views.label is not None:
        told = _told(views, moment)
        joined = joined.outerjoin(told, told.c.entity == who.c.entity)
        columns[views.label.column] = sa.case((told.c.entity.is_not(None), 1), else_=0)
    names = [views.entity, *views.features, *([views.label.column] if labelled and views.label else [])]
    return sa.select(*(columns[name].label(name) for name in names)).select_from(joined)


def known_until(views: FeatureViews) -> Select:
    """When the newest label arrived: of what came later nothing is known yet."""
    assert views.label is not None
    return sa.select(sa.func.max(_Events(views, views.label.table).arrived).label("known"))


def days_since(moment: datetime, event: datetime | None) -> float | None:
    """Days from `event` to `moment`."""
    return None if event is None else (moment - event).total_seconds() / DAY_SECONDS


def named(table: str, spec: EventTable) -> tuple[str | None, str]:
    """Schema and name of a table of the contract, as the warehouse has it."""
    schema, _, name = (spec.name or table).rpartition(".")
    return schema or None, name


class _Events:
    """A table of the contract. Its columns are those that were asked for."""

    def __init__(self, views: FeatureViews, table: str) -> None:
        spec = views.tables[table]
        schema, name = named(table, spec)
        self.table = sa.table(name, schema=schema)
        self.entity = self.column(spec.entity or views.entity)
        self.happened = self.column(spec.happened, Moment())
        self.arrived = self.column(spec.arrived, Moment())

    def column(self, name: str, kind: sa.types.TypeEngine[Any] | None = None) -> sa.ColumnElement[Any]:
        """A column of the table."""
        found: sa.ColumnElement[Any] | None = self.table.c.get(name)
        if found is None:
            self.table.append_column(sa.column(name, kind))
            found = self.table.c[name]
        return found

    def before(self, moment: datetime) -> list[Condition]:
        """Happened and arrived before the moment, about somebody."""
        return [self.happened < _at(moment), self.arrived < _at(moment), self.entity.is_not(None)]

    def since(self, moment: datetime, days: int | None) -> list[Condition]:
        """Not longer ago than so many days; of all time where None."""
        return [] if days is None else [self.happened >= _at(moment - timedelta(days=days))]

    def of(self, part: Part) -> list[Condition]:
        """`where` of the part."""
        return [self.column(name).in_(value if isinstance(value, list) else [value]) for name, value in part.where.items()]


def _at(moment: datetime) -> sa.BindParameter[datetime]:
    return sa.bindparam(None, moment, type_=Moment())


def _population(views: FeatureViews, moment: datetime) -> sa.Subquery:
    seen = []
    for part in views.rows.seen:
        events = _Events(views, part.table)
        within = [*events.before(moment), *events.since(moment, part.days), *events.of(part)]
        seen.append(sa.select(events.entity.label("entity")).where(*within).distinct())  # one part alone is no UNION
    anybody = sa.union(*seen).subquery("seen")
    absent = []
    for ended in views.rows.unless:
        events = _Events(views, ended.table)
        there = sa.select(sa.literal(1)).where(*events.before(moment), *events.of(ended), events.entity == anybody.c.entity)
        absent.append(~there.exists())
    return sa.select(anybody.c.entity).where(*absent).subquery("who")


def _aggregates(views: FeatureViews, moment: datetime) -> Iterator[sa.Subquery]:
    """A subquery for each table with all its aggregates, and one for each `latest`."""
    by_table: dict[str, dict[str, Feature]] = {}
    for name, feature in views.features.items():
        if feature.aggregate == "latest":
            yield _latest(views, moment, name, feature)
        else:
            by_table.setdefault(feature.table, {})[name] = feature
    for table, features in by_table.items():
        yield _grouped(_Events(views, table), moment, table, features)


def _grouped(events: _Events, moment: datetime, table: str, features: Mapping[str, Feature]) -> sa.Subquery:
    columns = []
    for name, feature in features.items():
        inside = sa.and_(sa.true(), *events.since(moment, feature.days), *events.of(feature))
        columns.append(_aggregated(events, feature, inside).label(name))
    longest = _longest([feature.days for feature in features.values()])
    return (
        sa.select(events.entity.label("entity"), *columns)
        .where(*events.before(moment), *events.since(moment, longest))
        .group_by(events.entity)
        .subquery(f"of_{table}")
    )


def _longest(days: list[int | None]) -> int | None:
    """None, which is all of time, is longer than any number."""
    return None if None in days else max(each for each in days if each is not None)


def _aggregated(events: _Events, feature: Feature, inside: Condition) -> sa.ColumnElement[Any]:
    column = events.happened if feature.column is None else events.column(feature.column)
    mine = sa.case((inside, column))
    match feature.aggregate:
        case "count":
            return sa.func.sum(sa.case((inside, 1), else_=0))
        case "distinct":
            return sa.func.count(sa.distinct(mine))
        case "sum":
            return sa.func.sum(mine)
        case "mean":
            return sa.func.avg(mine)
        case "min" | "days_since_first":
            return sa.func.min(mine)
        case _:
            return sa.func.max(mine)


def _latest(views: FeatureViews, moment: datetime, name: str, feature: Feature) -> sa.Subquery:
    """The value of the event that happened last; of those that happened together the one that arrived last, then the largest value."""
    events = _Events(views, feature.table)
    value = events.column(feature.column or "")
    order = [events.happened.desc(), events.arrived.desc(), value.desc().nulls_last()]
    place = sa.func.row_number().over(partition_by=events.entity, order_by=order)
    ranked = (
        sa.select(events.entity.label("entity"), value.label(name), place.label("place"))
        .where(*events.before(moment), *events.since(moment, feature.days), *events.of(feature))
        .subquery(f"ranked_{name}")
    )
    return sa.select(ranked.c.entity, ranked.c[name]).where(ranked.c.place == 1).subquery(f"of_{name}")


def _none_of(feature: Feature, found: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Who has no event at all has no row in the subquery: nothing was counted, which is 0."""
    return sa.func.coalesce(found, 0) if feature.aggregate in ("count", "distinct", "sum") else found


def _told(views: FeatureViews, moment: datetime) -> sa.Subquery:
    """Those about whom the label's event arrives within its days from the moment on."""
    assert views.label is not None
    events = _Events(views, views.label.table)
    late = _at(moment + timedelta(days=views.label.within_days))
    within = [events.arrived >= _at(moment), events.arrived < late, *events.of(views.label)]
    return sa.select(events.entity.label("entity")).where(*within).distinct().subquery("told")
