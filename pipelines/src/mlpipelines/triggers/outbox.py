"""Notices on their way: written where decisions are written, sent by a round of their own, tried again for a day.

So a training never waits for a message and never fails for one, and what was written is sent by whoever comes after a crash. A notice
has a name (event, run, way): told twice, it is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Engine, func, insert, select, update

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.triggers.notices import Notice, as_json, from_json
from mlpipelines.triggers.starter import pause
from mlpipelines.triggers.tables import METADATA, NOTICES
from mlserving.database import locked

GIVE_UP_SECONDS = 86_400.0
_CLAIM_SECONDS = 120.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What has not been sent."""

    count: int
    oldest: float
    """When the oldest was written, in seconds since 1970; 0 where there is none."""
    given_up: int


class Outbox:
    """The notices in one database."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        with locked(database, "trigger tables") as connection:
            METADATA.create_all(connection)

    def put(self, notice: Notice, ways: list[str], now: float) -> None:
        """Write a notice down, once for each way. Again with the same notice changes nothing.

        Raises:
            Unavailable: the database does not answer.
        """
        with locked(self._database, "trigger notices") as connection:
            for way in ways:
                name = f"{notice.event} · {notice.run} · {way}"
                if connection.execute(select(NOTICES.c.name).where(NOTICES.c.name == name)).first() is None:
                    connection.execute(
                        insert(NOTICES).values(name=name, way=way, notice=as_json(notice), written=now, not_before=now, tries=0)
                    )

    def deliver(self, send: Callable[[str, Notice], None], now: float) -> None:
        """Send what is due. What fails is tried again later, after a day no more. Raises as `put` does."""
        while (row := self._claim(now)) is not None:
            try:
                send(row["way"], from_json(row["notice"]))
            except (Unavailable, ConfigError) as error:
                over = now - row["written"] > GIVE_UP_SECONDS
                log.warning("trigger.notice_failed", notice=row["name"], tries=row["tries"] + 1, given_up=over, error=str(error))
                self._note(row["name"], trouble=str(error), tries=row["tries"] + 1, not_before=now + pause(row["tries"]), given_up=over)
            else:
                self._note(row["name"], delivered=now, trouble="")

    def waiting(self) -> Waiting:
        """What has not been sent. Raises as `put` does."""
        open_ones = NOTICES.c.delivered.is_(None) & NOTICES.c.given_up.is_(False)
        with locked(self._database, "trigger reading") as connection:
            count, oldest = connection.execute(select(func.count(), func.min(NOTICES.c.written)).where(open_ones)).one()
            given_up = connection.execute(select(func.count()).where(NOTICES.c.given_up.is_(True))).scalar_one()
        return Waiting(count=count, oldest=oldest or 0.0, given_up=given_up)

    def _claim(self, now: float) -> dict[str, Any] | None:
        due = NOTICES.c.delivered.is_(None) & NOTICES.c.given_up.is_(False) & (NOTICES.c.not_before <= now)
        with locked(self._database, "trigger notices") as connection:
            row = connection.execute(select(NOTICES).where(due).order_by(NOTICES.c.written).limit(1)).mappings().first()
            if row is None:
                return None
            connection.execute(update(NOTICES).where(NOTICES.c.name == row["name"]).values(not_before=now + _CLAIM_SECONDS))
            return dict(row)

    def _note(self, name: object, **values: object) -> None:
        with locked(self._database, "trigger notices") as connection:
            connection.execute(update(NOTICES).where(NOTICES.c.name == name).values(**values))
