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
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Engine, Select, delete, func, insert, select, update

from mlpipelines.triggers.decide import Cause, Decision, Freeze, Policy, Reason, Situation, Start, decide
from mlpipelines.triggers.tables import DECISIONS, ENDED, FREEZES, GPU_TIME, METADATA, ROLLOUTS, RUNS, STARTED, WANTED
from mlserving.database import locked
from mlserving.rollout.plan import Phase


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
    trouble: str = ""
    """Why it could not be started when that was last tried."""
    tries: int = 0
    """How often that was tried in vain."""
    decided_at: float = 0.0

    @property
    def reason(self) -> str:
        """What the run, its report and its model version say of why it was started."""
        told = str(self.cause.get("summary") or "")
        return f"{self.cause['signal']}{f': {told}' if told else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """A run that was decided on, whatever became of it."""

    name: str
    model: str
    decided_at: float
    state: str
    """wanted, started, or ended."""
    outcome: str
    trouble: str
    address: str
    """Where to watch it."""
    gpu_seconds: float | None
    """GPUs times seconds that it held; None where that is not known (yet)."""


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
            METADATA.create_all(connection)

    def settle(self, causes: Sequence[Cause], facts: Callable[[str], Facts], now: float) -> list[Decision]:
        """Decide on causes, in order, and write it down, as one step that no other decision on their models overlaps.

        Args:
            causes: what happened.
            facts: asked for each model under its lock, so that what it says still holds when the decisions are written.
            now: seconds since 1970.

        Raises:
            Unavailable: the database, or whoever `facts` asks, does not answer. Nothing was decided.
        """
        models = {cause.model for cause in causes}
        with locked(self._database, *(f"trigger {model}" for model in models)) as connection:
            situations = {model: self._situation(connection, model, facts(model), now) for model in models}
            decisions = []
            for cause in causes:
                decision = decide(cause, situations[cause.model], now)
                if decision.starts:
                    situations[cause.model] = _started(situations[cause.model], cause, now)
                decisions.append(decision)
            self._write(connection, list(zip(causes, decisions, strict=True)), now)
            return decisions

    def decisions(self, model: str, most: int = 20) -> Sequence[Settled]:
        """The last decisions on a model, newest first."""
        query = select(DECISIONS).where(DECISIONS.c.model == model).order_by(DECISIONS.c.id.desc()).limit(most)
        with self._reading() as connection:
            return [_settled(row) for row in connection.execute(query).mappings()]

    def wanted(self) -> Sequence[WantedRun]:
        """The runs that are to be started, oldest decision first."""
        query = select(RUNS).where(RUNS.c.state == WANTED).order_by(RUNS.c.decided_at)
        with self._reading() as connection:
            return [_wanted_run(row) for row in connection.execute(query).mappings()]

    def claim(self, now: float, until: float) -> WantedRun | None:
        """The oldest wanted run that nobody else is starting, for the caller to start; None where there is none.

        Until `until` no other claim finds it. Whoever was killed after a claim leaves the run to the next one then.
        """
        query = select(RUNS).where(RUNS.c.state == WANTED, RUNS.c.not_before <= now).order_by(RUNS.c.decided_at).limit(1)
        with locked(self._database, "trigger claims") as connection:
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            connection.execute(update(RUNS).where(RUNS.c.name == row["name"]).values(not_before=until))
            return _wanted_run(row)

    def open_runs(self) -> Sequence[tuple[str, str]]:
        """Name and model of the runs that were started and whose end is not known."""
        with self._reading() as connection:
            return [(row.name, row.model) for row in connection.execute(select(RUNS).where(RUNS.c.state == STARTED))]

    def last_outcomes(self) -> dict[str, str]:
        """By model, how the last of its runs that ended did."""
        query = select(RUNS.c.model, RUNS.c.outcome).where(RUNS.c.state == ENDED).order_by(RUNS.c.decided_at)
        with self._reading() as connection:
            return {row.model: row.outcome for row in connection.execute(query)}

    def reason_of(self, name: str) -> str:
        """Why a run was decided on; empty for one that is not here."""
        with self._reading() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.name == name)).mappings().first()
        return _wanted_run(row).reason if row is not None else ""

    def runs(self, model: str, most: int = 20) -> Sequence[KnownRun]:
        """The last runs of a model that were decided on, newest first."""
        query = _runs_of(model).order_by(RUNS.c.decided_at.desc()).limit(most)
        with self._reading() as connection:
            return [KnownRun(**{field.name: row[field.name] for field in fields(KnownRun)}) for row in connection.execute(query).mappings()]

    def frozen(self, model: str, now: float) -> Freeze | None:
        """The freeze that holds for a model."""
        with self._reading() as connection:
            return self._frozen(connection, model, now)

    def note_started(self, name: str, address: str = "") -> None:
        """The run goes, and can be watched at `address`."""
        self._note(name, state=STARTED, trouble="", address=address)

    def note_trouble(self, name: str, trouble: str, *, again_at: float = 0.0) -> None:
        """It could not be started; it is still wanted, and is tried again from `again_at` on."""
        self._note(name, trouble=trouble, not_before=again_at, tries=RUNS.c.tries + 1)

    def note_ended(self, name: str, outcome: str, trouble: str = "", *, gpu_seconds: float | None = 0.0) -> None:
        """It has ended: blessed, rejected, failed, …, why, and what it held of GPUs."""
        with locked(self._database, f"trigger run {name}") as connection:
            connection.execute(update(RUNS).where(RUNS.c.name == name).values(state=ENDED, outcome=outcome, trouble=trouble))
            connection.execute(delete(GPU_TIME).where(GPU_TIME.c.name == name))  # somebody else noted it a moment ago
            connection.execute(insert(GPU_TIME).values(name=name, seconds=gpu_seconds))

    def freeze(self, model: str, freeze: Freeze, now: float) -> None:
        """Start nothing for `model` from now on. A freeze that is there already is replaced."""
        with locked(self._database, f"trigger {model}") as connection:
            self._lift(connection, model, freeze.by, now)
            connection.execute(insert(FREEZES).values(model=model, at=now, by=freeze.by, why=freeze.why, until=freeze.until))

    def thaw(self, model: str, by: str, now: float) -> bool:
        """Lift the freeze; whether there was one."""
        with locked(self._database, f"trigger {model}") as connection:
            return self._lift(connection, model, by, now)

    def _write(self, connection: Connection, settled: Sequence[tuple[Cause, Decision]], now: float) -> None:
        """What is new of it: the answer that a cause got last is not written again."""
        last = self._last_reasons(connection, {cause.key for cause, _ in settled})
        rows = []
        for cause, decision in settled:
            if last.get(cause.key) != decision.reason:
                rows.append(_row(cause, decision, now))
                last[cause.key] = decision.reason
        if rows:
            connection.execute(insert(DECISIONS), rows)
        if wanted := [_wanted(cause, now) for cause, decision in settled if decision.starts]:
            connection.execute(insert(RUNS), wanted)

    def _situation(self, connection: Connection, model: str, known: Facts, now: float) -> Situation:
        starts = [
            Start(key=row["key"], at=row["decided_at"], run_name=row["name"], open=row["state"] != ENDED, gpu_seconds=row["gpu_seconds"])
            for row in connection.execute(_runs_of(model)).mappings()
        ]
        return Situation(
            policy=known.policy,
            starts=starts,
            open_run=known.open_run,
            open_rollout=_canary_of(connection, model),
            new_labels=known.new_labels,
            freeze=self._frozen(connection, model, now),
        )

    def _frozen(self, connection: Connection, model: str, now: float) -> Freeze | None:
        query = select(FREEZES).where(FREEZES.c.model == model, FREEZES.c.lifted_at.is_(None)).order_by(FREEZES.c.id.desc()).limit(1)
        row = connection.execute(query).mappings().first()
        if row is None or (row["until"] is not None and row["until"] <= now):
            return None
        return Freeze(by=row["by"], why=row["why"], until=row["until"])

    def _last_reasons(self, connection: Connection, keys: set[str]) -> dict[str, str]:
        newest = select(func.max(DECISIONS.c.id)).where(DECISIONS.c.key.in_(keys)).group_by(DECISIONS.c.key)
        query = select(DECISIONS.c.key, DECISIONS.c.reason).where(DECISIONS.c.id.in_(newest))
        return {row.key: row.reason for row in connection.execute(query)}

    def _lift(self, connection: Connection, model: str, by: str, now: float) -> bool:
        open_ones = (FREEZES.c.model == model) & FREEZES.c.lifted_at.is_(None)
        return connection.execute(update(FREEZES).where(open_ones).values(lifted_at=now, lifted_by=by)).rowcount > 0

    def _note(self, name: str, **values: Any) -> None:
        with locked(self._database, f"trigger run {name}") as connection:
            connection.execute(update(RUNS).where(RUNS.c.name == name).values(**values))

    def _reading(self) -> AbstractContextManager[Connection]:
        return locked(self._database, "trigger reading")


def _runs_of(model: str) -> Select[Any]:
    """A model's runs, with what they held of GPUs."""
    return (
        select(RUNS, GPU_TIME.c.seconds.label("gpu_seconds"))
        .outerjoin(GPU_TIME, GPU_TIME.c.name == RUNS.c.name)
        .where(RUNS.c.model == model)
    )


def _canary_of(connection: Connection, model: str) -> str:
    """The run whose version is on its way, or is about to be; what has taken over and only keeps the old version warm holds nothing back."""
    under_way = (ROLLOUTS.c.state == STARTED) & (ROLLOUTS.c.phase != Phase.PROMOTING)
    nobody_has_looked = (ROLLOUTS.c.state == WANTED) & (ROLLOUTS.c.text == "")
    on_its_way = (ROLLOUTS.c.model == model) & (under_way | nobody_has_looked)
    row = connection.execute(select(ROLLOUTS.c.run).where(on_its_way)).first()
    return str(row.run) if row is not None else ""


def _wanted_run(row: Mapping[Any, Any]) -> WantedRun:
    return WantedRun(**{name: row[name] for name in ("name", "model", "cause", "trouble", "tries", "decided_at")})


def _started(situation: Situation, cause: Cause, now: float) -> Situation:
    return replace(situation, starts=(*situation.starts, Start(key=cause.key, at=now, run_name=cause.run_name, open=True)))


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


def _wanted(cause: Cause, now: float) -> dict[str, Any]:
    return {
        "name": cause.run_name,
        "key": cause.key,
        "model": cause.model,
        "decided_at": now,
        "state": WANTED,
        "cause": _told(cause),
        "outcome": "",
        "trouble": "",
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
