"""Rolls out what trainings brought: the last stretch of the loop, from a blessed version to one that answers everything, or to none.

    run ended blessed ─> wanted ─> start (loaded, first step) ─> advance … advance ─> done | aborted | rolled back

Each turn claims what is due and does one thing to it: start it, judge it once, or see that it is over. What a rollout is and how far it has come
lies with what it steers, under the run's name, so whoever is killed anywhere leaves it to the next turn, of any process; and a person may
steer it too, with `millrace rollout`. Loading a version takes minutes, so each rollout is worked on in a thread of its own, under a
claim that is kept up as long as the thread lives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import sqlalchemy.orm  # noqa: F401  MLflow's first call imports it, in a thread; half imported it breaks what others ask of the database
import structlog

from mlpipelines.errors import ConfigError, MillraceError
from mlpipelines.project import Project
from mlpipelines.rollout_wish import wish_of
from mlpipelines.triggers.decide import Freeze
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.rollouts import Note, Rollouts, Wanted
from mlpipelines.triggers.starter import Ear as RunEar
from mlpipelines.triggers.starter import pause
from mlpipelines.triggers.starts import Ended
from mlpipelines.triggers.tables import ENDED, STARTED, WANTED
from mlserving import errors as serving_errors
from mlserving.rollout import actions
from mlserving.rollout.actions import Room
from mlserving.rollout.aliases import CHALLENGER
from mlserving.rollout.document import Desired, history
from mlserving.rollout.plan import OPEN, Phase, Rollout

REACHED = frozenset({"blessed", "succeeded"})
"""Outcomes of a run after which there may be a version to roll out."""
CLAIM_SECONDS = 20.0
_LONGEST_PAUSE = 60.0
_AT_ONCE = 16

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a roller asks."""

    projects: Projects
    room: Callable[[str], Room]
    """What a model's rollout is worked on with. Raises ConfigError where nobody says."""
    frozen: Callable[[str], Freeze | None]
    """The freeze that holds for a model."""
    reason_of: Callable[[str], str]
    """Why a run was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """Who wants to hear of it."""

    moved: Callable[[Wanted, Rollout], None] = lambda _row, _rollout: None
    """A rollout is in another phase than before. `Wanted.phase` is the one before."""


class Roller:
    """Takes the versions of a ledger's runs to all requests."""

    def __init__(
        self,
        rollouts: Rollouts,
        world: World,
        *,
        ears: Collection[Ear] = (),
        claim_seconds: float = CLAIM_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`claim_seconds` must be longer than the time between two turns."""
        self._rollouts, self._world, self._ears, self._claim_seconds, self._clock = rollouts, world, ears, claim_seconds, clock
        self._busy: dict[str, threading.Thread] = {}
        self._bugs: list[BaseException] = []

    def ear(self) -> RunEar:
        """What hears that a run has ended: its version is wanted, where its project says so."""
        return RunEar(ended=self._run_ended)

    def turn(self) -> None:
        """Take up what is due, and keep what is under way.

        Raises:
            Unavailable: the database does not answer.
            Exception: a bug ended one of the threads.
        """
        if self._bugs:
            raise self._bugs[0]
        self._busy = {run: thread for run, thread in self._busy.items() if thread.is_alive()}
        for run in self._busy:
            self._rollouts.keep(run, self._clock() + self._claim_seconds)
        while len(self._busy) < _AT_ONCE and (row := self._rollouts.claim(self._clock(), self._clock() + self._claim_seconds)) is not None:
            thread = threading.Thread(target=self._work, args=(row,), name=f"rollout {row.run}", daemon=True)
            self._busy[row.run] = thread
            thread.start()

    def step(self, row: Wanted) -> None:
        """Do one thing to a rollout that was claimed, and note it.

        Raises:
            Unavailable: the database does not answer.
        """
        try:
            note, again_at = self._step(row)
        except (MillraceError, serving_errors.ServingError) as error:
            again_at = self._clock() + min(_LONGEST_PAUSE, pause(row.tries))
            log.warning("trigger.rollout_waits", run=row.run, model=row.model, tries=row.tries + 1, error=str(error))
            self._rollouts.note_trouble(row.run, str(error), again_at=again_at)
            return
        if (note.state, note.phase) != (row.state, row.phase):
            log.info("trigger.rollout", run=row.run, model=row.model, version=note.version, phase=note.phase, text=note.text)
        self._rollouts.note(row.run, note, again_at=again_at)

    def _work(self, row: Wanted) -> None:
        try:
            self.step(row)
        except serving_errors.Unavailable as error:  # the database: the claim runs out
            log.error("trigger.rollout_not_noted", run=row.run, error=str(error))
        except Exception as error:  # noqa: BLE001  a bug in a thread must end the process, not only the thread
            self._bugs.append(error)

    def _run_ended(self, name: str, model: str, ended: Ended) -> None:
        if ended.outcome not in REACHED:
            return
        try:
            wanted = self._world.projects.require(model).project.retraining.rollout == "automatic"
        except ConfigError:  # asked again before it is begun
            wanted = True
        if wanted:
            version = ended.facts.get("version")
            cluster_run = str(ended.facts.get("run_id", ""))
            self._rollouts.want(name, model, self._clock(), version=version, cluster_run=cluster_run)

    # -- one step ----------------------------------------------------------------------------------------------------------------

    def _step(self, row: Wanted) -> tuple[Note, float]:
        """What is to be noted, and when it is due again."""
        project = self._world.projects.require(row.model).project
        room = self._world.room(row.model)
        desired = room.driver.read(row.model)
        if _is_current(desired, row.run):
            return self._go_on(row, room, desired)
        if (past := next((each for each in desired.past if each.id == row.run), None)) is not None:
            return self._ended(past.phase, past.because, past.to_version)
        return self._begin(row, project, room, desired)

    def _begin(self, row: Wanted, project: Project, room: Room, desired: Desired) -> tuple[Note, float]:
        if row.version is None:
            version = room.registry.version_of_run(row.model, row.cluster_run)
            if version is None:
                return self._ended("nothing", "the run registered no version: its model or its data were rejected", None)
            row = replace(row, version=version)
        if end := self._what_ends_it(row, project, room, desired):
            return self._ended(*end, row.version)
        if wait := self._what_it_waits_for(row, desired):
            return Note(state=WANTED, text=wait, version=row.version), self._clock() + project.deployment.rollout.every_seconds
        begun = Note(state=STARTED, text=f"version {row.version} is being loaded", phase=Phase.STARTING, version=row.version)
        self._rollouts.note(row.run, begun, again_at=self._clock() + self._claim_seconds)  # before the deed: whoever asks is told
        wish = wish_of(project, version=row.version, reason=f"{self._world.reason_of(row.run)} ({row.run})", name=row.run)
        try:
            started = actions.start(room, wish)
        except serving_errors.NotServed:
            raise
        except serving_errors.ConfigError as error:
            return self._ended("refused", str(error), row.version)
        return self._seen(row, started, f"version {row.version} is loaded and answers its first requests")

    def _what_ends_it(self, row: Wanted, project: Project, room: Room, desired: Desired) -> tuple[str, str] | None:
        """Why it is never begun: phase and text; None where nothing speaks against it."""
        assert row.version is not None
        if project.retraining.rollout != "automatic":
            return (
                "by hand",
                f"the project rolls out by hand (retraining.rollout): millrace rollout start PROJECT_DIR --version {row.version}",
            )
        if desired.stable.version == row.version:
            return "by hand", f"version {row.version} answers already"
        before = next((past for past in history(desired) if past.to_version == row.version and past.phase not in OPEN), None)
        if before is not None:  # whatever became of it, a person has decided
            return "by hand", f"{before.started_by} rolled version {row.version} out: {before.phase}, {before.because}"
        newest = max(
            self._rollouts.newer(row.model, row.version) or 0,
            room.registry.aliases(row.model).get(CHALLENGER, 0),
            *(wanted.version for wanted in desired.tracks.values()),
        )
        return ("superseded", f"version {newest} is newer") if newest > row.version else None

    def _what_it_waits_for(self, row: Wanted, desired: Desired) -> str:
        if (freeze := self._world.frozen(row.model)) is not None:
            return f"version {row.version} waits: {_frozen(row.model, freeze)}"
        if desired.rollout is not None and desired.rollout.open:
            other = desired.rollout
            return f"version {row.version} waits for the end of the rollout {other.id} to version {other.to_version} ({other.phase})"
        return ""

    def _go_on(self, row: Wanted, room: Room, desired: Desired) -> tuple[Note, float]:
        assert desired.rollout is not None
        if not desired.rollout.open:
            return self._seen(row, desired, desired.rollout.ended_because)
        freeze = self._world.frozen(row.model)
        after, done = actions.advance(room, row.model, held=_frozen(row.model, freeze) if freeze else "")
        return self._seen(row, after, done)

    def _seen(self, row: Wanted, desired: Desired, text: str) -> tuple[Note, float]:
        rollout = desired.rollout
        assert rollout is not None
        if row.phase != rollout.phase:
            for ear in self._ears:  # before it is noted: told twice after a crash, but never not told
                ear.moved(row, rollout)
        if not rollout.open:
            return self._ended(rollout.phase, rollout.ended_because, rollout.to_version)
        soon = rollout.phase is not Phase.PROMOTING and rollout.step_started is None
        again_at = self._clock() + (0.0 if soon else rollout.plan.every_seconds)
        return Note(state=STARTED, text=text, phase=rollout.phase, version=rollout.to_version), again_at

    def _ended(self, phase: str, because: str, version: int | None) -> tuple[Note, float]:
        return Note(state=ENDED, text=because, phase=phase, version=version), self._clock()


def _is_current(desired: Desired, run: str) -> bool:
    return desired.rollout is not None and desired.rollout.id == run


def _frozen(model: str, freeze: Freeze) -> str:
    return f"{freeze.by} froze {model} ({freeze.why}); lift it with `millrace thaw {model}`"
