"""Who hears of runs: what the starter says becomes notices in the outbox, on the ways that the model's project names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from mlpipelines.errors import ConfigError
from mlpipelines.evaluation.verdict import Verdict, from_json
from mlpipelines.triggers import notices
from mlpipelines.triggers.channels import Channels
from mlpipelines.triggers.ledger import Ledger, WantedRun
from mlpipelines.triggers.outbox import Outbox
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starter import Ear
from mlpipelines.triggers.starts import Ended

log = structlog.get_logger()


class Telling:
    """Writes notices."""

    def __init__(
        self, outbox: Outbox, channels: Channels, projects: Projects, ledger: Ledger, clock: Callable[[], float] = time.time
    ) -> None:
        self._outbox, self._channels, self._projects, self._ledger, self._clock = outbox, channels, projects, ledger, clock

    def ear(self) -> Ear:
        """What the starter calls."""
        return Ear(started=self._started, ended=self._ended)

    def _started(self, run: WantedRun, address: str) -> None:
        self._put(notices.of_start(run.model, run.name, run.reason, address))

    def _ended(self, name: str, model: str, ended: Ended) -> None:
        self._put(notices.of_end(model, name, self._ledger.reason_of(name), ended, _verdict(ended)))

    def _put(self, notice: notices.Notice) -> None:
        try:
            said = self._projects.require(notice.model).project.notifications
        except ConfigError as error:  # nobody says any more who wants to hear of it
            log.warning("trigger.nobody_to_tell", run=notice.run, error=str(error))
            return
        self._outbox.put(notice, self._channels.wanted(said), self._clock())


def _verdict(ended: Ended) -> Verdict | None:
    """What the run was judged by, where it lies on this machine."""
    file = ended.facts.get("verdict_file")
    try:
        return from_json(Path(file).read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError, TypeError, KeyError):  # a notice without its table is a notice
        return None
