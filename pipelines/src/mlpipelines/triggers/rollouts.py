"""Which versions the trigger is to roll out, and how far each has come: one row for a run, written before anything is done.

The row is written when the run's end is, and says no more than that its version is to take over. How far the rollout is lies with what it
steers (`mlserving.rollout`), under the run's name; what stands here of it is what was seen last, for `millrace why`. So whoever comes
after a crash needs nothing but the row. Who works on the rows: `triggers.roller`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, insert, select, update

from mlpipelines.triggers.tables import ENDED, METADATA, ROLLOUTS, WANTED
from mlserving.database import locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A rollout that the trigger has to see to."""

    run: str
    """The training that the version came of; also what the rollout is called."""
    model: str
    wanted_at: float
    """Seconds since 1970."""
    state: str
    """wanted, started, or ended."""
    cluster_run: str = ""
    """Kubeflow's id of the run, by which the registry knows the version."""
    version: int | None = None
    """None: the registry has not been asked yet."""
    phase: str = ""
    """Of the rollout, as it was seen last; empty before it was started. One that never was ends as superseded, refused, by hand or nothing."""
    text: str = ""
    """What was done last, or what is waited for."""
    tries: int = 0
    """How often in a row nothing could be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What was seen of a rollout, or done to it."""

    state: str
    text: str
    phase: str = ""
    version: int | None = None


class Rollouts:
    """The rows in one database."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        with locked(database, "trigger tables") as connection:
            METADATA.create_all(connection)

    def want(self, run: str, model: str, now: float, *, version: int | None = None, cluster_run: str = "") -> None:
        """Have the version of a run rolled out. Again with the same run changes nothing.

        Raises:
            Unavailable: the database does not answer.
        """
        with locked(self._database, "trigger rollouts") as connection:
            if connection.execute(select(ROLLOUTS.c.run).where(ROLLOUTS.c.run == run)).first() is None:
                row = {"run": run, "model": model, "wanted_at": now, "due": now, "version": version, "cluster_run": cluster_run}
                connection.execute(insert(ROLLOUTS).values(**row, state=WANTED))

    def claim(self, now: float, until: float) -> Wanted | None:
        """An open rollout that is due and that nobody else works on, for the caller to work on; None where there is none.

        Until `until` no other claim finds it. Whoever was killed after a claim leaves it to the next one then. Raises as `want` does.
        """
        due = (ROLLOUTS.c.state != ENDED) & (ROLLOUTS.c.not_before <= now)
        with locked(self._database, "trigger rollouts") as connection:
            row = connection.execute(select(ROLLOUTS).where(due).order_by(ROLLOUTS.c.not_before).limit(1)).mappings().first()
            if row is None:
                return None
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.run == row["run"]).values(not_before=until))
            return _wanted(row)

    def keep(self, run: str, until: float) -> None:
        """Make a claim last until then: it is still worked on. Raises as `want` does."""
        with locked(self._database, "trigger rollouts") as connection:
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.run == run).values(not_before=until))

    def note(self, run: str, note: Note, *, again_at: float) -> None:
        """What was seen or done; it is due again at `again_at`. Raises as `want` does."""
        seen = {"state": note.state, "text": note.text, "phase": note.phase, "version": note.version}
        with locked(self._database, "trigger rollouts") as connection:
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.run == run).values(**seen, tries=0, not_before=again_at, due=again_at))

    def note_trouble(self, run: str, trouble: str, *, again_at: float) -> None:
        """Nothing could be done; that is tried again at `again_at`. Since when it is overdue stays as it was. Raises as `want` does."""
        with locked(self._database, "trigger rollouts") as connection:
            values = {"text": trouble, "not_before": again_at, "tries": ROLLOUTS.c.tries + 1}
            connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.run == run).values(**values))

    def newer(self, model: str, version: int) -> int | None:
        """The newest version of a model that is, or was, to be rolled out and is newer; None where there is none. Raises as `want` does."""
        query = select(func.max(ROLLOUTS.c.version)).where((ROLLOUTS.c.model == model) & (ROLLOUTS.c.version > version))
        with locked(self._database, "trigger reading") as connection:
            found: int | None = connection.execute(query).scalar_one()
            return found

    def last(self, model: str, most: int = 20) -> Sequence[Wanted]:
        """The last rollouts of a model, newest first. Raises as `want` does."""
        query = select(ROLLOUTS).where(ROLLOUTS.c.model == model).order_by(ROLLOUTS.c.wanted_at.desc()).limit(most)
        with locked(self._database, "trigger reading") as connection:
            return [_wanted(row) for row in connection.execute(query).mappings()]

    def due(self) -> dict[str, float]:
        """By model, when the first of its open rollouts is or was due to be looked at, in seconds since 1970. Raises as `want` does."""
        query = select(ROLLOUTS.c.model, func.min(ROLLOUTS.c.due).label("due")).where(ROLLOUTS.c.state != ENDED).group_by(ROLLOUTS.c.model)
        with locked(self._database, "trigger reading") as connection:
            return {row.model: row.due for row in connection.execute(query)}


def _wanted(row: Any) -> Wanted:
    return Wanted(**{name: row[name] for name in Wanted.__dataclass_fields__})
