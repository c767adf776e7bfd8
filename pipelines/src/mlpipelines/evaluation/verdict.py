"""The verdict: what was checked of a challenger, what came out, and the decision that follows.

One frozen value, made by `judge.py`, that everybody is told from: the terminal (`verdict_table.py`), the page
(`verdict_page.py`), MLflow and Kubeflow (its JSON). It is blessed if no check failed; a check that could not be judged says
why and does not stand in the way.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["blessed", "rejected", "unchanged"]
Kind = Literal["metric", "floor", "guard", "slice", "size", "latency"]
BUDGETS: Mapping[str, str] = {"size": "MB", "latency": "ms"}
"""The checks of what serving costs, and their units."""
_MANY_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its confidence interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return figure(self.value) + (
            f" [{figure(self.low)}, {figure(self.high)}]" if self.low is not None and self.high is not None else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that had to hold."""

    check: Kind
    metric: str
    rule: str
    """What had to hold, in words."""
    passed: bool | None
    """None: could not be judged, and `reason` says why."""
    challenger: Estimate | None = None
    opponent: float | None = None
    difference: Estimate | None = None
    """Challenger against opponent, signed so that above 0 is better, whichever way the metric counts."""
    bound: float | None = None
    """What the whole interval of the difference must lie above."""
    slice: str = ""
    rows: int = 0
    reason: str = ""

    @property
    def subject(self) -> str:
        """What was checked, short: `guard macro_f1`, `slice team=fleet`."""
        return {"metric": self.metric, "slice": f"slice {self.slice}", "size": "size", "latency": "latency"}.get(
            self.check, f"{self.check} {self.metric}"
        )

    @property
    def challenger_text(self) -> str:
        """The challenger's number, with its interval or its unit."""
        return "" if self.challenger is None else f"{self.challenger} {BUDGETS.get(self.check, '')}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric of both sides over the whole test set, for the reader; nothing is decided by it."""

    metric: str
    higher_is_better: bool
    challenger: Estimate
    opponent: float | None = None
    difference: Estimate | None = None
    """Signed so that above 0 is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class of the test set."""

    name: str
    rows: int
    precision: Estimate | None
    recall: Estimate | None
    f1: float | None
    opponent_f1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opponent:
    """Whom the challenger was held against."""

    kind: Literal["champion", "baseline"]
    name: str
    """As a sentence says it: `champion version 3`, `the baseline 'most frequent class'`."""
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision about one challenger, and all that it rests on."""

    outcome: Outcome
    title: str
    """One sentence for people."""
    model: str
    task: str
    metric: str
    opponent: Opponent
    checks: tuple[Check, ...]
    scores: tuple[Score, ...]
    classes: tuple[ClassScore, ...] = ()
    confidence: float = 0.95
    facts: Mapping[str, str] = field(default_factory=dict)
    """About data, model and run, in the order of the page."""

    @property
    def blessed(self) -> bool:
        """Whether it is registered and published."""
        return self.outcome == "blessed"

    @property
    def metrics(self) -> dict[str, float]:
        """The challenger's numbers, for MLflow and Kubeflow; what is not defined is left out."""
        values = {score.metric: score.challenger.value for score in self.scores}
        values |= {f"{c.check}_{c.metric}": c.challenger.value for c in self.checks if c.check in BUDGETS and c.challenger}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that stand in the way."""
        return tuple(check for check in self.checks if check.passed is False)


def decide(checks: Sequence[Check], *, unchanged: bool) -> Outcome:
    """The rule: what answers as the champion does is nothing new; else any failed check rejects."""
    if unchanged:
        return "unchanged"
    return "rejected" if any(check.passed is False for check in checks) else "blessed"


def title_of(outcome: Outcome, opponent: Opponent, checks: Sequence[Check]) -> str:
    """The sentence that people read first. The first check is the deciding metric."""
    main = checks[0]
    if outcome == "unchanged":
        return f"Unchanged: this model answers every test row as {opponent.name} does; {main.metric} {main.challenger}"
    against = "" if main.opponent is None else f" {figure(main.opponent)}"
    verb = ("beats" if main.rule.startswith("better") else "is not worse than") if main.passed else "does not beat"
    if not main.passed and not main.rule.startswith("better"):
        verb = "is not shown to be as good as"
    sentence = f"{outcome.capitalize()}: {main.metric} {main.challenger} {verb} {opponent.name}{against}"
    if main.difference is not None:
        sentence += f" by {main.difference}" if verb == "beats" else f", difference {main.difference}"
    return sentence + _failures_in_words([check for check in checks[1:] if check.passed is False], main.passed)


def _failures_in_words(failed: Sequence[Check], main_passed: bool | None) -> str:
    if not failed:
        return ""
    named = ", ".join(check.subject for check in failed[:_MANY_FAILURES])
    more = f" and {len(failed) - _MANY_FAILURES} more" if len(failed) > _MANY_FAILURES else ""
    joint = ", but" if main_passed else "; also"
    return f"{joint} {len(failed)} other {'check fails' if len(failed) == 1 else 'checks fail'}: {named}{more}"


def figure(value: float | None) -> str:
    """A number as people read it: three decimals below 10, fewer above, and − for minus."""
    if value is None or math.isnan(value):
        return "–"
    value += 0.0  # -0.0 is no news
    size = abs(value)
    text = f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"  # noqa: PLR2004  # where digits stop telling
    if size and float(text.replace(",", "")) == 0:
        text = f"{value:.1e}"
    return text.replace("-", "−")


def to_json(verdict: Verdict) -> str:
    """The verdict as JSON, with `blessed` and a flat `metrics` beside its fields."""
    values = dataclasses.asdict(verdict) | {"blessed": verdict.blessed, "metrics": verdict.metrics}
    return json.dumps(_without_nan(values), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Verdict:
    """The inverse of `to_json`."""
    values = json.loads(text)
    del values["blessed"], values["metrics"]
    return Verdict(
        **values
        | {
            "opponent": Opponent(**values["opponent"]),
            "checks": tuple(Check(**_with_estimates(row, "challenger", "difference")) for row in values["checks"]),
            "scores": tuple(Score(**_with_estimates(row, "challenger", "difference")) for row in values["scores"]),
            "classes": tuple(ClassScore(**_with_estimates(row, "precision", "recall")) for row in values["classes"]),
        }
    )


def _with_estimates(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: _estimate(value) if name in names else value for name, value in row.items()}


def _estimate(value: Any) -> Estimate | None:
    if value is None:
        return None
    return Estimate(value=float("nan") if value["value"] is None else value["value"], low=value["low"], high=value["high"])


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return value
