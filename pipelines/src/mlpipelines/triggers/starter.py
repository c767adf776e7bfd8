"""Starts the runs that were decided on, and finds out how they ended: what comes after the ledger.

One turn after another, by any number of processes. A run is claimed, started, and noted as started, in this order; killed anywhere between, the
claim runs out, the next turn asks for the same name again, and whoever runs pipelines finds the run that there is. What cannot be started
stays wanted and is tried again, each time after a longer pause; what can never be started ends as `refused`, so that it holds nothing back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.triggers.ledger import Ledger, WantedRun
from mlpipelines.triggers.starts import Ended, Runs

REFUSED = "refused"
_CLAIM_SECONDS = 60.0
"""Longer than a start takes as a rule. A claim spares others the work; that two start one run is kept off by its name."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ear:
    """Who wants to hear of it."""

    started: Callable[[WantedRun, str], None] = lambda _run, _address: None
    """A run goes, to be watched at the address."""
    failed: Callable[[WantedRun, str], None] = lambda _run, _why: None
    """It could not be started this time."""
    ended: Callable[[str, str, Ended], None] = lambda _name, _model, _ended: None
    """Name and model of a run, and how it ended."""


class Starter:
    """Takes wanted runs from a ledger to wherever runs go."""

    def __init__(
        self,
        ledger: Ledger,
        runs: Runs,
        *,
        most_open: int | None = None,
        ears: Collection[Ear] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`most_open` is how many runs may go on at once; None leaves that to whoever runs them."""
        self._ledger, self._runs, self._most_open, self._ears, self._clock = ledger, runs, most_open, ears, clock

    def turn(self) -> None:
        """Note the runs that ended, then start those that are wanted.

        Raises:
            Unavailable: the ledger does not answer.
        """
        self._note_ends()
        while self._has_room() and (run := self._ledger.claim(self._clock(), self._clock() + _CLAIM_SECONDS)) is not None:
            self._start(run)

    def _has_room(self) -> bool:
        return self._most_open is None or len(self._ledger.open_runs()) < self._most_open

    def _start(self, run: WantedRun) -> None:
        try:
            address = self._runs.start(run)
        except Unavailable as error:
            self._ledger.note_trouble(run.name, str(error), again_at=self._clock() + pause(run.tries))
            log.warning("trigger.start_failed", run=run.name, tries=run.tries + 1, error=str(error))
            for ear in self._ears:
                ear.failed(run, str(error))
            return
        except ConfigError as error:
            log.error("trigger.start_refused", run=run.name, error=str(error))
            self._end(run.name, run.model, Ended(outcome=REFUSED, trouble=str(error)))
            return
        for ear in self._ears:  # before it is noted: told twice after a crash, but never not told
            ear.started(run, address)
        self._ledger.note_started(run.name, address)
        log.info("trigger.started", run=run.name, model=run.model, address=address, reason=run.reason)

    def _note_ends(self) -> None:
        for name, model in self._ledger.open_runs():
            try:
                ended = self._runs.ended(name, model)
            except Unavailable as error:
                log.warning("trigger.end_unknown", run=name, error=str(error))
                continue
            except ConfigError as error:
                ended = Ended(outcome="lost", trouble=str(error), gpu_seconds=None)
            if ended is not None:
                self._end(name, model, ended)
                log.info("trigger.ended", run=name, model=model, outcome=ended.outcome, trouble=ended.trouble)

    def _end(self, name: str, model: str, ended: Ended) -> None:
        for ear in self._ears:
            ear.ended(name, model, ended)
        self._ledger.note_ended(name, ended.outcome, ended.trouble, gpu_seconds=ended.gpu_seconds)


def pause(tries: int) -> float:
    """Seconds until the next try, after `tries` tries in vain and one more: twice as long each time, ten minutes at most."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(tries, 20))
