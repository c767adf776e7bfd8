"""What was decided about causes, and the runs that were decided on: two tables, written before anything is done.

`settle` is the one way in. Under the model's lock it reads what has happened, asks `decide`, and writes the answer; a start also leaves
a row that a run is wanted. Whoever starts runs (`triggers.starter`) takes wanted rows afterwards. Killed in between, the row is still
there; killed after the run was started and before that was noted, the run is found by its name. Decisions are only ever added: the
same answer to the same cause, told again, is not written again.

SQLite in the workspace, PostgreSQL on a cluster (`mlserving.database`). Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, Connection, Engine, Float, Integer, MetaData, String, Table, insert, select, update

from mlpipelines.triggers.decide import Cause, Decision, Freeze, Policy, Reason, Situation, Start, decide
from mlserving.database import locked

WANTED, STARTED, ENDED = "wanted", "started", "ended"

_metadata = MetaData()
_decisions = Table(
    "trigger_decisions",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("model", String, nullable=False, index=True),
    Column("signal", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("starts_at", Float, nullable=False),
    Column("key", String, nullable=False, index=True),
    Column("reason", String, nullable=False),
    Column("text", String, nullable=False),
    Column("summary", String, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("again_at", Float),
)
_runs = Table(
    "trigger_runs",
    _metadata,
    Column("name", String, primary_key=True),
    Column("key", String, nullable=False, unique=True),
    Column("model", String, nullable=False, index=True),
    Column("decided_at", Float, nullable=False),
    Column("state", String, nullable=False),
    Column("cause", JSON, nullable=False),
    Column("outcome", String, nullable=False, default=""),
    Column("trouble", String, nullable=False, default=""),
)
_freezes = Table(
    "trigger_freezes",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("why", String, nullable=False),
    Column("until", Float),
    Column("lifted_at", Float),
    Column("lifted_by", String),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A decision as it was written down."""

    at: float
    model: str
    signal: str
    reason: Reason
    text: str
    summary: str
    evidence: Mapping[str, Any]
    again_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRun:
    """A run that was decided on and has not been started, as far as is noted."""

    name: str
    model: str
    cause: Mapping[str, Any]
    trouble: str
    """Why it could not be started when that was last tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the ledger cannot know by itself when a cause is settled."""

    policy: Policy | None
    open_run: str = ""
    """A run of the model that somebody started by hand and that has not ended."""
    new_labels: int = 0


class Ledger:
    """The decisions in one database."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        with locked(database, "trigger tables") as connection:
            _metadata.create_all(connection)

    def settle(self, cause: Cause, facts: Callable[[], Facts], now: float) -> Decision:
        """Decide on `cause` and write it down, as one step that no other decision on the model overlaps.

        Args:
            cause: what happened.
            facts: asked under the model's lock, so that what it says still holds when the decision is written.
            now: seconds since 1970.

        Raises:
            Unavailable: the database, or whoever `facts` asks, does not answer. Nothing was decided.
        """
        with locked(self._database, f"trigger {cause.model}") as connection:
            known = facts()
            decision = decide(cause, self._situation(connection, cause.model, known, now), now)
            if self._last_reason(connection, cause) is not decision.reason:
                connection.execute(insert(_decisions).values(**_row(cause, decision, now)))
            if decision.starts:
                connection.execute(
                    insert(_runs).values(
                        name=cause.run_name,
                        key=cause.key,
                        model=cause.model,
                        decided_at=now,
                        state=WANTED,
                        cause=_told(cause),
                        outcome="",
                        trouble="",
                    )
                )
            return decision

    def decisions(self, model: str, most: int = 20) -> Sequence[Settled]:
        """The last decisions on a model, newest first."""
        query = select(_decisions).where(_decisions.c.model == model).order_by(_decisions.c.id.desc()).limit(most)
        with self._reading() as connection:
            return [_settled(row) for row in connection.execute(query).mappings()]

    def wanted(self) -> Sequence[WantedRun]:
        """The runs that are to be started, oldest decision first."""
        query = select(_runs).where(_runs.c.state == WANTED).order_by(_runs.c.decided_at)
        with self._reading() as connection:
            return [
                WantedRun(name=row["name"], model=row["model"], cause=row["cause"], trouble=row["trouble"])
                for row in connection.execute(query).mappings()
            ]

    def open_runs(self) -> Sequence[tuple[str, str]]:
        """Name and model of the runs that were started and whose end is not known."""
        with self._reading() as connection:
            return [(row.name, row.model) for row in connection.execute(select(_runs).where(_runs.c.state == STARTED))]

    def note_started(self, name: str) -> None:
        """The run goes."""
        self._note(name, state=STARTED, trouble="")

    def note_trouble(self, name: str, trouble: str) -> None:
        """It could not be started; it is still wanted."""
        self._note(name, trouble=trouble)

    def note_ended(self, name: str, outcome: str) -> None:
        """It has ended: blessed, rejected, failed, …."""
        self._note(name, state=ENDED, outcome=outcome)

    def freeze(self, model: str, freeze: Freeze, now: float) -> None:
        """Start nothing for `model` from now on. A freeze that is there already is replaced."""
        with locked(self._database, f"trigger {model}") as connection:
            self._lift(connection, model, freeze.by, now)
            connection.execute(insert(_freezes).values(model=model, at=now, by=freeze.by, why=freeze.why, until=freeze.until))

    def thaw(self, model: str, by: str, now: float) -> bool:
        """Lift the freeze; whether there was one."""
        with locked(self._database, f"trigger {model}") as connection:
            return self._lift(connection, model, by, now)

    def _situation(self, connection: Connection, model: str, known: Facts, now: float) -> Situation:
        query = select(_runs).where(_runs.c.model == model)
        starts = [
            Start(key=row["key"], at=row["decided_at"], run_name=row["name"], open=row["state"] != ENDED)
            for row in connection.execute(query).mappings()
        ]
        return Situation(
            policy=known.policy,
            starts=starts,
            open_run=known.open_run,
            new_labels=known.new_labels,
            freeze=self._frozen(connection, model, now),
        )

    def _frozen(self, connection: Connection, model: str, now: float) -> Freeze | None:
        query = select(_freezes).where(_freezes.c.model == model, _freezes.c.lifted_at.is_(None)).order_by(_freezes.c.id.desc()).limit(1)
        row = connection.execute(query).mappings().first()
        if row is None or (row["until"] is not None and row["until"] <= now):
            return None
        return Freeze(by=row["by"], why=row["why"], until=row["until"])

    def _last_reason(self, connection: Connection, cause: Cause) -> Reason | None:
        query = select(_decisions.c.reason).where(_decisions.c.key == cause.key).order_by(_decisions.c.id.desc()).limit(1)
        found = connection.execute(query).scalar()
        return Reason(found) if found else None

    def _lift(self, connection: Connection, model: str, by: str, now: float) -> bool:
        open_ones = (_freezes.c.model == model) & _freezes.c.lifted_at.is_(None)
        return connection.execute(update(_freezes).where(open_ones).values(lifted_at=now, lifted_by=by)).rowcount > 0

    def _note(self, name: str, **values: Any) -> None:
        with locked(self._database, f"trigger run {name}") as connection:
            connection.execute(update(_runs).where(_runs.c.name == name).values(**values))

    def _reading(self) -> AbstractContextManager[Connection]:
        return locked(self._database, "trigger reading")


def _row(cause: Cause, decision: Decision, now: float) -> dict[str, Any]:
    return {
        "at": now,
        "model": cause.model,
        "signal": str(cause.signal),
        "fingerprint": cause.fingerprint,
        "starts_at": cause.starts_at,
        "key": cause.key,
        "reason": str(decision.reason),
        "text": decision.text,
        "summary": cause.summary,
        "evidence": dict(decision.evidence),
        "again_at": decision.again_at,
    }


def _told(cause: Cause) -> dict[str, Any]:
    return {"signal": str(cause.signal), "fingerprint": cause.fingerprint, "starts_at": cause.starts_at, "summary": cause.summary}


def _settled(row: Mapping[Any, Any]) -> Settled:
    return Settled(
        at=row["at"],
        model=row["model"],
        signal=row["signal"],
        reason=Reason(row["reason"]),
        text=row["text"],
        summary=row["summary"],
        evidence=row["evidence"],
        again_at=row["again_at"],
    )
