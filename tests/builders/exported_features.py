"""A project with a feature contract over events of the last days, whose moment has come today, for what is exported of it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from event_worlds import VIEWS, Event, write

USERS = [f"u{number}" for number in range(12)]
_KINDS = {"count": "integer", "distinct": "integer", "latest": "string"}


def project_of_these_days(folder: Path) -> datetime:
    """Write project.yaml, its contract and a warehouse; returns today's moment, three hours ago."""
    moment = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=3)
    first = (moment - timedelta(days=8)).date()
    views: dict[str, Any] = {**VIEWS.model_dump(mode="json", exclude_defaults=True), "at": f"{moment:%H:%M}", "first": f"{first}"}
    project = {
        "name": "odd-accounts",
        "team": "trust",
        "description": 'Accounts that are "odd"',
        "task": "detection",
        "source": {"kind": "feature_views", "url": f"sqlite:///{folder}/warehouse.db", "views": "feature_views.yaml"},
        "key": "row_id",
        "time": "as_of",
        "features": {name: _KINDS.get(each.aggregate, "float") for name, each in VIEWS.features.items()},
        "context": {"user_id": "string"},
        "label": {"column": "scam", "kind": "flag"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_views.yaml").write_text(yaml.safe_dump(views))
    (folder / "project.yaml").write_text(yaml.safe_dump(project))
    write(sa.create_engine(f"sqlite:///{folder}/warehouse.db", poolclass=sa.NullPool), _events(moment))
    return moment


def _events(moment: datetime) -> list[Event]:
    """So few that accounts come and go; the newest verdict is from just before the moment, so labels of four days ago are known."""
    chance = random.Random(7)

    def event(table: str, age: float) -> Event:
        happened = moment - timedelta(hours=age)
        return Event(
            table=table,
            user_id=chance.choice(USERS),
            kind=chance.choice(["a", "b", "c", None]),
            amount=chance.choice([None, chance.randint(-8, 40) / 4]),
            happened_at=happened,
            loaded_at=happened + timedelta(hours=chance.choice([0, 1, 30])),
        )

    events = [event("events", chance.uniform(0, 240)) for _ in range(60)]
    newest = Event(table="verdicts", user_id="u0", kind="b", amount=None, happened_at=moment, loaded_at=moment)
    return [*events, event("verdicts", 150), event("verdicts", 60), newest]
