"""Whether a cause starts a retraining: the rule, and nothing else.

A cause (an alert, a date in the calendar, new rows, new code) meets the model's policy and what has happened so far, and comes out
as a decision: start, or suppress for one named reason. The decision is written down before anything is started
(`triggers.ledger`), and a run's name is made from its cause, so the same cause never makes two runs, whoever asks, how often and after
which crash. Pure: no clock, no database.

The order of the questions is the order in which their answers help a person: what was done already, what somebody forbade,
what is under way, what must wait, what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256

_SHOWN_OF_HASH = 10
_HOUR = 3600.0


class Signal(StrEnum):
    """What a cause tells of."""

    DRIFT = "drift"
    """The rows that come in are not like those that were trained on."""
    QUALITY = "quality"
    """Accuracy, or another metric, fell once labels arrived."""
    CORRECTIONS = "corrections"
    """Reviewers disagree with the model."""
    CALENDAR = "calendar"
    NEW_DATA = "new-data"
    NEW_CODE = "new-code"
    BY_HAND = "by-hand"
    """A person wants it now: neither cooldown, budget nor labels hold it back. A freeze and a run that goes on do."""


ALERTED = frozenset(Signal) - {Signal.BY_HAND, Signal.CALENDAR}
"""What an alert may tell of."""


class Reason(StrEnum):
    """Why a cause started nothing, or that it did."""

    STARTED = "started"
    RESOLVED = "resolved"
    DUPLICATE = "duplicate"
    UNKNOWN_MODEL = "unknown-model"
    NOT_WANTED = "not-wanted"
    FROZEN = "frozen"
    RUN_OPEN = "run-open"
    ROLLOUT_OPEN = "rollout-open"
    COOLDOWN = "cooldown"
    BUDGET_SPENT = "budget-spent"
    TOO_FEW_LABELS = "too-few-labels"
    MISSED = "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Something that may be a reason to train a model again."""

    model: str
    signal: Signal
    fingerprint: str
    """Which condition: an alert's fingerprint, a schedule's name, a hash of rows or code."""
    starts_at: float
    """When this occurrence of it began, in seconds since 1970. A condition that goes and comes back is a new occurrence."""
    firing: bool = True
    """False: it is over."""
    summary: str = ""
    """For people."""
    late: bool = False
    """A date in the calendar at which nobody was there to act."""

    @property
    def key(self) -> str:
        """One text for one occurrence, however often it is told: what makes a start happen once."""
        said = f"{self.model}\n{self.signal}\n{self.fingerprint}\n{self.starts_at:.3f}"
        return sha256(said.encode()).hexdigest()

    @property
    def run_name(self) -> str:
        """The name of the run that this cause may start."""
        return f"{self.model}-{self.signal}-{self.key[:_SHOWN_OF_HASH]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a model may be trained again. `Project.retraining` says it."""

    signals: frozenset[Signal] = frozenset(Signal)
    cooldown: float = 6 * 3600.0
    """Seconds between two starts."""
    budget_runs: int = 7
    """Starts within `budget_period`."""
    budget_gpu_seconds: float | None = None
    """GPUs times seconds that runs may hold within `budget_period`; None: as much as they like."""
    budget_period: float = 7 * 86_400.0
    """Seconds."""
    min_new_labels: int = 0
    """Rows with a label that the last training had not seen, for the signals in `need_labels`."""
    run_missed: bool = False
    """Whether a date in the calendar that was missed still counts."""
    need_labels: frozenset[Signal] = frozenset({Signal.DRIFT, Signal.QUALITY, Signal.CORRECTIONS})
    """Training again on the rows of last time changes nothing: these signals wait for new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start that was decided on before, whether or not its run went well."""

    key: str
    at: float
    run_name: str
    open: bool = False
    """Its run has not ended, as far as is known."""
    gpu_seconds: float | None = 0.0
    """GPUs times seconds that its run held; None where nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Somebody wants no retraining of a model for now."""

    by: str
    why: str
    until: float | None = None
    """None: until it is lifted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known when a cause comes in."""

    policy: Policy | None
    """None: no such model."""
    starts: Sequence[Start] = ()
    """In any order; those of the budget's period and the last one are enough."""
    open_run: str = ""
    """A run of this model that somebody else started and that has not ended."""
    open_rollout: str = ""
    """The run whose version is a canary at the moment."""
    new_labels: int = 0
    freeze: Freeze | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one cause."""

    reason: Reason
    text: str
    """One sentence for people."""
    evidence: Mapping[str, object] = field(default_factory=dict)
    """The numbers that it rests on."""
    again_at: float | None = None
    """When the same cause would get another answer by time alone, in seconds since 1970."""

    @property
    def starts(self) -> bool:
        """Whether a run is to be started."""
        return self.reason is Reason.STARTED


def decide(cause: Cause, situation: Situation, now: float) -> Decision:
    """Start a retraining because of `cause`, or say why not. `now` in seconds since 1970.

    The same cause and situation give the same decision. At most one start comes of one `cause.key`, provided that every start
    is among `situation.starts` when the next decision on the model is made.
    """
    policy = situation.policy
    if not cause.firing:
        return Decision(reason=Reason.RESOLVED, text=f"{cause.signal} of {cause.model} is over; nothing is started for it.")
    if policy is None:
        return Decision(
            reason=Reason.UNKNOWN_MODEL,
            text=f"No project here trains {cause.model!r}. See which do: millrace models; the alert's label `model` must be one of them.",
        )
    return (
        _already(cause, situation)
        or _forbidden(cause, policy, situation, now)
        or _under_way(cause, situation)
        or (None if cause.signal is Signal.BY_HAND else _too_soon(cause, policy, situation, now) or _missing(cause, policy, situation))
        or Decision(
            reason=Reason.STARTED,
            text=f"{cause.run_name} is started because of {cause.signal}{_told(cause)}.",
            evidence={"run": cause.run_name, "new_labels": situation.new_labels},
        )
    )


def _already(cause: Cause, situation: Situation) -> Decision | None:
    before = next((start for start in situation.starts if start.key == cause.key), None)
    if before is None:
        return None
    return Decision(
        reason=Reason.DUPLICATE,
        text=f"This {cause.signal} of {cause.model}, since {_utc(cause.starts_at)}, started {before.run_name} at {_utc(before.at)} already.",
        evidence={"run": before.run_name, "started": before.at},
    )


def _forbidden(cause: Cause, policy: Policy, situation: Situation, now: float) -> Decision | None:
    freeze = situation.freeze
    if freeze is not None and (freeze.until is None or now < freeze.until):
        lasting = f"until {_utc(freeze.until)}" if freeze.until is not None else f"until somebody lifts it: millrace thaw {cause.model}"
        return Decision(
            reason=Reason.FROZEN,
            text=f"{freeze.by} froze the training of {cause.model} ({freeze.why}) {lasting}.",
            evidence={"by": freeze.by, "until": freeze.until},
            again_at=freeze.until,
        )
    if cause.signal is Signal.BY_HAND:
        return None
    if cause.late and not policy.run_missed:
        return Decision(
            reason=Reason.MISSED,
            text=f"{cause.model} was due at {_utc(cause.starts_at)} and nobody was there to start it; it waits for its next date (schedule.missed).",
            evidence={"due": cause.starts_at},
        )
    if cause.signal not in policy.signals:
        wanted = ", ".join(sorted(policy.signals)) or "nothing"
        return Decision(
            reason=Reason.NOT_WANTED,
            text=f"{cause.model} is not trained again because of {cause.signal}, only because of {wanted} (project.yaml: retraining.signals).",
        )
    return None


def _under_way(cause: Cause, situation: Situation) -> Decision | None:
    run = situation.open_run or next((start.run_name for start in situation.starts if start.open), "")
    if not run and situation.open_rollout and cause.signal is not Signal.BY_HAND:
        return Decision(
            reason=Reason.ROLLOUT_OPEN,
            text=(
                f"What {situation.open_rollout} brought is the canary of {cause.model} at the moment; how that ends is seen first. "
                f"Watch it: millrace rollout status {cause.model}"
            ),
            evidence={"run": situation.open_rollout},
        )
    if not run:
        return None
    return Decision(
        reason=Reason.RUN_OPEN,
        text=f"{run} trains {cause.model} at the moment; what it brings is judged first. Watch it: millrace runs --show {run}",
        evidence={"run": run},
    )


def _too_soon(cause: Cause, policy: Policy, situation: Situation, now: float) -> Decision | None:
    times = sorted(start.at for start in situation.starts)
    if times and now < times[-1] + policy.cooldown:
        again = times[-1] + policy.cooldown
        return Decision(
            reason=Reason.COOLDOWN,
            text=f"{cause.model} was last started at {_utc(times[-1])}; the next may come from {_utc(again)} on (retraining.cooldown).",
            evidence={"last": times[-1], "cooldown_seconds": policy.cooldown},
            again_at=again,
        )
    return _runs_spent(cause, policy, times, now) or _gpu_hours_spent(cause, policy, situation, now)


def _runs_spent(cause: Cause, policy: Policy, times: Sequence[float], now: float) -> Decision | None:
    recent = [at for at in times if at > now - policy.budget_period]
    if len(recent) >= policy.budget_runs:
        free_at = recent[-policy.budget_runs] + policy.budget_period if policy.budget_runs else None
        when = f"from {_utc(free_at)} on" if free_at is not None else "once the budget allows any"
        return Decision(
            reason=Reason.BUDGET_SPENT,
            text=f"{cause.model} had {len(recent)} of its {policy.budget_runs} starts in {_days(policy.budget_period)}; the next may come {when}.",
            evidence={"starts": len(recent), "budget": policy.budget_runs, "period_seconds": policy.budget_period},
            again_at=free_at,
        )
    return None


def _gpu_hours_spent(cause: Cause, policy: Policy, situation: Situation, now: float) -> Decision | None:
    """What is not known is not nothing: a run whose GPU time nobody could see holds the next one back, too."""
    budget = policy.budget_gpu_seconds
    if budget is None:
        return None
    recent = sorted((start for start in situation.starts if start.at > now - policy.budget_period), key=lambda start: start.at)
    unseen = [start for start in recent if start.gpu_seconds is None]
    spent = sum(start.gpu_seconds or 0.0 for start in recent)
    evidence = {"gpu_hours": spent / _HOUR, "budget_gpu_hours": budget / _HOUR, "period_seconds": policy.budget_period}
    if unseen:
        last = unseen[-1].at + policy.budget_period
        return Decision(
            reason=Reason.BUDGET_SPENT,
            text=(
                f"How long {unseen[-1].run_name} held GPUs is not known, so {cause.model} cannot be held to its {_hours(budget)} GPU hours in "
                f"{_days(policy.budget_period)}; the next may come from {_utc(last)} on. The trigger must see the workspace (helm: workspace.claim)."
            ),
            evidence={**evidence, "unseen": unseen[-1].run_name},
            again_at=last,
        )
    if spent < budget:
        return None
    left, free_at = spent, now
    for start in recent:
        left -= start.gpu_seconds or 0.0
        if left < budget:
            free_at = start.at + policy.budget_period
            break
    return Decision(
        reason=Reason.BUDGET_SPENT,
        text=(
            f"{cause.model} held GPUs for {_hours(spent)} of its {_hours(budget)} GPU hours in {_days(policy.budget_period)}; "
            f"the next may come from {_utc(free_at)} on."
        ),
        evidence=evidence,
        again_at=free_at,
    )


def _missing(cause: Cause, policy: Policy, situation: Situation) -> Decision | None:
    if cause.signal not in policy.need_labels or situation.new_labels >= policy.min_new_labels:
        return None
    return Decision(
        reason=Reason.TOO_FEW_LABELS,
        text=(
            f"{cause.model} has {situation.new_labels} rows with labels that it was not trained on, and {policy.min_new_labels} are needed "
            f"(retraining.min_new_labels). Labels come from POST /v1/labels, millrace labels import and the review page."
        ),
        evidence={"new_labels": situation.new_labels, "needed": policy.min_new_labels},
    )


def _told(cause: Cause) -> str:
    return f": {cause.summary.rstrip('.')}" if cause.summary else ""


def _hours(seconds: float) -> str:
    return f"{seconds / _HOUR:.3g}"


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:g} days"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
