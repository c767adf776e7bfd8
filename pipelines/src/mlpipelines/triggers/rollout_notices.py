"""What people are told of a rollout that the trigger drives. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mlpipelines.triggers.notices import Event, Notice
from mlserving.rollout.plan import Check, Phase, Rollout, Verdict

_EVENTS = {
    Phase.CANARY: Event.CANARY,
    Phase.HOLDING: Event.WAITS,
    Phase.AWAITING_APPROVAL: Event.APPROVAL,
    Phase.PROMOTING: Event.DEPLOYED,
    Phase.DONE: Event.DEPLOYED,
    Phase.ABORTED: Event.ROLLOUT_ABORTED,
    Phase.ROLLED_BACK: Event.ROLLED_BACK,
}
_MARKS = {Verdict.OK: "✔", Verdict.UNCLEAR: "–", Verdict.WORSE: "✘"}
_HEADS = ("", "check", "canary", "stable", "limit")


def of_rollout(run: str, reason: str, rollout: Rollout) -> Notice | None:
    """A rollout is in another phase than before; None where nobody need hear of it.

    Args:
        run: the training that its version came of.
        reason: why that was started.
        rollout: as it is now.
    """
    event = _EVENTS.get(rollout.phase)
    if event is None:
        return None
    checks = [_row(check) for check in _judged_last(rollout)]
    text = f"{_said(rollout)} Retrained because {reason}."
    return Notice(event=event, model=rollout.model, run=run, text=text, checks=checks, heads=_HEADS)


def _said(rollout: Rollout) -> str:
    old, new, model = rollout.from_version, rollout.to_version, rollout.model
    match rollout.phase:
        case Phase.CANARY:
            steps = " → ".join(f"{share:g}" for share in rollout.plan.steps)
            return f"Version {new} answers {rollout.weight:g} % of the requests, version {old} the rest. Its steps: {steps} %."
        case Phase.HOLDING:
            return f"Version {new} has stayed at {rollout.weight:g} % for longer than planned; a person decides: millrace rollout promote, or abort, {model}."
        case Phase.AWAITING_APPROVAL:
            who = " or ".join(rollout.approval.approvers) or "somebody"
            return f"Version {new} has passed every step at up to {rollout.weight:g} %; {who} must agree: millrace rollout approve {model}."
        case Phase.ABORTED:
            return f"Version {old} answers everything again. Version {new}: {rollout.ended_because}."
        case Phase.ROLLED_BACK:
            return f"Version {new} was taken back and version {old} answers everything: {rollout.ended_because}."
        case _:
            return f"Version {new} answers everything. Version {old} before it: millrace rollout rollback {model}."


def _judged_last(rollout: Rollout) -> Sequence[Check]:
    """The checks of the last look, what was worse first."""
    checks = next((judgement.checks for judgement in reversed(rollout.judgements) if judgement.checks), ())
    return sorted(checks, key=lambda check: list(Verdict).index(check.verdict), reverse=True)


def _row(check: Check) -> list[str]:
    return [_MARKS[check.verdict], check.name, _figure(check.canary), _figure(check.stable), _figure(check.limit)]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
