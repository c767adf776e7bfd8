"""The feature contract's statement means the same on PostgreSQL: the property that holds on SQLite, asked of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings

from event_worlds import DAYS, START, VIEWS, Event, answered, expected_rows, worlds, write
from mlpipelines.ingestion.sources.feature_views import FeatureViewsSource
from postgres import postgres_server, url_of

pytestmark = pytest.mark.postgres
END = START + timedelta(days=DAYS + 1)


@pytest.fixture(scope="module")
def engine() -> Iterator[sa.Engine]:
    with postgres_server() as port:
        engine = sa.create_engine(url_of(port))
        with engine.begin() as connection:  # a server that is set to another zone than ours
            connection.execute(sa.text("ALTER DATABASE postgres SET timezone TO 'Asia/Tokyo'"))
        engine.dispose()
        yield engine
        engine.dispose()


@settings(max_examples=15)
@given(worlds())
def test_postgres_answers_what_one_would_count_by_hand(engine: sa.Engine, events: list[Event]) -> None:
    write(engine, events)
    source = FeatureViewsSource(url=engine.url, views=VIEWS, file=Path("feature_views.yaml"), now=lambda: END)
    moments = [START + timedelta(days=day, hours=5) for day in range(DAYS + 1)]
    expected = [row for moment in moments for row in expected_rows(VIEWS, events, moment)]
    unlabelled = [{name: value for name, value in row.items() if name != "scam"} for row in expected]
    assert answered(source, labelled=False) == [
        {name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in row.items()} for row in unlabelled
    ]


def test_times_without_a_zone_are_utc_whatever_the_server_is_set_to(engine: sa.Engine) -> None:
    moment = START + timedelta(days=1, hours=5)
    write(engine, [])
    with engine.begin() as connection:
        for column in ("happened_at", "loaded_at"):
            connection.execute(sa.text(f"ALTER TABLE events ALTER COLUMN {column} TYPE timestamp USING {column} AT TIME ZONE 'UTC'"))
        bare = [{"happened": (moment + timedelta(seconds=each)).replace(tzinfo=None)} for each in (-1, 0)]
        connection.execute(sa.text("INSERT INTO events (user_id, happened_at, loaded_at) VALUES ('u1', :happened, :happened)"), bare)
    source = FeatureViewsSource(url=engine.url, views=VIEWS, file=Path("feature_views.yaml"), now=lambda: END)
    counts = {row["as_of"]: row["count_2_all"] for row in answered(source, labelled=False)}
    assert (counts[moment], counts[moment + timedelta(days=1)]) == (1, 2)
