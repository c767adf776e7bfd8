"""Who hears of runs and rollouts: what the starter and the roller say becomes notices in the outbox, on the ways that the model's project names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from mlpipelines.errors import ConfigError
from mlpipelines.evaluation.verdict import Verdict, from_json
from mlpipelines.project import Project
from mlpipelines.triggers import notices, roller
from mlpipelines.triggers.channels import Channels
from mlpipelines.triggers.ledger import Ledger, WantedRun
from mlpipelines.triggers.outbox import Outbox
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.rollout_notices import of_rollout
from mlpipelines.triggers.rollouts import Wanted
from mlpipelines.triggers.starter import Ear
from mlpipelines.triggers.starts import Ended
from mlserving.rollout.plan import Rollout

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

    def rollout_ear(self) -> roller.Ear:
        """What the roller calls."""
        return roller.Ear(moved=self._moved)

    def _started(self, run: WantedRun, address: str) -> None:
        self._put(notices.of_start(run.model, run.name, run.reason, address))

    def _ended(self, name: str, model: str, ended: Ended) -> None:
        project = self._project(model)
        onward = _onward(project) if project is not None else ""
        self._put(notices.of_end(model, name, self._ledger.reason_of(name), ended, _verdict(ended), onward=onward))

    def _moved(self, row: Wanted, rollout: Rollout) -> None:
        notice = of_rollout(row.run, self._ledger.reason_of(row.run), rollout)
        if notice is not None:
            self._put(notice)

    def _put(self, notice: notices.Notice) -> None:
        project = self._project(notice.model)
        if project is not None:
            self._outbox.put(notice, self._channels.wanted(project.notifications), self._clock())

    def _project(self, model: str) -> Project | None:
        try:
            return self._projects.require(model).project
        except ConfigError as error:  # nobody says any more who wants to hear of it
            log.warning("trigger.nobody_to_tell", model=model, error=str(error))
            return None


def _onward(project: Project) -> str:
    """What comes next for a version of this project that is published."""
    if project.deployment.track == "stable":
        return ""
    if project.retraining.rollout == "automatic":
        return "Its rollout is started next."
    return "It answers nobody until somebody types: millrace rollout start PROJECT_DIR."


def _verdict(ended: Ended) -> Verdict | None:
    """What the run was judged by, where it lies on this machine."""
    file = ended.facts.get("verdict_file")
    try:
        return from_json(Path(file).read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError, TypeError, KeyError):  # a notice without its table is a notice
        return None
