"""From two models' answers to a verdict: the decision of `evaluate`, with nothing around it.

Pure: it reads no file, no clock and no registry. It measures both sides with paired bootstrap intervals, holds them to the
project's rule, and says for every check what was asked and why it passed or not.

A slice or guard passes on *non-inferiority*: the lower end of its difference's interval may not fall below minus the margin,
so that "not shown to be fine" is a failure and not a pass. Slices are many claims at once; their levels follow Holm's
step-down (Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics, 1979): the
clearest of m slices is held to the level / m, the next to the level / (m - 1), and the least clear to the level itself. The
chance that any slice is passed that is in truth worse than its margin then stays below the level, (1 - confidence) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import ConfigError
from mlpipelines.evaluation.answers import Answers, Ids, Truth
from mlpipelines.evaluation.bootstrap import Floats, Interval, Sampled, exceedance_level, interval, sample
from mlpipelines.evaluation.class_scores import class_scores
from mlpipelines.evaluation.metrics import CATALOGUE, metric_values, paired_metrics
from mlpipelines.evaluation.verdict import Check, Estimate, Opponent, Outcome, Score, Verdict, decide, figure, title_of
from mlpipelines.project import Budget, Evaluation, Slices

SEED = 17
"""Of the resamples: the same answers always get the same verdict."""
MIN_OF_EACH_KIND = 10
"""A slice of flags is judged with at least so many rows of either kind."""
_LISTED_SMALL = 5
_MANY_TIMES = 20  # nobody waits for more rows than that
_MISSING = "(missing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What serving the challenger costs."""

    size_mb: float
    latency_ms: float
    """Median of single-row predictions after warming up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """All that a verdict rests on."""

    model: str
    task: str
    truth: Truth
    challenger: Answers
    champion: Answers
    opponent: Opponent
    measured: Measured
    columns: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    """The slice columns of the same rows."""
    unchanged: bool = False
    """Whether the challenger is the champion itself, or answers every row as it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    """A slice that can be judged."""

    name: str
    rows: int
    max_drop: float
    sampled: Sampled
    gains: Floats

    def level(self, gain: float) -> float:
        return exceedance_level(self.gains, gain, -self.max_drop)


def judge(rule: Evaluation, contest: Contest, *, facts: Mapping[str, str] | None = None) -> Verdict:
    """Hold the challenger to the project's rule. `facts` are told along with it.

    Raises:
        ConfigError: the deciding metric or a guard cannot be computed from what the model answers.
    """
    sampled = {
        name: found
        for place, paired in enumerate(paired_metrics(contest.truth, contest.challenger, contest.champion))
        for name, found in sample(paired, resamples=rule.resamples, seed=SEED + place).items()
    }
    _require(rule, sampled)
    checks = [
        _main_check(rule, contest, sampled[rule.metric]),
        *_floor_check(rule, sampled[rule.metric]),
        *(_guard_check(rule, guard.metric, guard.max_drop, sampled[guard.metric], contest) for guard in rule.guards),
        *_slice_checks(rule, contest),
        *_budget_checks(rule.budget, contest.measured),
    ]
    if contest.unchanged:
        checks = [_nothing_new(check) for check in checks]
    outcome: Outcome = decide(checks, unchanged=contest.unchanged)
    return Verdict(
        outcome=outcome,
        title=title_of(outcome, contest.opponent, checks),
        model=contest.model,
        task=contest.task,
        metric=rule.metric,
        opponent=contest.opponent,
        checks=tuple(checks),
        scores=tuple(_score(name, found, rule.confidence) for name, found in _in_catalogue_order(sampled, rule.metric)),
        classes=class_scores(contest.truth, contest.challenger, contest.champion, rule.confidence),
        confidence=rule.confidence,
        facts=facts or {},
    )


def _nothing_new(check: Check) -> Check:
    """A model is neither better nor worse than itself."""
    return replace(check, passed=None, reason="the same answers") if check.difference is not None else check


def _main_check(rule: Evaluation, contest: Contest, found: Sampled) -> Check:
    """The first model must beat its baseline, even where later ones only need not be worse."""
    better = rule.rule == "better" or contest.opponent.kind == "baseline"
    margin = rule.margin if rule.rule == "better" or not better else 0.0
    bound = margin if better else -margin
    score = _score(rule.metric, found, rule.confidence)
    low = score.difference.low if score.difference else None
    words = f"better: interval above {figure(bound)}" if better else f"not worse: interval above {figure(bound)}"
    passed = low is not None and low > bound
    reason = "" if passed else "the metric is not defined on this test set" if low is None else _why_not(score.difference, bound)
    return Check(
        check="metric",
        metric=rule.metric,
        rule=words,
        passed=passed,
        challenger=score.challenger,
        opponent=score.opponent,
        difference=score.difference,
        bound=bound,
        rows=_rows(contest.truth),
        reason=reason,
    )


def _floor_check(rule: Evaluation, found: Sampled) -> list[Check]:
    if rule.floor is None:
        return []
    score = _score(rule.metric, found, rule.confidence)
    higher = CATALOGUE[rule.metric].higher_is_better
    passed = found.challenger >= rule.floor if higher else found.challenger <= rule.floor
    words = f"{'at least' if higher else 'at most'} {figure(rule.floor)}"
    reason = "" if passed else f"{figure(found.challenger)} is not {words}"
    return [Check(check="floor", metric=rule.metric, rule=words, passed=passed, challenger=score.challenger, reason=reason)]


def _guard_check(rule: Evaluation, metric: str, max_drop: float, found: Sampled, contest: Contest) -> Check:
    score = _score(metric, found, rule.confidence)
    low = score.difference.low if score.difference else None
    passed = None if low is None else low >= -max_drop
    undefined = f"{metric} is not defined here, or {contest.opponent.name} does not give it"
    return Check(
        check="guard",
        metric=metric,
        rule=f"no drop: interval above {figure(-max_drop)}",
        passed=passed,
        challenger=score.challenger,
        opponent=score.opponent,
        difference=score.difference,
        bound=-max_drop,
        rows=_rows(contest.truth),
        reason=undefined if passed is None else "" if passed else _why_not(score.difference, -max_drop),
    )


def _slice_checks(rule: Evaluation, contest: Contest) -> list[Check]:
    """Slices that can be judged, least clear first; then those that are too small."""
    judged: list[_Slice] = []
    left_out: list[Check] = []
    for place, wanted in enumerate(rule.slices):
        found, small = _slices_of(wanted, place, rule, contest)
        judged += found
        left_out += small
    sign = _sign(rule.metric)
    ordered = sorted(judged, key=lambda s: (s.level(sign * s.sampled.difference), -sign * s.sampled.difference))
    checks = [_slice_check(rule, found, len(ordered) - place) for place, found in enumerate(ordered)]
    return [*reversed(checks), *left_out]


def _slices_of(wanted: Slices, place: int, rule: Evaluation, contest: Contest) -> tuple[list[_Slice], list[Check]]:
    values = pc.fill_null(contest.columns[wanted.column].cast(pa.string()), _MISSING).combine_chunks().dictionary_encode()
    ids = np.asarray(values.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    names, sizes = values.dictionary.to_pylist(), np.bincount(ids, minlength=len(values.dictionary))
    order = np.argsort(-sizes, kind="stable")
    judged, left_out = [], []
    for value in order[sizes[order] >= wanted.min_rows]:
        name, rows = f"{wanted.column}={names[value]}", np.flatnonzero(ids == value)
        found = _sampled_slice(rule, contest, rows, seed=SEED + 101 * (place + 1) + int(value))
        if isinstance(found, str):
            left_out.append(_not_judged(rule.metric, name, len(rows), found))
        else:
            gains = _sign(rule.metric) * found.difference_samples
            judged.append(_Slice(name=name, rows=len(rows), max_drop=wanted.max_drop, sampled=found, gains=gains))
    small = order[sizes[order] < wanted.min_rows]
    return judged, left_out + _small_slices(wanted, rule.metric, [(names[value], int(sizes[value])) for value in small])


def _sampled_slice(rule: Evaluation, contest: Contest, rows: Ids, seed: int) -> Sampled | str:
    """The deciding metric in a slice, or why it cannot be judged."""
    truth = contest.truth.take(rows)
    if truth.flags is not None and min(truth.flags.sum(), (~truth.flags).sum()) < MIN_OF_EACH_KIND:
        return f"fewer than {MIN_OF_EACH_KIND} rows of one kind"
    families = paired_metrics(truth, contest.challenger.take(rows), contest.champion.take(rows))
    for paired in families:
        if rule.metric in metric_values([paired]):
            found = sample(paired, resamples=rule.resamples, seed=seed, only=rule.metric)[rule.metric]
            return "the metric is not defined here" if math.isnan(found.difference) else found
    return "the metric is not defined here"


def _slice_check(rule: Evaluation, found: _Slice, family: int) -> Check:
    """`family`: how many slices are at most as clear as this one, itself included: Holm's divisor."""
    level = (1 - rule.confidence) / 2 / family
    score = _score(rule.metric, found.sampled, 1 - 2 * level)
    low = score.difference.low if score.difference else None
    passed = None if low is None else low >= -found.max_drop
    overall = interval(found.sampled.challenger_samples, found.sampled.challenger, rule.confidence)
    return Check(
        check="slice",
        slice=found.name,
        metric=rule.metric,
        rule=f"no drop: interval above {figure(-found.max_drop)}",
        passed=passed,
        challenger=_estimate(found.sampled.challenger, overall),
        opponent=score.opponent,
        difference=score.difference,
        bound=-found.max_drop,
        rows=found.rows,
        reason="too few resamples define the metric"
        if passed is None
        else ""
        if passed
        else _why_not(score.difference, -found.max_drop, found.rows),
    )


def _small_slices(wanted: Slices, metric: str, small: Sequence[tuple[str, int]]) -> list[Check]:
    reason = f"fewer than {wanted.min_rows} rows"
    listed = [_not_judged(metric, f"{wanted.column}={name}", rows, reason) for name, rows in small[:_LISTED_SMALL]]
    if rest := small[_LISTED_SMALL:]:
        listed.append(_not_judged(metric, f"{wanted.column}: {len(rest):,} more values", sum(rows for _, rows in rest), reason + " each"))
    return listed


def _not_judged(metric: str, name: str, rows: int, reason: str) -> Check:
    return Check(check="slice", slice=name, metric=metric, rule="", passed=None, rows=rows, reason=reason)


def _budget_checks(budget: Budget, measured: Measured) -> list[Check]:
    return [
        _budget_check("size", "mb", budget.size_mb, measured.size_mb, "MB"),
        _budget_check("latency", "ms", budget.latency_ms, measured.latency_ms, "ms"),
    ]


def _budget_check(kind: str, metric: str, limit: float | None, value: float, unit: str) -> Check:
    passed = None if limit is None else value <= limit
    return Check(
        check="size" if kind == "size" else "latency",
        metric=metric,
        rule="no limit" if limit is None else f"at most {limit:g} {unit}",
        passed=passed,
        challenger=Estimate(value=value),
        reason="no limit is set" if passed is None else "" if passed else f"{figure(value)} {unit} is above {limit:g} {unit}",
    )


def _score(metric: str, found: Sampled, confidence: float) -> Score:
    sign = _sign(metric)
    gain = sign * found.difference
    gap = None if math.isnan(gain) else _estimate(gain, interval(sign * found.difference_samples, gain, confidence))
    return Score(
        metric=metric,
        higher_is_better=sign > 0,
        challenger=_estimate(found.challenger, interval(found.challenger_samples, found.challenger, confidence)),
        opponent=None if math.isnan(found.champion) else found.champion,
        difference=gap,
    )


def _why_not(difference: Estimate | None, bound: float, rows: int | None = None) -> str:
    """Worse, or only not shown; for a slice, about how many rows would show it if the difference stays what it is."""
    if difference is None or difference.low is None or difference.high is None:
        return "not defined"
    if difference.high < bound:
        return f"the whole interval lies below {figure(bound)}"
    reason = f"not shown: the interval reaches {figure(difference.low)}"
    if rows is not None and difference.value > bound:
        needed = rows * ((difference.value - difference.low) / (difference.value - bound)) ** 2
        if needed < _MANY_TIMES * rows:
            reason += f"; about {math.ceil(needed / 100) * 100:,} rows would show it if the difference stays"
    return reason


def _require(rule: Evaluation, sampled: Mapping[str, Sampled]) -> None:
    for field_name, metric in (("metric", rule.metric), *((f"guards.{i}.metric", guard.metric) for i, guard in enumerate(rule.guards))):
        if metric not in sampled:
            raise ConfigError(
                f"evaluation.{field_name} is {metric!r}, which this model's answers do not allow (they allow {', '.join(sampled)}). "
                "Choose one of these in project.yaml; docs/reference/metrics.md says what each needs."
            )


def _in_catalogue_order(sampled: Mapping[str, Sampled], first: str) -> list[tuple[str, Sampled]]:
    names = [first, *(name for name in CATALOGUE if name != first)]
    return [(name, sampled[name]) for name in names if name in sampled]


def _estimate(value: float, bounds: Interval | None) -> Estimate:
    return Estimate(value=value) if bounds is None else Estimate(value=value, low=bounds.low, high=bounds.high)


def _sign(metric: str) -> int:
    return 1 if CATALOGUE[metric].higher_is_better else -1


def _rows(truth: Truth) -> int:
    return next(len(values) for values in (truth.ids, truth.flags, truth.many, truth.values) if values is not None)
