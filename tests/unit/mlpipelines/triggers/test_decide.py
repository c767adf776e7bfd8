"""Whether a cause starts a retraining."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpipelines.triggers.decide import Cause, Decision, Freeze, Policy, Reason, Signal, Situation, Start, decide

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86_400.0
DRIFT = Cause(model="scam", signal=Signal.DRIFT, fingerprint="f1", starts_at=NOW - 60, summary="amount drifted: 0.31 > 0.12.")
POLICY = Policy(min_new_labels=100)


def a_situation(*starts: Start, policy: Policy | None = POLICY, new_labels: int = 500, **facts: object) -> Situation:
    return replace(Situation(policy=policy, starts=starts, new_labels=new_labels), **facts)  # type: ignore[arg-type]  # by name, as the test says them


def a_start(at: float, key: str = "other", *, open_: bool = False) -> Start:
    return Start(key=key, at=at, run_name=f"scam-{key}", open=open_)


def test_a_cause_that_nothing_speaks_against_starts_a_run_named_after_it() -> None:
    decision = decide(DRIFT, a_situation(), NOW)
    assert decision.starts
    assert decision.evidence["run"] == DRIFT.run_name
    assert "amount drifted" in decision.text


@pytest.mark.parametrize(
    ("situation", "reason", "told"),
    [
        (a_situation(policy=None), Reason.UNKNOWN_MODEL, "millrace models"),
        (a_situation(a_start(NOW - 30, DRIFT.key)), Reason.DUPLICATE, "already"),
        (a_situation(freeze=Freeze(by="Ada", why="month end")), Reason.FROZEN, "millrace thaw scam"),
        (a_situation(freeze=Freeze(by="Ada", why="month end", until=NOW + 1)), Reason.FROZEN, "until 2027"),
        (a_situation(policy=replace(POLICY, signals=frozenset({Signal.CALENDAR}))), Reason.NOT_WANTED, "only because of calendar"),
        (a_situation(open_run="by-hand"), Reason.RUN_OPEN, "millrace runs --show by-hand"),
        (a_situation(a_start(NOW - 9 * DAY, open_=True)), Reason.RUN_OPEN, "scam-other"),
        (a_situation(open_rollout="scam-quality-1"), Reason.ROLLOUT_OPEN, "millrace rollout status scam"),
        (a_situation(a_start(NOW - 5 * HOUR)), Reason.COOLDOWN, "retraining.cooldown"),
        (a_situation(*(a_start(NOW - n * 20 * HOUR, str(n)) for n in range(1, 8))), Reason.BUDGET_SPENT, "7 of its 7"),
        (a_situation(new_labels=99), Reason.TOO_FEW_LABELS, "100 are needed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_no_has_its_reason_and_says_what_would_help(situation: Situation, reason: Reason, told: str) -> None:
    decision = decide(DRIFT, situation, NOW)
    assert decision.reason is reason
    assert told in decision.text


GPU_HOURS = replace(POLICY, cooldown=0.0, budget_gpu_seconds=10 * HOUR)


def held(ago: float, hours: float | None) -> Start:
    return replace(a_start(NOW - ago, f"{ago}"), gpu_seconds=None if hours is None else hours * HOUR)


@pytest.mark.parametrize(
    ("runs", "reason", "again_at"),
    [
        ([held(DAY, 9.99)], Reason.STARTED, None),
        ([held(DAY, 12.5)], Reason.BUDGET_SPENT, NOW + 6 * DAY),
        ([held(8 * DAY, 100.0), held(DAY, 5.0)], Reason.STARTED, None),
        ([held(5 * DAY, 1.0), held(4 * DAY, 6.0), held(DAY, 5.0)], Reason.BUDGET_SPENT, NOW + 3 * DAY),
        ([held(2 * DAY, None), held(DAY, 0.0)], Reason.BUDGET_SPENT, NOW + 5 * DAY),
        ([held(8 * DAY, None)], Reason.STARTED, None),
    ],
    ids=["within", "one run went beyond", "long ago", "once the oldest that matter are out of it", "not known", "not known, long ago"],
)
def test_gpu_hours_are_a_budget_of_their_own(runs: list[Start], reason: Reason, again_at: float | None) -> None:
    decision = decide(DRIFT, a_situation(*runs, policy=GPU_HOURS), NOW)
    assert (decision.reason, decision.again_at) == (reason, again_at)
    if again_at is not None:
        assert decide(DRIFT, a_situation(*runs, policy=GPU_HOURS), again_at - 1).reason is Reason.BUDGET_SPENT
        assert decide(DRIFT, a_situation(*runs, policy=GPU_HOURS), again_at).starts


def test_the_figures_of_a_spent_budget_are_named_and_a_person_may_start_all_the_same() -> None:
    spent = a_situation(held(DAY, 12.5), policy=GPU_HOURS)
    decision = decide(DRIFT, spent, NOW)
    assert "held GPUs for 12.5 of its 10 GPU hours in 7 days" in decision.text
    assert decision.evidence["gpu_hours"] == 12.5
    assert decide(replace(DRIFT, signal=Signal.BY_HAND), spent, NOW).starts


def test_what_is_over_starts_nothing_whatever_the_situation() -> None:
    assert decide(replace(DRIFT, firing=False), a_situation(), NOW).reason is Reason.RESOLVED


def test_a_freeze_ends_by_itself() -> None:
    assert decide(DRIFT, a_situation(freeze=Freeze(by="Ada", why="", until=NOW)), NOW).starts


def test_the_calendar_waits_for_no_labels() -> None:
    assert decide(replace(DRIFT, signal=Signal.CALENDAR), a_situation(new_labels=0), NOW).starts


BY_HAND = replace(DRIFT, signal=Signal.BY_HAND)


@pytest.mark.parametrize(
    "situation",
    [
        a_situation(a_start(NOW - 60)),
        a_situation(*(a_start(NOW - n * HOUR, str(n)) for n in range(1, 9))),
        a_situation(new_labels=0),
        a_situation(policy=replace(POLICY, signals=frozenset())),
    ],
    ids=["cooldown", "budget", "labels", "signals"],
)
def test_a_person_need_not_wait(situation: Situation) -> None:
    assert decide(BY_HAND, situation, NOW).starts


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (a_situation(freeze=Freeze(by="Ada", why="month end")), Reason.FROZEN),
        (a_situation(open_run="other"), Reason.RUN_OPEN),
        (a_situation(policy=None), Reason.UNKNOWN_MODEL),
        (a_situation(a_start(NOW - DAY, BY_HAND.key)), Reason.DUPLICATE),
    ],
)
def test_a_person_does_not_override_a_freeze_or_a_run(situation: Situation, reason: Reason) -> None:
    assert decide(BY_HAND, situation, NOW).reason is reason


def test_a_canary_does_not_hold_a_person_back() -> None:
    assert decide(BY_HAND, a_situation(open_rollout="scam-quality-1"), NOW).starts


def test_a_date_that_was_missed_counts_where_the_project_says_so() -> None:
    late = replace(DRIFT, signal=Signal.CALENDAR, late=True)
    assert decide(late, a_situation(), NOW).reason is Reason.MISSED
    assert decide(late, a_situation(policy=replace(POLICY, run_missed=True)), NOW).starts


def test_a_condition_that_comes_back_is_a_new_occurrence() -> None:
    later = replace(DRIFT, starts_at=NOW + 8 * DAY)
    assert decide(later, a_situation(a_start(NOW, DRIFT.key)), NOW + 8 * DAY).starts


@pytest.mark.parametrize("wait", [Reason.COOLDOWN, Reason.BUDGET_SPENT, Reason.FROZEN])
def test_a_decision_that_names_a_time_is_another_one_at_that_time(wait: Reason) -> None:
    situation = {
        Reason.COOLDOWN: a_situation(a_start(NOW - HOUR)),
        Reason.BUDGET_SPENT: a_situation(*(a_start(NOW - n * 20 * HOUR, str(n)) for n in range(1, 8))),
        Reason.FROZEN: a_situation(freeze=Freeze(by="Ada", why="", until=NOW + HOUR)),
    }[wait]
    decision = decide(DRIFT, situation, NOW)
    assert decision.reason is wait
    assert decision.again_at is not None
    assert decide(DRIFT, situation, decision.again_at - 1).reason is wait
    assert decide(DRIFT, situation, decision.again_at).reason is not wait


causes = st.builds(
    Cause,
    model=st.just("scam"),
    signal=st.sampled_from(sorted(set(Signal) - {Signal.BY_HAND})),
    fingerprint=st.sampled_from("abc"),
    starts_at=st.integers(0, 3).map(float),
    firing=st.booleans(),
)
told = st.lists(st.tuples(causes, st.floats(0, 3 * HOUR), st.integers(0, 3)), max_size=60)
policies = st.builds(Policy, cooldown=st.floats(0, 10 * HOUR), budget_runs=st.integers(0, 4), budget_period=st.floats(HOUR, 2 * DAY))


@given(told, policies)
def test_whatever_is_told_how_often_policy_holds(story: list[tuple[Cause, float, int]], policy: Policy) -> None:
    """One run for one occurrence, starts at least a cooldown apart, and never more than the budget in any period."""
    now, starts = NOW, list[Start]()
    for cause, passed, repeats in story:
        now += passed
        for _ in range(repeats + 1):  # Alertmanager repeats, and its other half says the same
            if decide(cause, Situation(policy=policy, starts=tuple(starts)), now).starts:
                starts.append(Start(key=cause.key, at=now, run_name=cause.run_name))
    times = [start.at for start in starts]
    assert len({start.key for start in starts}) == len(starts)
    assert all(later - earlier >= policy.cooldown - 1e-3 for earlier, later in pairwise(times))
    assert all(sum(at - policy.budget_period < other <= at for other in times) <= policy.budget_runs for at in times)


@given(causes, policies, st.lists(st.floats(0, 5 * DAY), max_size=6), st.floats(0, DAY))
def test_the_same_question_gets_the_same_answer(cause: Cause, policy: Policy, ages: list[float], passed: float) -> None:
    starts = [a_start(NOW - age, str(n)) for n, age in enumerate(ages)]

    def answer(order: list[Start]) -> Decision:
        return decide(cause, Situation(policy=policy, starts=order), NOW + passed)

    assert answer(starts) == answer(starts[::-1])
