"""What a rollout is: the plan that a project states, and the state that says how far it has come.

Both are plain data. The state lies with what it steers (the workspace's `serving/<model>.yaml`, or the values of a helm release), holds the
plan it was started with, and is all that anybody needs to go on: another shell, another machine, a CronJob. `decide` reads it,
`states` says what follows from a decision.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ALL = 100.0
"""Percent."""
_FEWEST_STEPS = 2


class Part(BaseModel):
    """A part of the plan or of the state. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Limits(Part):
    """How much worse than stable the canary may be, and how sure one must be before it is called worse."""

    error_rate: float = Field(default=0.01, ge=0, lt=1)
    """The canary's share of failed requests may lie so much above stable's (0.01: one percentage point)."""
    latency_ratio: float | None = Field(default=1.5, ge=1)
    """The canary's p99 may be so many times stable's. None: not judged."""
    latency_slack_ms: float = Field(default=5.0, ge=0)
    """A p99 that lies less than so many milliseconds above stable's is never too slow, whatever the ratio."""
    latency_ms: float | None = Field(default=None, gt=0)
    """The canary's p99 may be at most this, whatever stable's is. None: any."""
    distance: float | None = Field(default=0.1, gt=0, le=1)
    """Total variation distance between the classes that the two predict: half the sum of the differences of shares. None: not judged."""
    confidence: float = Field(default=0.99, ge=0.5, lt=1)
    """A canary that is no worse than stable gets through the whole rollout without being aborted with at least this probability."""


class Plan(Part):
    """How a new version takes over from the old one: by which steps, when to go on, and what stops it."""

    steps: tuple[float, ...] = (1.0, 10.0, 50.0, 100.0)
    """Percent of the requests that the canary answers, rising to 100. 100 is the promotion; the others are judged."""
    min_requests: int = Field(default=500, ge=1)
    """Requests that the canary must have answered in a step before the next one."""
    min_seconds: float = Field(default=300.0, ge=0)
    """A step lasts at least so long: some faults show only with time."""
    max_seconds: float = Field(default=86_400.0, gt=0)
    """A step that has not been passed after so long waits for a person. It is not aborted: nothing was shown against the canary."""
    first_look: int = Field(default=50, ge=30)
    """Nothing is judged on fewer of the canary's requests than this."""
    every_seconds: float = Field(default=15.0, gt=0)
    """How often `millrace rollout run` looks."""
    keep_warm_seconds: float = Field(default=3600.0, ge=0)
    """How long the old version stays loaded after the promotion, so that a rollback only moves weights."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _steps_rise_to_all(self) -> Self:
        if len(self.steps) < _FEWEST_STEPS or self.steps[-1] != ALL or self.steps[0] <= 0 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps {list(self.steps)} must rise from above 0 and end with 100, with a share to be judged before it")
        if self.max_seconds < self.min_seconds:
            raise ValueError("max_seconds is shorter than min_seconds")
        return self

    @property
    def judged(self) -> int:
        """How many steps are judged: all but the last, in which nobody is left to compare with."""
        return len(self.steps) - 1


class Approval(Part):
    """Whether a person must agree before a version takes all requests, and who may."""

    required: bool = False
    """Wait for `millrace rollout approve` before the last step."""
    approvers: tuple[str, ...] = ()
    """Who may approve. Empty: anybody."""
    two_person: bool = False
    """Whoever started the rollout may not approve it."""

    @model_validator(mode="after")
    def _somebody_can(self) -> Self:
        if self.two_person and not self.required:
            raise ValueError("two_person has no meaning without required: true")
        return self


class Phase(StrEnum):
    """Where a rollout stands."""

    STARTING = "starting"
    """The canary is being loaded and takes no requests."""
    CANARY = "canary"
    """The canary answers its share and is judged."""
    HOLDING = "holding"
    """As canary, and the step has lasted longer than planned: a person should look."""
    AWAITING_APPROVAL = "awaiting_approval"
    """Every step is passed; a person must agree."""
    PROMOTING = "promoting"
    """The new version answers everything as canary; the old one is warm and answers nothing."""
    DONE = "done"
    """The new version is stable and the old one is gone."""
    ABORTED = "aborted"
    """Stable answers everything; the canary never took over."""
    ROLLED_BACK = "rolled_back"
    """The old version answers everything again."""


JUDGED = frozenset({Phase.CANARY, Phase.HOLDING, Phase.AWAITING_APPROVAL})
OPEN = JUDGED | {Phase.STARTING, Phase.PROMOTING}


class Verdict(StrEnum):
    """What a comparison shows."""

    OK = "ok"
    """The difference seen lies within the limit."""
    UNCLEAR = "unclear"
    """It lies beyond the limit, and chance can explain that."""
    WORSE = "worse"
    """It lies beyond the limit, and chance does not explain it."""


class Check(Part):
    """One comparison of canary and stable."""

    name: str
    verdict: Verdict
    canary: float | None = None
    stable: float | None = None
    difference: float | None = None
    """As the limit counts it: of shares, of milliseconds, or a distance."""
    low: float | None = None
    """The difference is at least this, with the confidence of the look."""
    limit: float | None = None
    says: str
    """In words."""


class Judgement(Part):
    """What was decided at one moment, and on what grounds."""

    time: float
    """Seconds since 1970."""
    weight: float
    decision: str
    reason: str
    canary_requests: int = 0
    stable_requests: int = 0
    checks: tuple[Check, ...] = ()
    """Empty where too little was new for another look."""


class Approved(Part):
    """Somebody's yes."""

    by: str
    time: float
    reason: str = ""


class Rollout(Part):
    """The state: one version on its way to take over from another."""

    id: str
    model: str
    from_version: int
    to_version: int
    plan: Plan
    approval: Approval = Approval()
    phase: Phase = Phase.STARTING
    started: float
    started_by: str
    reason: str = ""
    """Why it was started."""
    step: int = 0
    """Index in the plan's steps."""
    step_started: float | None = None
    """When the counting of the step began; None until it has."""
    baseline: dict[str, Any] | None = None
    """What the gateways had counted by then."""
    looks: int = 0
    """How many times this step was judged."""
    looked_at: int = 0
    """How many requests of the canary the last look saw."""
    ready_look: bool = False
    """Whether the last look was taken with requests and time enough to go on."""
    verdict: Verdict | None = None
    """Of the last look."""
    approvals: tuple[Approved, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    """The newest last; the oldest are forgotten here and remain in the audit log."""
    promoted: float | None = None
    ended: float | None = None
    ended_because: str = ""

    @property
    def weight(self) -> float:
        """Percent of the requests that the canary should answer now."""
        match self.phase:
            case Phase.PROMOTING | Phase.DONE:
                return ALL
            case Phase.CANARY | Phase.HOLDING | Phase.AWAITING_APPROVAL:
                return self.plan.steps[self.step]
            case _:
                return 0.0

    @property
    def open(self) -> bool:
        """Whether something is still to come."""
        return self.phase in OPEN

    @property
    def approved(self) -> bool:
        """Whether nobody need be asked any more."""
        return not self.approval.required or bool(self.approvals)

    @property
    def warm_until(self) -> float | None:
        """Until when the old version stays loaded after the promotion."""
        return None if self.promoted is None else self.promoted + self.plan.keep_warm_seconds
