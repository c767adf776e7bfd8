"""Rows made of a warehouse's events, as the project's feature contract says: one for each entity and day.

Asked for the label too, as a training asks, it yields the days of which the label is known by now; without the label, as `millrace batch` asks, every day
of the window up to now. Each day's rows come from the same statement (`mlpipelines.features.statement`), so a row that was scored and the same row in a
later training are one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from mlpipelines.errors import ConfigError
from mlpipelines.features.contract import MOMENT, ROW, Feature, FeatureViews, load_views
from mlpipelines.features.statement import days_since, known_until, named, rows_at
from mlpipelines.ingestion.sources.contract import Chunk, Window, closest, numbered, require_columns
from mlpipelines.ingestion.sources.sql import arrow_array, connected, database_url
from mlpipelines.project import Source

_INTEGERS = ("count", "distinct")
_TIMES = ("days_since_first", "days_since_last")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureViewsSource:
    """One contract over one warehouse."""

    url: sa.URL
    views: FeatureViews
    file: Path
    now: Callable[[], datetime] = _now

    @classmethod
    def open(cls, source: Source, project_dir: Path) -> FeatureViewsSource:
        """Read the contract; nothing is connected yet.

        Raises:
            ConfigError: the contract or the URL is wrong, or options are given.
        """
        if source.options:
            raise ConfigError(
                "source.options in project.yaml: a source of kind 'feature_views' takes none (what it does is said in its contract). "
                "Remove them and run again."
            )
        file = project_dir / (source.views or "")
        return cls(views=load_views(file), file=file, url=database_url(source, project_dir))

    def describe(self) -> dict[str, Any]:
        """Kind, URL without password and parameters, and which contract."""
        place = self.url.set(query={}).render_as_string(hide_password=True)
        digest = hashlib.sha256(self.views.model_dump_json().encode()).hexdigest()[:16]
        return {"kind": "feature_views", "url": place, "views": self.file.name, "contract": digest}

    @property
    def origin(self) -> str:
        """What an error calls it."""
        return f"{self.url.database or self.url.host or self.url.drivername}: {self.file.name}"

    def chunks(self, columns: Mapping[str, str], time: str | None, window: Window) -> Iterator[Chunk]:  # noqa: ARG002 - rows have one time
        """See `RowSource`. Features that are not asked for are not computed."""
        wanted = list(dict.fromkeys(columns.values()))
        require_columns(columns, self.views.columns(), self.origin)
        labelled = self.views.label is not None and self.views.label.column in wanted
        views = self.views.named(wanted)
        with self._connected(views) as connection:
            days = self._moments(connection, window, labelled=labelled)
            yield from numbered(self.origin, (_batch(connection, views, day, labelled=labelled).select(wanted) for day in days))

    def newest(self, columns: Mapping[str, str], time: str, window: Window) -> Iterator[Chunk]:
        """See `RowSource`: the last day of the window that can be learned from and has rows."""
        views = self.views.named([])
        with self._connected(views) as connection:
            for day in reversed(list(self._moments(connection, window, labelled=True))):
                batch = _batch(connection, views, day, labelled=False)
                if batch.num_rows:
                    yield from numbered(self.origin, [batch.slice(0, 1).select([columns[time]])])
                    return

    def _moments(self, connection: sa.Connection, window: Window, *, labelled: bool) -> Iterator[datetime]:
        """Those of the window that have come; `labelled`: and of which the label is known by now."""
        since, until = window.as_datetimes()
        end = min(self.now(), until or self.now())
        label = self.views.label
        if labelled and label is not None:
            known = connection.execute(known_until(self.views)).scalar()
            if known is None:
                return
            settled = (
                known - timedelta(days=label.within_days) + timedelta(microseconds=1)
            )  # a moment that lies exactly so far back is known
            end = min(end, settled)
        yield from self.views.moments(since, end)

    @contextmanager
    def _connected(self, views: FeatureViews) -> Iterator[sa.Connection]:
        with connected(self.url, self.origin) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SET TIME ZONE 'UTC'"))  # what times without a zone are held to be
            self._require(connection, views)
            yield connection

    def _require(self, connection: sa.Connection, views: FeatureViews) -> None:
        """The warehouse has every table and column that is going to be asked for."""
        inspector = sa.inspect(connection)
        for table, needed in _needed(views).items():
            schema, name = named(table, views.tables[table])
            try:
                there = [column["name"] for column in inspector.get_columns(name, schema=schema)]
            except sa.exc.NoSuchTableError as error:
                others = ", ".join(sorted([*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]))
                raise ConfigError(
                    f"{self.file}: tables.{table}: the warehouse has no {name!r}; it has {others}. Correct it and run again."
                ) from error
            for column, place in needed.items():
                if column not in there:
                    like = f" (closest: {', '.join(map(repr, closest(column, there)))})" if closest(column, there) else ""
                    raise ConfigError(
                        f"{self.file}: {place} names {column!r}, which the table {name!r} has not{like}. Correct it and run again."
                    )


def _needed(views: FeatureViews) -> dict[str, dict[str, str]]:
    """By table: each column that is read, and the place of the contract that names it."""
    needed: dict[str, dict[str, str]] = {}
    for place, part in views.parts().items():
        spec, columns = views.tables[part.table], needed.setdefault(part.table, {})
        at = f"tables.{part.table}"
        columns |= {spec.entity or views.entity: f"{at}.entity", spec.happened: f"{at}.happened", spec.arrived: f"{at}.arrived"}
        columns |= dict.fromkeys(part.where, f"{place}.where")
        if isinstance(part, Feature) and part.column is not None:
            columns[part.column] = f"{place}.column"
    return needed


def _batch(connection: sa.Connection, views: FeatureViews, moment: datetime, *, labelled: bool) -> pa.RecordBatch:
    """Everybody's row as of `moment`, sorted by nothing."""
    result = connection.execute(rows_at(views, moment, labelled=labelled))
    names = list(result.keys())
    columns = dict(zip(names, zip(*result.all(), strict=True), strict=False)) or dict.fromkeys(names, ())
    found = {name: _values(views.features[name], moment, columns[name]) for name in views.features}
    who = [str(value) for value in columns[views.entity]]
    found[views.entity] = pa.array(who, pa.string())
    found[MOMENT] = pa.array([moment] * len(who), pa.timestamp("s", "UTC"))
    found[ROW] = pa.array([f"{each}@{moment:%Y-%m-%dT%H:%M}" for each in who], pa.string())
    if labelled and views.label is not None:
        found[views.label.column] = pa.array([int(value) for value in columns[views.label.column]], pa.int64())
    return pa.RecordBatch.from_pydict(found)


def _values(feature: Feature, moment: datetime, values: Sequence[Any]) -> pa.Array:
    """A feature's column; databases have types of their own for sums."""
    if feature.aggregate in _INTEGERS:
        return pa.array([int(value) for value in values], pa.int64())
    if feature.aggregate in _TIMES:
        return pa.array([days_since(moment, value) for value in values], pa.float64())
    if feature.aggregate == "latest":
        return arrow_array([float(value) if isinstance(value, Decimal) else value for value in values])
    return pa.array([None if value is None else float(value) for value in values], pa.float64())
