"""What a person writes in `feature_views.yaml`: which tables of events there are, and what each feature counts in them.

The file is parsed here, once. Field docstrings are the reference page (`make generate`), so they are written for its reader. Every table
says two times of an event: when it *happened*, and when it *arrived*, that is, from when on somebody who asked the warehouse was
answered with it. A feature as of a moment reads events of which both lie before the moment. An event that happened on Monday and was loaded on
Thursday is in no row of Tuesday, neither on that Tuesday nor when a training looks back at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mlpipelines.project import Section
from mlpipelines.project_file import parsed, read_yaml

Value = str | int | float
Where = dict[str, Value | list[Value]]
NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
MOMENT, ROW = "as_of", "row_id"
"""Columns that every row has beside its features: the moment, and `<entity>@<moment>`, which no other row has."""


class EventTable(Section):
    """A table, or view, of the warehouse to which rows are only ever added. Times are timestamps; those without a zone are UTC."""

    name: str | None = None
    """Its name in the warehouse, `schema.table` or `table`, where it differs from the one here."""
    entity: str | None = None
    """The column that says about whom it is, where it is not called as the entity."""
    happened: str
    """The column with the time of the event."""
    arrived: str
    """The column with the time from which on the row could be read. A warehouse that does not keep it cannot say what was known when; naming the
    column of `happened` here says that rows are there at once, and is a decision."""


class Part(Section):
    """Some of a table's events."""

    table: str
    """One of `tables`."""
    where: Where = Field(default={})
    """Column: a value, or a list of them. Only events that have one of them in each of these columns count."""


class Seen(Part):
    """Whoever has an event in it within so many days before the moment."""

    days: int = Field(gt=0)


class Rows(Section):
    """Who has a row at a moment."""

    seen: list[Seen] = Field(min_length=1)
    """Those with an event in at least one of these."""
    unless: list[Part] = Field(default=[])
    """But not those with an event in one of these, at any time before the moment: who was judged already need not be looked at."""


class LabelView(Part):
    """What is learned: whether an event arrives within so many days after the moment."""

    column: str = Field(pattern=NAME)
    """The label's name; 1 if such an event arrives in time, 0 if not."""
    within_days: int = Field(gt=0)
    """A moment has rows to learn from once so many days of labels are known after it: before that a 0 may still become a 1."""


Aggregate = Literal["count", "sum", "mean", "min", "max", "distinct", "days_since_last", "days_since_first", "latest"]


class Feature(Part):
    """One number, or word, about an entity as of a moment."""

    aggregate: Aggregate
    """`count` of events, `distinct` values, `sum`, `mean`, `min` and `max` of a number, days since the first or last event, the `latest` value.
    Of no event `count`, `distinct` and `sum` are 0, and the others are missing."""
    column: str | None = None
    """Of the table; what is counted or added up. `count` and the days since take none."""
    days: int | None = Field(default=None, gt=0)
    """Only events of the last so many days before the moment; of all time where not set, which reads the whole table."""

    @model_validator(mode="after")
    def _complete(self) -> Feature:
        without = ("count", "days_since_last", "days_since_first")
        if (self.column is None) != (self.aggregate in without):
            raise ValueError(f"{self.aggregate} takes {'no column' if self.aggregate in without else 'a column'}")
        return self


class FeatureViews(Section):
    """The contract of one project."""

    entity: str = Field(pattern=NAME)
    """Whom rows are about: the column's name, in rows and in tables."""
    at: time = time(0)
    """The time of day, UTC, as of which each day's rows are taken. Score after it."""
    first: date
    """The first day with rows. Before it the warehouse does not reach back far enough for the longest window."""
    rows: Rows
    label: LabelView | None = None
    tables: dict[str, EventTable]
    features: dict[str, Feature] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> FeatureViews:
        for place, part in self.parts().items():
            if part.table not in self.tables:
                raise ValueError(f"{place}.table names {part.table!r}; tables has {', '.join(self.tables)}")
        taken = [self.entity, MOMENT, ROW, *([self.label.column] if self.label else [])]
        for name in self.features:
            if name in taken:
                raise ValueError(f"features.{name}: rows have a column of that name already ({', '.join(taken)})")
        if self.at.tzinfo is not None:
            raise ValueError("at is a time of day in UTC, without a zone")
        return self

    def parts(self) -> dict[str, Part]:
        """Every place of the file that names a table, by its path."""
        found: dict[str, Part] = {f"rows.seen.{n}": part for n, part in enumerate(self.rows.seen)}
        found |= {f"rows.unless.{n}": part for n, part in enumerate(self.rows.unless)}
        found |= {f"features.{name}": part for name, part in self.features.items()}
        return found | ({"label": self.label} if self.label else {})

    def columns(self) -> list[str]:
        """The columns of a row; the label last, where there is one."""
        return [self.entity, MOMENT, ROW, *self.features, *([self.label.column] if self.label else [])]

    def named(self, wanted: Mapping[str, object] | list[str]) -> FeatureViews:
        """The contract with only the features of these names."""
        return self.model_copy(update={"features": {name: each for name, each in self.features.items() if name in wanted}})

    def moments(self, since: datetime | None, until: datetime) -> Iterator[datetime]:
        """The days' moments in [since, until), aware, oldest first."""
        start = datetime.combine(self.first, self.at, UTC)
        if since is not None and since > start:
            start += timedelta(days=-((start - since) // timedelta(days=1)))
        while start < until:
            yield start
            start += timedelta(days=1)


def load_views(file: Path) -> FeatureViews:
    """Read the contract.

    Raises:
        ConfigError: it is missing, is no YAML, or a field is wrong; the text names file and field.
    """
    values = read_yaml(file, absent="Write it (docs/features.md), or name another one as source.views in project.yaml.")
    return parsed(FeatureViews, values, origin=str(file), called="feature contract", page="docs/reference/feature-views.md")
