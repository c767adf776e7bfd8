"""What the trigger tells Prometheus: decisions, runs, and how old what it knows is. Names begin with `millrace_trigger_`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mlpipelines.triggers import roller
from mlpipelines.triggers.decide import Cause, Decision, Reason
from mlpipelines.triggers.facts import Look
from mlpipelines.triggers.ledger import Ledger, WantedRun
from mlpipelines.triggers.outbox import Waiting
from mlpipelines.triggers.starter import Ear
from mlpipelines.triggers.starts import Ended

FAILURES = frozenset({"failed", "killed", "lost", "refused"})
"""Outcomes that somebody should look at. A model or data that were rejected are the gate at work."""
_PREFIX = "millrace_trigger_"
_DAY = 86_400.0
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._models: set[str] = set()
        self._decisions = Counter(_PREFIX + "decisions", "Causes decided on.", ["model", "signal", "reason"], registry=registry)
        self.refused = Counter(_PREFIX + "refused_requests", "Requests without a decision.", ["why"], registry=registry)
        self.unread = Counter(_PREFIX + "unread_alerts", "Alerts without the labels model and signal.", registry=registry)
        self.seconds = Histogram(_PREFIX + "answer_seconds", "Until a message was answered.", buckets=_BUCKETS, registry=registry)
        self._started = Counter(_PREFIX + "started_runs", "Runs that were started.", ["model"], registry=registry)
        self._not_started = Counter(_PREFIX + "failed_starts", "Tries to start a run that failed.", ["model"], registry=registry)
        self._ended = Counter(_PREFIX + "ended_runs", "Runs that ended, by how.", ["model", "outcome"], registry=registry)
        self._wanted = Gauge(_PREFIX + "wanted_runs", "Runs that were decided on and have not been started.", registry=registry)
        self._oldest = Gauge(
            _PREFIX + "oldest_wanted_timestamp_seconds", "When the oldest of them was decided on; 0 for none.", registry=registry
        )
        self._failed = Gauge(
            _PREFIX + "last_run_failed", "1 where the last run of a model that ended failed.", ["model"], registry=registry
        )
        self._stale_after = Gauge(
            _PREFIX + "stale_after_seconds", "Without a training for so long, a model is stale.", ["model"], registry=registry
        )
        self._notices = Gauge(_PREFIX + "waiting_notices", "Notices that have not been sent.", registry=registry)
        self._oldest_notice = Gauge(
            _PREFIX + "oldest_notice_timestamp_seconds", "When the oldest of them was written; 0 for none.", registry=registry
        )
        self._given_up = Gauge(_PREFIX + "lost_notices", "Notices that could not be sent for a day.", registry=registry)
        self._open = Gauge(_PREFIX + "open_runs", "Runs that were started and go on.", registry=registry)
        self._trained = Gauge(
            _PREFIX + "last_training_timestamp_seconds", "When the last training of a model began.", ["model"], registry=registry
        )
        self._rollouts = Counter(
            _PREFIX + "rollout_phases", "Phases that rollouts of the trigger's runs came into.", ["model", "phase"], registry=registry
        )
        self._rollout_due = Gauge(
            _PREFIX + "rollout_due_timestamp_seconds",
            "When the open rollout of a model is, or was, to be judged next; none where there is none.",
            ["model"],
            registry=registry,
        )
        self._due: set[str] = set()
        self._looked = Gauge(_PREFIX + "look_timestamp_seconds", "When a model was last looked at.", ["model"], registry=registry)
        self.turned = Gauge(
            _PREFIX + "turn_timestamp_seconds", "When a part of the trigger last did its round.", ["part"], registry=registry
        )

    def looked_at(self, look: Look) -> None:
        """What a look saw of a model."""
        model, project = look.trained.project.model_name, look.trained.project
        self._models.add(model)
        self._looked.labels(model).set(look.at)
        if look.training is not None:
            self._trained.labels(model).set(look.training.at)
        if (days := project.retraining.stale_days) is not None:
            self._stale_after.labels(model).set(days * _DAY)

    def only(self, models: Collection[str]) -> None:
        """Say no more of other models: an alert about one that is gone would never end."""
        for gone in self._models - set(models):
            for gauge in (self._looked, self._trained, self._stale_after):
                with suppress(KeyError):  # it may never have been set
                    gauge.remove(gone)
        self._models &= set(models)

    def notices(self, waiting: Waiting) -> None:
        """What has not been sent."""
        self._notices.set(waiting.count)
        self._oldest_notice.set(waiting.oldest)
        self._given_up.set(waiting.given_up)

    def rollouts(self, due: Mapping[str, float]) -> None:
        """When each open rollout is due, by model."""
        for gone in self._due - due.keys():
            self._rollout_due.remove(gone)
        for model, at in due.items():
            self._rollout_due.labels(model).set(at)
        self._due = set(due)

    def rollout_ear(self) -> roller.Ear:
        """What counts the phases of rollouts."""
        return roller.Ear(moved=lambda row, rollout: self._rollouts.labels(row.model, rollout.phase).inc())

    def decided(self, cause: Cause, decision: Decision) -> None:
        """Count a decision. Models that nobody trains are one: strangers make up names."""
        model = "" if decision.reason is Reason.UNKNOWN_MODEL else cause.model
        self._decisions.labels(model, cause.signal, decision.reason).inc()

    def ear(self) -> Ear:
        """What counts starts and ends."""

        def started(run: WantedRun, _address: str) -> None:
            self._started.labels(run.model).inc()

        def failed(run: WantedRun, _why: str) -> None:
            self._not_started.labels(run.model).inc()

        def ended(_name: str, model: str, how: Ended) -> None:
            self._ended.labels(model, how.outcome).inc()

        return Ear(started=started, failed=failed, ended=ended)

    def take_stock(self, ledger: Ledger) -> None:
        """What the ledger holds now.

        Raises:
            Unavailable: it does not answer.
        """
        wanted = ledger.wanted()
        self._wanted.set(len(wanted))
        self._oldest.set(wanted[0].decided_at if wanted else 0.0)
        self._open.set(len(ledger.open_runs()))
        for model, outcome in ledger.last_outcomes().items():
            self._failed.labels(model).set(outcome in FAILURES)
