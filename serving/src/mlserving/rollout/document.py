"""What is wanted of a model that is served on tracks: which version on which track with which weight, and the rollout that moves them.

One document a model: a YAML file in the workspace, which `millrace serve --tracks` follows, or the values of a helm release. `revision` rises
with each write, and whoever writes names the one that was read, so two who act at a time cannot undo each other's work.
"""

from __future__ import annotations

from pydantic import Field

from mlserving.gateway.settings import Log, Track
from mlserving.rollout.plan import ALL, Part, Phase, Rollout

_KEPT = 20


class Wanted(Part):
    """A version on a track."""

    version: int = Field(ge=1)
    digest: str = ""
    """`mlserving.store.digest` of the version's folder; empty: not checked."""
    weight: float = Field(default=0.0, ge=0, le=100)


class Past(Part):
    """A rollout that is over, in short; the audit log has the rest."""

    id: str
    from_version: int
    to_version: int
    phase: Phase
    started: float
    started_by: str
    reason: str
    ended: float
    because: str


class Desired(Part):
    """The document."""

    model: str
    revision: int = 0
    tracks: dict[Track, Wanted]
    sticky: str | None = None
    """As in gateway.yaml."""
    log: Log = Log()
    """As in gateway.yaml."""
    rollout: Rollout | None = None
    """The one that is under way, or the last one."""
    past: tuple[Past, ...] = ()
    """Those before it, the newest last."""

    @property
    def stable(self) -> Wanted:
        """The version on the stable track."""
        return self.tracks[Track.STABLE]

    @property
    def answering(self) -> Wanted:
        """The version that answers most."""
        return max(self.tracks.values(), key=lambda wanted: wanted.weight)


def steered(desired: Desired, rollout: Rollout) -> Desired:
    """The document with the rollout as it is now and weights that follow from it. Versions stay where they are."""
    canary, stable = desired.tracks.get(Track.CANARY), desired.stable
    tracks = {Track.STABLE: stable.model_copy(update={"weight": ALL if canary is None else ALL - rollout.weight})}
    if canary is not None:
        tracks[Track.CANARY] = canary.model_copy(update={"weight": rollout.weight})
    return desired.model_copy(update={"tracks": tracks, "rollout": rollout})


def with_canary(desired: Desired, canary: Wanted) -> Desired:
    """The document with a version on the canary track that answers nothing yet."""
    stable = desired.stable.model_copy(update={"weight": ALL})
    return desired.model_copy(update={"tracks": {Track.STABLE: stable, Track.CANARY: canary.model_copy(update={"weight": 0.0})}})


def all_to_canary(desired: Desired) -> Desired:
    """The canary answers everything, the stable version is warm."""
    tracks = {Track.STABLE: desired.stable.model_copy(update={"weight": 0.0})}
    tracks[Track.CANARY] = desired.tracks[Track.CANARY].model_copy(update={"weight": ALL})
    return desired.model_copy(update={"tracks": tracks})


def stable_follows(desired: Desired) -> Desired:
    """The canary's version is loaded on stable too, while the canary answers."""
    canary = desired.tracks[Track.CANARY]
    return desired.model_copy(update={"tracks": {**desired.tracks, Track.STABLE: canary.model_copy(update={"weight": 0.0})}})


def without_canary(desired: Desired) -> Desired:
    """Stable answers everything, and nothing else is loaded."""
    return desired.model_copy(update={"tracks": {Track.STABLE: desired.stable.model_copy(update={"weight": ALL})}})


def begin(desired: Desired, rollout: Rollout, canary: Wanted) -> Desired:
    """A new rollout starts; the one before it becomes past."""
    past = (*desired.past, _past(desired.rollout))[-_KEPT:] if desired.rollout else desired.past
    return with_canary(desired, canary).model_copy(update={"rollout": rollout, "past": past})


def history(desired: Desired) -> list[Past]:
    """Every rollout that is remembered, the newest first."""
    return [*([_past(desired.rollout)] if desired.rollout else []), *reversed(desired.past)]


def _past(rollout: Rollout) -> Past:
    return Past(
        id=rollout.id,
        from_version=rollout.from_version,
        to_version=rollout.to_version,
        phase=rollout.phase,
        started=rollout.started,
        started_by=rollout.started_by,
        reason=rollout.reason,
        ended=rollout.ended or rollout.promoted or rollout.started,
        because=rollout.ended_because,
    )
