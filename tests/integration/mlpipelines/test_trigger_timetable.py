"""Dates in the calendar, told once each: on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from mlpipelines.project import Schedule
from mlpipelines.triggers.decide import Cause, Decision, Policy, Reason
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.timetable import LATE_SECONDS, Timetable
from mlserving.database import open_database
from mlserving.errors import Unavailable
from postgres import postgres_server, url_of

FIVE = datetime(2026, 11, 2, 5, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0
DAILY = Schedule(cron="0 5 * * *")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('timetable') / 'serving.db'}")
        yield engine
        engine.dispose()
        return
    with postgres_server() as port:
        engine = open_database(url_of(port))
        yield engine
        engine.dispose()


class World:
    """A model with a schedule, a ledger, and a clock that a test turns."""

    def __init__(self, database: Engine, model: str, schedule: Schedule) -> None:
        self.database, self.model, self.schedule = database, model, schedule
        self.ledger = Ledger(database)
        self.policy = Policy(cooldown=0.0, run_missed=schedule.missed == "run-once")
        self.fails = False
        self.told: list[Decision] = []

    def settle(self, cause: Cause) -> Decision:
        if self.fails:
            raise Unavailable("the database is away")
        (decision,) = self.ledger.settle([cause], lambda _: Facts(policy=self.policy), self.now)
        self.told.append(decision)
        return decision

    def at(self, now: float) -> list[Reason]:
        """What the timetable brings about when it is asked now. Each time it is a new process."""
        self.now, self.told = now, []
        Timetable(self.database).tell(self.model, self.schedule, self.settle, now)
        return [decision.reason for decision in self.told]

    def end(self) -> None:
        for run in self.ledger.runs(self.model):
            self.ledger.note_started(run.name)
            self.ledger.note_ended(run.name, "blessed")


@pytest.fixture
def world(database: Engine, request: pytest.FixtureRequest) -> World:
    return World(database, request.node.name, DAILY)


def test_a_date_starts_one_run_however_often_one_looks(world: World) -> None:
    assert world.at(FIVE - HOUR) == []
    assert [reason for minute in range(-5, 30) for reason in world.at(FIVE + 60.0 * minute)] == [Reason.STARTED]
    world.end()
    assert world.at(FIVE + DAY) == [Reason.STARTED]


def test_a_schedule_that_is_new_does_not_make_up_for_the_past(world: World) -> None:
    assert world.at(FIVE + 60.0) == []
    assert world.at(FIVE + 120.0) == []


def test_what_could_not_be_decided_is_told_again(world: World) -> None:
    world.at(FIVE - HOUR)
    world.fails = True
    with pytest.raises(Unavailable):
        world.at(FIVE)
    world.fails = False
    assert world.at(FIVE + 60.0) == [Reason.STARTED]


def test_killed_after_the_decision_and_before_it_is_remembered_the_date_starts_no_second_run(world: World) -> None:
    world.at(FIVE - HOUR)
    before = Timetable(world.database).place(world.model)
    assert before is not None
    world.at(FIVE)
    Timetable(world.database)._move(world.model, before)
    assert world.at(FIVE + 1.0) == [Reason.DUPLICATE]


def test_dates_that_nobody_saw_are_left_out_and_that_is_written_down(world: World) -> None:
    world.at(FIVE - HOUR)
    assert world.at(FIVE + 3 * DAY + LATE_SECONDS + 1) == [Reason.MISSED]
    assert world.ledger.decisions(world.model)[0].text.startswith(f"{world.model} was due at 2026-11-05 05:00 UTC")


def test_dates_that_nobody_saw_are_made_up_for_by_one_run_where_that_is_wanted(database: Engine) -> None:
    world = World(database, "made-up-for", DAILY.model_copy(update={"missed": "run-once"}))
    world.at(FIVE - HOUR)
    assert world.at(FIVE + 3 * DAY + HOUR) == [Reason.STARTED]
    world.end()
    assert world.at(FIVE + 3 * DAY + 2 * HOUR) == []


def test_a_date_during_a_run_is_left_out(world: World) -> None:
    world.at(FIVE - HOUR)
    world.at(FIVE)
    assert world.at(FIVE + DAY) == [Reason.RUN_OPEN]
    world.end()
    assert world.at(FIVE + DAY + HOUR) == []


def test_a_date_during_a_run_waits_for_its_end_where_that_is_wanted(database: Engine) -> None:
    world = World(database, "waits", DAILY.model_copy(update={"overlapping": "run-once"}))
    world.at(FIVE - HOUR)
    world.at(FIVE)
    assert world.at(FIVE + DAY) == [Reason.RUN_OPEN]
    assert world.at(FIVE + 2 * DAY) == [Reason.RUN_OPEN]  # and the one before gives way to it
    assert world.at(FIVE + 2 * DAY + HOUR) == [Reason.RUN_OPEN]
    world.end()
    assert world.at(FIVE + 2 * DAY + 2 * HOUR) == [Reason.STARTED]
    world.end()
    assert world.at(FIVE + 2 * DAY + 3 * HOUR) == []


def test_a_schedule_that_was_changed_begins_anew(world: World) -> None:
    world.at(FIVE - HOUR)
    world.schedule = Schedule(cron="30 4 * * *")
    assert world.at(FIVE) == []
    assert world.at(FIVE + DAY - HOUR / 2) == [Reason.STARTED]
