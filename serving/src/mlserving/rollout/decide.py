"""What should happen to a rollout now: a function of the plan, the state and what was seen. It knows no clock and no cluster.

Looking often is how one sees what is not there: a test at the level of one percent that is done a hundred times raises a false alarm sooner or
later. So looks are rationed. One is due when the canary's requests have grown by a quarter since the last one, or when the step could be left; and the
k-th look of a step may raise a false alarm with the probability 1/(k(k+1)) of what the step may. Those shares add up to one however
long the step lasts, and all steps together to 1 - confidence (Bonferroni's inequality: nothing is assumed of how looks hang together).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlserving.rollout.compare import compare
from mlserving.rollout.observation import Observation
from mlserving.rollout.plan import JUDGED, Check, Plan, Rollout, Verdict

_GROWTH = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was looked at: the checks, and whether the step could have been left."""

    checks: tuple[Check, ...]
    ready: bool

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        return max((check.verdict for check in self.checks), key=list(Verdict).index, default=Verdict.OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    reason: str
    look: Look | None = None
    """None where no look was due."""


class Hold(_Decision):
    """Change nothing yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldForPerson(Hold):
    """Change nothing, and let a person see it: the step has lasted longer than planned."""


class Step(_Decision):
    """Let the canary answer the next step's share."""


class Abort(_Decision):
    """Stable answers everything again."""


class AwaitApproval(_Decision):
    """Every step is passed; a person must agree."""


class Promote(_Decision):
    """The canary answers everything."""


Decision = Hold | Step | Abort | AwaitApproval | Promote


def decide(plan: Plan, state: Rollout, observation: Observation, now: float) -> Decision:
    """The next thing to do, with its reason. The same arguments give the same answer.

    Args:
        plan: what the project asked for.
        state: how far the rollout is.
        observation: both tracks since `state.step_started`.
        now: seconds since 1970.
    """
    if state.phase not in JUDGED or state.step_started is None:
        return Hold(reason=f"nothing is judged while the rollout is {state.phase.value.replace('_', ' ')}")
    if (observation.canary.version, observation.stable.version) != (state.to_version, state.from_version):
        return Hold(reason="what was counted is of other versions than this rollout's")
    look = _look(plan, state, observation, now)
    verdict = look.verdict if look else state.verdict
    if look and verdict is Verdict.WORSE:
        return Abort(reason="; ".join(f"{check.name}: {check.says}" for check in look.checks if check.verdict is Verdict.WORSE), look=look)
    if is_ready(plan, state, observation, now) and verdict is Verdict.OK:
        return _onward(plan, state, look)
    return _hold(plan, state, observation, now, look)


def held_back(decision: Decision, why: str) -> Decision:
    """The decision where the canary may not be given more for now; `why` is empty where it may. What speaks against the canary still does."""
    if not why or not isinstance(decision, (Step, Promote)):
        return decision
    return Hold(reason=f"{decision.reason}; held back: {why}", look=decision.look)


def is_ready(plan: Plan, state: Rollout, observation: Observation, now: float) -> bool:
    """Whether the step has had the requests and the time that the plan asks for."""
    assert state.step_started is not None
    return observation.canary.requests >= plan.min_requests and now - state.step_started >= plan.min_seconds


def next_look(plan: Plan, state: Rollout) -> int:
    """At how many requests of the canary the next look is due."""
    return max(plan.first_look, math.ceil(state.looked_at * _GROWTH))


def level(plan: Plan, look: int) -> float:
    """With which probability the `look`-th look of a step (from 1) may call a canary like stable worse."""
    return (1 - plan.limits.confidence) / max(1, plan.judged) / (look * (look + 1))


def _look(plan: Plan, state: Rollout, observation: Observation, now: float) -> Look | None:
    ready = is_ready(plan, state, observation, now) and observation.canary.requests >= plan.first_look
    if observation.canary.requests < next_look(plan, state) and not (ready and not state.ready_look):
        return None
    checks = compare(observation.canary, observation.stable, plan.limits, level(plan, state.looks + 1))
    return Look(checks=checks, ready=ready)


def _onward(plan: Plan, state: Rollout, look: Look | None) -> Decision:
    if state.step + 1 < plan.judged:
        return Step(reason=f"the step at {plan.steps[state.step]:g} % is passed: {plan.steps[state.step + 1]:g} % next", look=look)
    if not state.approved:
        who = f" by {' or '.join(state.approval.approvers)}" if state.approval.approvers else ""
        return AwaitApproval(reason=f"every step is passed; approval{who} is needed: millrace rollout approve {state.model}", look=look)
    return Promote(reason=f"every step is passed: version {state.to_version} takes over", look=look)


def _hold(plan: Plan, state: Rollout, observation: Observation, now: float, look: Look | None) -> Hold:
    assert state.step_started is not None
    seen, passed = observation.canary.requests, now - state.step_started
    if seen < max(plan.min_requests, plan.first_look):
        reason = f"{seen:,} of {max(plan.min_requests, plan.first_look):,} requests"
    elif passed < plan.min_seconds:
        reason = f"{passed:,.0f} of {plan.min_seconds:,.0f} seconds"
    else:
        reason = f"not clear enough to go on; the next look is at {max(next_look(plan, state), math.ceil(seen * _GROWTH) if look else 0):,} requests"
    if passed >= plan.max_seconds:
        return HoldForPerson(
            reason=f"{reason} after {passed:,.0f} seconds, {plan.max_seconds:,.0f} were planned: a person decides", look=look
        )
    return Hold(reason=reason, look=look)
