"""Whole rollouts under chance: how often the judgement errs, and how soon it finds what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from mlserving.rollout import states
from mlserving.rollout.decide import decide
from mlserving.rollout.plan import Phase, Plan, Rollout
from rollouts import NOW, World, plan, rollout

EVERY = 2.0
"""Seconds between judgements."""


def run(world: World, of: Plan, lasting: float = 900.0) -> Rollout:
    """A rollout until it is promoted or aborted, or has lasted so many seconds."""
    state, now = rollout(of, baseline=None, step_started=None), NOW
    while state.phase in (Phase.CANARY, Phase.HOLDING) and now < NOW + lasting:
        if state.baseline is None:
            world.begin()
            state = states.counted(state, {}, now)
        world.pass_time(EVERY, state.weight)
        now += EVERY
        seen = world.observation()
        state = states.judged(state, decide(state.plan, state, seen, now), seen, now)
    return state


def shares(count: int, of: Plan, lasting: float = 900.0, **world: Any) -> dict[Phase, float]:
    """Of `count` rollouts, the share that ended in each phase."""
    ends = [run(World(seed, **world), of, lasting).phase for seed in range(count)]
    return {phase: ends.count(phase) / count for phase in Phase}


@pytest.mark.parametrize("failing", [0.0, 0.03])
def test_a_canary_like_stable_is_aborted_no_more_often_than_the_plan_says(failing: float) -> None:
    """Sharp limits and little confidence, so that the level is near: at most one in five, and three standard errors of 60 rollouts."""
    sharp = plan(
        min_requests=300, limits={"confidence": 0.8, "error_rate": 0.0, "distance": 0.001, "latency_ratio": 1.0, "latency_slack_ms": 0}
    )
    found = shares(60, sharp, lasting=150.0, canary_errors=failing, stable_errors=failing)
    assert found[Phase.ABORTED] <= 0.2 + 3 * (0.2 * 0.8 / 60) ** 0.5


def test_with_the_limits_that_a_plan_has_by_itself_a_canary_like_stable_gets_through() -> None:
    found = shares(40, plan(), canary_errors=0.002, stable_errors=0.002)
    assert found[Phase.ABORTED] == 0
    assert found[Phase.PROMOTING] >= 0.95


@pytest.mark.parametrize(
    "fault",
    [
        {"canary_errors": 0.05},
        {"canary_errors": 0.07, "stable_errors": 0.02},
        {"canary_median": 0.06},
        {"canary_shares": (0.2, 0.3, 0.5)},
    ],
    ids=["errors", "more errors", "slow", "other classes"],
)
def test_a_bad_canary_is_aborted_before_it_answers_a_tenth(fault: dict[str, Any]) -> None:
    """In the first or second step of four."""
    for seed in range(15):
        state = run(World(seed, **fault), plan())
        assert state.phase is Phase.ABORTED
        assert state.step <= 1
        assert state.ended_because


def test_a_canary_that_fails_once_in_twenty_is_caught_within_its_first_few_hundred_requests() -> None:
    caught = [run(World(seed, canary_errors=0.05), plan(min_requests=500)).judgements[-1].canary_requests for seed in range(40)]
    assert sorted(caught)[len(caught) // 2] <= 150
    assert max(caught) <= 500


def test_a_gap_that_the_limits_allow_is_no_reason_to_abort() -> None:
    found = shares(25, plan(), canary_errors=0.006, stable_errors=0.002)
    assert found[Phase.ABORTED] == 0
