"""What people and loops do to a rollout. Each action reads what is wanted, writes the audit log, writes what is wanted, and waits until it is in force.

Everything that is known stands in the document, so an action that was killed anywhere is gone on with by the next `advance`, from any machine; and a
document that somebody else has changed meanwhile is a Conflict, never overwritten. An entry of the audit log comes before its deed: a deed without
an entry cannot be, an entry without a deed can, and the next one tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlserving.audit.database import AuditLog
from mlserving.errors import ConfigError, Conflict, NobodyServes, ServingError, Unavailable
from mlserving.gateway.settings import Log, Track
from mlserving.rollout import document, states
from mlserving.rollout.aliases import CHALLENGER, Registry
from mlserving.rollout.decide import Abort, AwaitApproval, Decision, Hold, Promote, Step, decide, held_back
from mlserving.rollout.document import Desired, Wanted
from mlserving.rollout.driver import Driver, Source
from mlserving.rollout.plan import JUDGED, Approval, Phase, Plan, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an action works with. `who` acts; `load_seconds` is how long a version may take to load."""

    driver: Driver
    source: Source
    registry: Registry
    audit: AuditLog
    who: str
    load_seconds: float = 300.0
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for at the start."""

    model: str
    plan: Plan = field(default_factory=Plan)
    approval: Approval = field(default_factory=Approval)
    version: int | None = None
    """None: the challenger, else the newest version."""
    digest: str = ""
    reason: str = ""
    id: str = ""
    """What the rollout is called, so that whoever asks for it finds again what he began; a name of its own where empty."""
    sticky: str | None = None
    log: Log = field(default_factory=Log)


def start(room: Room, wish: Wish) -> Desired:
    """Load a version beside the one that answers, and give it the first step's share.

    Raises:
        Conflict: a rollout is under way.
        ConfigError: there is no such version, or it answers already.
        Unavailable: the version cannot be loaded: the rollout is aborted, and says so.
    """
    desired = room.driver.read(wish.model)
    if desired.rollout and desired.rollout.open:
        raise Conflict(_under_way(desired.rollout))
    version = wish.version or _challenger(room, desired)
    if version == desired.stable.version:
        raise ConfigError(f"Version {version} of {wish.model} answers already. Name another one: --version N")
    room.driver.await_in_force(desired, room.load_seconds)  # where nobody serves, nothing is begun
    canary = Wanted(version=version, digest=wish.digest or room.driver.digest(wish.model, version))
    rollout = _new(room, wish, desired.stable.version, version)
    fresh = document.begin(desired, rollout, canary).model_copy(update={"sticky": wish.sticky, "log": wish.log})
    written = _write(
        room, fresh, "rollout.start", wish.reason, version=version, over=desired.stable.version, plan=wish.plan.model_dump(mode="json")
    )
    return _begin(room, written)


def advance(room: Room, model: str, *, held: str = "") -> tuple[Desired, str]:
    """Do what is next, once: what a loop or a CronJob calls. Returns what is wanted now, and what was done or what is waited for.

    Args:
        room: what to work with.
        model: which.
        held: why it may not go on for now; empty: it may. It is judged all the same, and aborted where it is worse.

    Raises:
        ConfigError: no rollout was ever started.
        Conflict: somebody else acted at the same time; look again.
    """
    desired, rollout = _read(room, model)
    if rollout.phase is Phase.STARTING:
        return _begin(room, desired), "the canary is loaded; the first step begins"
    if rollout.phase in JUDGED and rollout.step_started is None:
        return _count(room, desired), f"the step at {rollout.weight:g} % begins"
    if rollout.phase in JUDGED:
        return _judge(room, desired, rollout, held)
    if rollout.phase is Phase.PROMOTING:
        return _settle_if_due(room, desired, rollout)
    return _tidy(room, desired), f"the rollout is {rollout.phase.value.replace('_', ' ')}"


def approve(room: Room, model: str, reason: str = "") -> Desired:
    """Agree to the promotion.

    Raises:
        ConfigError: no approval is asked for, or this person may not give it.
        Conflict: nothing is under way.
    """
    desired, rollout = _read(room, model)
    if not rollout.open or rollout.promoted is not None:
        raise Conflict(f"No rollout of {model} waits for anybody: the last one is {rollout.phase}. See: millrace rollout status {model}")
    _may_approve(rollout, room.who)
    approved = states.approved(rollout, room.who, room.clock(), reason)
    return _write(room, document.steered(desired, approved), "rollout.approve", reason, version=rollout.to_version)


def promote(room: Room, model: str, reason: str) -> Desired:
    """Let the canary answer everything now, whatever steps are left: a person's word instead of the judgement.

    Raises:
        ConfigError: approval is needed and not given.
        Conflict: no canary answers.
    """
    desired, rollout = _read(room, model)
    if rollout.phase not in JUDGED:
        raise Conflict(f"No canary of {model} answers: the rollout is {rollout.phase}. See: millrace rollout status {model}")
    if not rollout.approved:
        raise ConfigError(f"Version {rollout.to_version} of {model} needs somebody's approval first: millrace rollout approve {model}")
    return _take_over(room, desired, states.promoted(rollout, room.clock()), reason, by_hand=True)


def abort(room: Room, model: str, reason: str) -> Desired:
    """Let stable answer everything again and unload the canary.

    Raises:
        Conflict: no canary is there.
    """
    desired, rollout = _read(room, model)
    if rollout.phase not in JUDGED | {Phase.STARTING}:
        hint = f"millrace rollout rollback {model}" if rollout.phase is Phase.PROMOTING else f"millrace rollout status {model}"
        raise Conflict(f"There is nothing to abort: the rollout is {rollout.phase}. Try: {hint}")
    ended = states.ended(rollout, Phase.ABORTED, reason or "by hand", room.clock())
    return _back_to_stable(room, desired, ended, "rollout.abort", reason)


def rollback(room: Room, model: str, reason: str) -> Desired:
    """Let the version before answer everything again. While it is warm, only weights move.

    Raises:
        Conflict: no version has taken over.
    """
    desired, rollout = _read(room, model)
    if rollout.phase in JUDGED | {Phase.STARTING}:
        return abort(room, model, reason)
    if rollout.phase not in {Phase.PROMOTING, Phase.DONE}:
        raise Conflict(
            f"No version of {model} has taken over that could be taken back: the rollout is {rollout.phase}. See: millrace rollout history {model}"
        )
    ended = states.ended(rollout, Phase.ROLLED_BACK, reason or "by hand", room.clock())
    if rollout.phase is Phase.PROMOTING and desired.stable.version == rollout.from_version:
        return _back_to_stable(room, desired, ended, "rollout.rollback", reason)
    return _back_from_cold(room, desired, ended, reason)


def finish(room: Room, model: str) -> Desired:
    """Let the old version go before its time is over.

    Raises:
        Conflict: none is kept warm.
    """
    desired, rollout = _read(room, model)
    if rollout.phase is not Phase.PROMOTING:
        raise Conflict(f"No old version of {model} is kept warm: the rollout is {rollout.phase}. See: millrace rollout status {model}")
    return _settle(room, desired, rollout, "by hand")


def let_go(room: Room, desired: Desired) -> Desired:
    """As `finish`, in one write and without waiting: for whoever follows the document and moves requests only when all is loaded."""
    assert desired.rollout is not None
    done = states.ended(desired.rollout, Phase.DONE, "promoted", room.clock())
    settled = document.without_canary(document.stable_follows(desired)).model_copy(update={"rollout": done})
    why = f"version {done.from_version} is let go: its time is over"
    return _write(room, settled, "rollout.settle", why, version=done.to_version)


# -- what follows ----------------------------------------------------------------------------------------------------------------


def _begin(room: Room, desired: Desired) -> Desired:
    """Wait for the canary, then let it answer the first step's share."""
    assert desired.rollout is not None
    try:
        room.driver.await_in_force(desired, room.load_seconds)
    except NobodyServes:
        raise
    except Unavailable as error:
        raise _not_begun(room, desired, f"version {desired.rollout.to_version} could not be loaded: {error}") from error
    if not room.source.reaches(desired.rollout, room.load_seconds):  # before: what it cannot answer for that reason says nothing of it
        raise _not_begun(room, desired, f"version {desired.rollout.to_version} is loaded, and not every gateway reaches it")
    begun = states.begun(desired.rollout)
    return _count(room, _write(room, document.steered(desired, begun), "rollout.step", "the canary is loaded", weight=begun.weight))


def _not_begun(room: Room, desired: Desired, because: str) -> Unavailable:
    """Let the canary go that never answered; the error that says so."""
    assert desired.rollout is not None
    _back_to_stable(room, desired, states.ended(desired.rollout, Phase.ABORTED, because, room.clock()), "rollout.abort", because)
    return Unavailable(f"The rollout was aborted: {because}")


def _count(room: Room, desired: Desired) -> Desired:
    """Wait until the step's share is in force, and count from then on."""
    assert desired.rollout is not None
    room.driver.await_in_force(desired, room.load_seconds)
    counted = states.counted(desired.rollout, room.source.mark(desired.rollout), room.clock())
    return room.driver.write(document.steered(desired, counted))


def _judge(room: Room, desired: Desired, rollout: Rollout, held: str) -> tuple[Desired, str]:
    now = room.clock()
    seen = room.source.observe(rollout, now)
    decision = held_back(decide(rollout.plan, rollout, seen, now), held)
    after = states.judged(rollout, decision, seen, now)
    return _do(room, desired, after, decision), decision.reason


def _do(room: Room, desired: Desired, after: Rollout, decision: Decision) -> Desired:
    match decision:
        case Abort():
            return _back_to_stable(room, desired, after, "rollout.abort", decision.reason, checks=_checks(decision))
        case Promote():
            return _take_over(room, desired, after, decision.reason, checks=_checks(decision))
        case Step():
            steered = document.steered(desired, after)
            return _count(room, _write(room, steered, "rollout.step", decision.reason, weight=after.weight, checks=_checks(decision)))
        case AwaitApproval() | Hold() if after.phase is not (desired.rollout.phase if desired.rollout else None):
            return _write(room, document.steered(desired, after), f"rollout.{after.phase}", decision.reason, checks=_checks(decision))
        case _:
            return desired if after == desired.rollout else room.driver.write(document.steered(desired, after))


def _take_over(room: Room, desired: Desired, promoted: Rollout, reason: str, **details: Any) -> Desired:
    steered = document.steered(desired, promoted)
    written = _write(room, steered, "rollout.promote", reason, version=promoted.to_version, over=promoted.from_version, **details)
    room.driver.await_in_force(written, room.load_seconds)
    room.registry.promote(written.model, promoted.to_version)
    return written


def _back_to_stable(room: Room, desired: Desired, ended: Rollout, action: str, reason: str, **details: Any) -> Desired:
    """Stable answers everything, and the canary is let go, in one write: nothing waits for a canary, which may well be dead."""
    back = document.without_canary(desired).model_copy(update={"rollout": ended})
    written = _write(room, back, action, reason, version=ended.to_version, back_to=desired.stable.version, **details)
    room.driver.await_in_force(written, room.load_seconds)
    if ended.phase is Phase.ROLLED_BACK:
        room.registry.roll_back(ended.model, to=ended.from_version, away_from=ended.to_version, why=reason)
    return written


def _back_from_cold(room: Room, desired: Desired, ended: Rollout, reason: str) -> Desired:
    """The old version is gone and must be loaded again: as a canary without requests first, which then answers everything."""
    digest = room.driver.digest(ended.model, ended.from_version)
    loading = document.with_canary(desired, Wanted(version=ended.from_version, digest=digest)).model_copy(
        update={"rollout": desired.rollout}
    )
    written = _write(room, loading, "rollout.rollback", reason, version=ended.to_version, back_to=ended.from_version, cold=True)
    room.driver.await_in_force(written, room.load_seconds)
    answering = room.driver.write(document.all_to_canary(written).model_copy(update={"rollout": ended}))
    room.driver.await_in_force(answering, room.load_seconds)
    room.registry.roll_back(ended.model, to=ended.from_version, away_from=ended.to_version, why=reason)
    return _stable_takes_canary(room, answering)


def _settle_if_due(room: Room, desired: Desired, rollout: Rollout) -> tuple[Desired, str]:
    room.registry.promote(rollout.model, rollout.to_version)  # whoever promoted may have been stopped before this
    assert rollout.warm_until is not None
    left = rollout.warm_until - room.clock()
    if left > 0:
        return desired, f"version {rollout.to_version} answers everything; version {rollout.from_version} stays warm for {left:,.0f} s more"
    return _settle(room, desired, rollout, "its time is over"), f"version {rollout.to_version} is stable"


def _settle(room: Room, desired: Desired, rollout: Rollout, because: str) -> Desired:
    """The new version moves to the stable track, and the old one is let go."""
    why = f"version {rollout.from_version} is let go: {because}"
    written = _write(room, document.stable_follows(desired), "rollout.settle", why, version=rollout.to_version)
    room.driver.await_in_force(written, room.load_seconds)
    done = states.ended(rollout, Phase.DONE, "promoted", room.clock())
    return room.driver.write(document.without_canary(written).model_copy(update={"rollout": done}))


def _stable_takes_canary(room: Room, desired: Desired) -> Desired:
    written = room.driver.write(document.stable_follows(desired))
    room.driver.await_in_force(written, room.load_seconds)
    return room.driver.write(document.without_canary(written))


def _tidy(room: Room, desired: Desired) -> Desired:
    """Go on with a rollback from cold that was stopped half way."""
    if Track.CANARY not in desired.tracks:
        return desired
    return _stable_takes_canary(room, desired)


# -- what they share -------------------------------------------------------------------------------------------------------------


def _read(room: Room, model: str) -> tuple[Desired, Rollout]:
    desired = room.driver.read(model)
    if desired.rollout is None:
        raise ConfigError(f"No rollout of {model} was ever started. Start one: millrace rollout start PROJECT_DIR")
    return desired, desired.rollout


def _write(room: Room, desired: Desired, action: str, why: str, **details: Any) -> Desired:
    """The audit log first, then the deed."""
    rollout = desired.rollout.id if desired.rollout else ""
    room.audit.append(room.who, action, desired.model, why, rollout=rollout, after_revision=desired.revision, **details)
    try:
        return room.driver.write(desired)
    except ServingError as error:
        room.audit.append(room.who, f"{action}.failed", desired.model, str(error), rollout=rollout, after_revision=desired.revision)
        raise


def _new(room: Room, wish: Wish, old: int, new: int) -> Rollout:
    now = room.clock()
    return Rollout(
        id=wish.id or f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-v{new}",
        model=wish.model,
        from_version=old,
        to_version=new,
        plan=wish.plan,
        approval=wish.approval,
        started=now,
        started_by=room.who,
        reason=wish.reason,
    )


def _challenger(room: Room, desired: Desired) -> int:
    found = room.registry.aliases(desired.model).get(CHALLENGER) or room.driver.newest(desired.model)
    if found is None:
        raise ConfigError(f"There is no challenger of {desired.model}, and its store is not at hand. Name a version: --version N")
    return found


def _may_approve(rollout: Rollout, who: str) -> None:
    if not rollout.approval.required:
        raise ConfigError(f"The rollout of {rollout.model} asks for nobody's approval (deployment.approval in its project.yaml).")
    if rollout.approval.approvers and who not in rollout.approval.approvers:
        raise ConfigError(
            f"{who} may not approve; {', '.join(rollout.approval.approvers)} may. Who you are: MILLRACE_USER, else your account."
        )
    if rollout.approval.two_person and who == rollout.started_by:
        raise ConfigError(f"{who} started this rollout; somebody else must approve it (two_person).")


def _under_way(rollout: Rollout) -> str:
    if rollout.phase is Phase.PROMOTING:
        return (
            f"Version {rollout.to_version} of {rollout.model} has just taken over, and version {rollout.from_version} is still warm. Let it go: "
            f"millrace rollout finish {rollout.model}"
        )
    return f"A rollout of {rollout.model} to version {rollout.to_version} is under way. See: millrace rollout status {rollout.model}"


def _checks(decision: Decision) -> list[dict[str, Any]]:
    return [check.model_dump(mode="json") for check in decision.look.checks] if decision.look else []
