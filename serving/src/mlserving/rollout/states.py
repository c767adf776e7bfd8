"""What becomes of a rollout's state: one function for each thing that can happen to it. Pure; whoever calls them writes the result."""

from __future__ import annotations

from mlserving.rollout.decide import Abort, AwaitApproval, Decision, Hold, HoldForPerson, Promote, Step
from mlserving.rollout.observation import Observation
from mlserving.rollout.plan import Approved, Judgement, Phase, Rollout, Verdict

_KEPT = 30
"""Judgements that stay in the state; a helm release must fit into a Secret."""
_UNCOUNTED = {"step_started": None, "baseline": None, "looks": 0, "looked_at": 0, "ready_look": False, "verdict": None}


def judged(state: Rollout, decision: Decision, observation: Observation, now: float) -> Rollout:
    """After a decision: what was looked at is remembered, and the phase or the step moves."""
    looked = _looked(state, decision, observation, now)
    match decision:
        case Abort():
            return ended(looked, Phase.ABORTED, decision.reason, now)
        case Step():
            return looked.model_copy(update={**_UNCOUNTED, "phase": Phase.CANARY, "step": state.step + 1})
        case Promote():
            return promoted(looked, now)
        case AwaitApproval():
            return looked.model_copy(update={"phase": Phase.AWAITING_APPROVAL})
        case HoldForPerson() if state.phase is Phase.CANARY:
            return looked.model_copy(update={"phase": Phase.HOLDING})
        case _:
            return looked


def begun(state: Rollout) -> Rollout:
    """The canary is loaded: the first step begins."""
    return state.model_copy(update={**_UNCOUNTED, "phase": Phase.CANARY, "step": 0})


def counted(state: Rollout, baseline: dict[str, object], now: float) -> Rollout:
    """The step's share is in force: what is counted from now on is the step's."""
    return state.model_copy(update={**_UNCOUNTED, "baseline": baseline, "step_started": now})


def promoted(state: Rollout, now: float) -> Rollout:
    """The new version answers everything, the old one stays warm."""
    return state.model_copy(update={**_UNCOUNTED, "phase": Phase.PROMOTING, "promoted": now})


def approved(state: Rollout, by: str, now: float, reason: str = "") -> Rollout:
    """Somebody agreed; the next judgement promotes."""
    return state.model_copy(update={"approvals": (*state.approvals, Approved(by=by, time=now, reason=reason))})


def ended(state: Rollout, phase: Phase, because: str, now: float) -> Rollout:
    """It is over."""
    return state.model_copy(update={"phase": phase, "ended": now, "ended_because": because, "baseline": None})


def _looked(state: Rollout, decision: Decision, observation: Observation, now: float) -> Rollout:
    judgement = Judgement(
        time=now,
        weight=state.weight,
        decision=_word(decision),
        reason=decision.reason,
        canary_requests=observation.canary.requests,
        stable_requests=observation.stable.requests,
        checks=decision.look.checks if decision.look else (),
    )
    if decision.look is None:
        return state if isinstance(decision, Hold) else _with(state, judgement)
    return _with(state, judgement).model_copy(
        update={
            "looks": state.looks + 1,
            "looked_at": observation.canary.requests,
            "ready_look": decision.look.ready,
            "verdict": Verdict(decision.look.verdict),
        }
    )


def _with(state: Rollout, judgement: Judgement) -> Rollout:
    return state.model_copy(update={"judgements": (*state.judgements, judgement)[-_KEPT:]})


def _word(decision: Decision) -> str:
    return {AwaitApproval: "await approval", HoldForPerson: "hold"}.get(type(decision), type(decision).__name__.lower())
