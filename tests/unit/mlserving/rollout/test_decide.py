from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlserving.rollout import states
from mlserving.rollout.decide import Abort, AwaitApproval, Hold, HoldForPerson, Look, Promote, Step, decide, held_back, level, next_look
from mlserving.rollout.plan import Approval, Approved, Phase, Rollout, Verdict
from rollouts import NOW, observed, plan, rollout, seen


def after(state: Rollout, requests: int, seconds: float, errors: int = 0) -> object:
    return decide(state.plan, state, observed(seen(requests, errors)), NOW + seconds)


def test_twenty_requests_abort_nothing_even_if_all_fail() -> None:
    assert isinstance(after(rollout(), 20, 60, errors=20), Hold)


def test_a_canary_that_fails_is_aborted_at_the_first_look_with_the_figures() -> None:
    decision = after(rollout(), 50, 3, errors=10)
    assert isinstance(decision, Abort)
    assert "10 of 50 failed" in decision.reason


def test_a_step_needs_its_requests_and_its_time() -> None:
    assert isinstance(after(rollout(), 199, 60), Hold)
    assert isinstance(after(rollout(), 200, 9), Hold)
    assert isinstance(after(rollout(), 200, 10), Step)


def test_the_reason_of_a_hold_says_what_is_missing() -> None:
    assert after(rollout(), 120, 60).reason == "120 of 200 requests"  # type: ignore[attr-defined]
    assert after(rollout(), 250, 4).reason == "4 of 10 seconds"  # type: ignore[attr-defined]


def test_after_the_last_judged_step_the_version_is_promoted_or_waits_for_a_person() -> None:
    assert isinstance(after(rollout(step=2), 200, 10), Promote)
    careful = rollout(step=2, approval=Approval(required=True, approvers=("bob",)))
    waiting = after(careful, 200, 10)
    assert isinstance(waiting, AwaitApproval)
    assert "bob" in waiting.reason
    agreed = careful.model_copy(update={"approvals": (Approved(by="bob", time=NOW),)})
    assert isinstance(after(agreed, 200, 10), Promote)


def test_a_canary_that_fails_while_it_waits_for_a_person_is_aborted() -> None:
    state = rollout(step=2, phase=Phase.AWAITING_APPROVAL, looked_at=200, looks=1, ready_look=True, verdict=Verdict.OK)
    assert isinstance(after(state, 300, 60, errors=30), Abort)


def test_a_step_that_is_not_passed_in_time_is_given_to_a_person_and_still_judged() -> None:
    decision = after(rollout(), 60, 1001)
    assert isinstance(decision, HoldForPerson)
    held = states.judged(rollout(), decision, observed(seen(60)), NOW + 1001)
    assert held.phase is Phase.HOLDING
    assert isinstance(after(held, 200, 1100), Step)
    assert isinstance(after(held, 200, 1100, errors=60), Abort)


def test_what_chance_can_explain_holds_and_neither_aborts_nor_steps() -> None:
    """Four of two hundred: more than the limit allows, and not enough to be sure."""
    decision = after(rollout(), 200, 60, errors=4)
    assert type(decision) is Hold
    assert "not clear enough" in decision.reason


def test_numbers_of_another_version_judge_nobody() -> None:
    wrong = observed(seen(500, 500, version=3))
    assert isinstance(decide(plan(), rollout(), wrong, NOW + 60), Hold)


def test_looks_come_when_requests_have_grown_by_a_quarter_and_their_levels_add_up_to_the_stated_one() -> None:
    state = rollout()
    assert next_look(state.plan, state) == 50
    assert next_look(state.plan, state.model_copy(update={"looked_at": 100})) == 125
    spent = state.plan.judged * sum(level(state.plan, look) for look in range(1, 100_000))
    assert spent == pytest.approx(0.01, rel=1e-4)


def test_a_look_is_remembered_and_not_taken_twice() -> None:
    state = rollout()
    first = after(state, 60, 1)
    assert first.look is not None  # type: ignore[attr-defined]
    looked = states.judged(state, first, observed(seen(60)), NOW + 1)  # type: ignore[arg-type]
    assert (looked.looks, looked.looked_at) == (1, 60)
    assert after(looked, 74, 2).look is None  # type: ignore[attr-defined]
    assert after(looked, 75, 2).look is not None  # type: ignore[attr-defined]


_SIGHTINGS = st.tuples(st.integers(0, 3000), st.floats(0, 0.3), st.floats(0, 2000))


@given(st.lists(_SIGHTINGS, max_size=12), st.booleans())
@example(sightings=[(200, 0.0, 10.0)] * 4 + [(0, 0.0, 0.0)], approve=True)  # it has taken over, and somebody looks again
def test_no_step_is_skipped_and_none_is_left_without_its_requests_and_time(
    sightings: list[tuple[int, float, float]], approve: bool
) -> None:
    """Whatever is seen and however often."""
    state = rollout(approval=Approval(required=True))
    for requests, failing, seconds in sightings:
        if state.baseline is None and state.open:
            state = states.counted(state, {}, NOW)
        seen_now, now = observed(seen(requests, int(failing * requests))), NOW + seconds
        decision = decide(state.plan, state, seen_now, now)
        assert decision == decide(state.plan, state, seen_now, now), "the same question has the same answer"
        then = states.judged(state, decision, seen_now, now)
        assert then.step in (state.step, state.step + 1)
        takes_over = then.phase is Phase.PROMOTING and state.phase is not Phase.PROMOTING
        if then.step > state.step or takes_over:
            assert requests >= state.plan.min_requests
            assert seconds >= state.plan.min_seconds
            assert then.step < state.plan.judged
        if takes_over:
            assert state.step == state.plan.judged - 1
            assert state.approvals
        state = Rollout.model_validate_json(then.model_dump_json())
        assert state == then, "what is written is what is read: anybody can go on"
        if approve and state.phase is Phase.AWAITING_APPROVAL:
            state = states.approved(state, "bob", now)


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.CANARY, Phase.HOLDING, Phase.AWAITING_APPROVAL)])
def test_nothing_is_judged_before_and_after(phase: Phase) -> None:
    assert isinstance(after(rollout(phase=phase), 5000, 500, errors=5000), Hold)


def test_weights_follow_the_phase() -> None:
    assert [rollout(step=step).weight for step in range(3)] == [1, 10, 50]
    weights = {phase: rollout(phase=phase, step=1).weight for phase in Phase}
    assert weights[Phase.STARTING] == weights[Phase.ABORTED] == weights[Phase.ROLLED_BACK] == 0
    assert weights[Phase.PROMOTING] == weights[Phase.DONE] == 100


def test_a_plan_must_rise_to_all_requests_and_judge_something() -> None:
    for steps in ([], [100], [10, 5, 100], [0, 100], [1, 50], [1, 1, 100]):
        with pytest.raises(ValueError, match="must rise"):
            plan(steps=steps)
    for steps in itertools.combinations((1, 5, 20, 50), 2):
        assert plan(steps=[*steps, 100]).judged == 2


def test_held_back_it_goes_no_step_further_and_is_aborted_all_the_same() -> None:
    look = Look(checks=(), ready=True)
    for onward in (Step(reason="passed", look=look), Promote(reason="passed", look=look)):
        held = held_back(onward, "ann froze it")
        assert held == Hold(reason="passed; held back: ann froze it", look=look)
        assert held_back(onward, "") is onward
    for other in (Abort(reason="worse"), AwaitApproval(reason="ask"), Hold(reason="early")):
        assert held_back(other, "ann froze it") is other
