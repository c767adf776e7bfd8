"""Which model servers there should be, and what the gateway should be told of them. Pure: documents and addresses in, settings out.

A model's settings change as a whole and only when every version on its tracks is loaded; until then the gateway goes on with those before.
So a version that does not load never takes a request, and one that answers is let go only after nobody is sent to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlserving.gateway.settings import Backend, GatewaySettings, Model, Rollout, Track
from mlserving.rollout.document import Desired


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A version of a model, which one model server serves."""

    model: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a model server listens."""

    grpc: str
    rest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What the gateway is told of one model."""

    settings: Model
    desired: Desired
    """The document that it follows from."""


def members(desired: Desired) -> set[Member]:
    """The versions that a document wants loaded."""
    return {Member(desired.model, wanted.version) for wanted in desired.tracks.values()}


def next_settings(wanted: Iterable[Desired], up: Mapping[Member, Address], before: Mapping[str, InForce]) -> dict[str, InForce]:
    """What the gateway should be told now: of each model what is wanted, if it can be, else what it was told before."""
    told = {}
    for desired in wanted:
        if members(desired) <= up.keys():
            told[desired.model] = InForce(settings=_settings(desired, up), desired=desired)
        elif desired.model in before:
            told[desired.model] = _with_word_of(desired, _moved(before[desired.model], up))
    return told


def needed(wanted: Iterable[Desired], told: Mapping[str, InForce]) -> set[Member]:
    """The versions that must run: those wanted, and those that the gateway still sends requests to."""
    return {member for desired in [*wanted, *(each.desired for each in told.values())] for member in members(desired)}


def file_of(told: Mapping[str, InForce]) -> dict[str, Any]:
    """gateway.yaml."""
    return GatewaySettings(models={name: each.settings for name, each in sorted(told.items())}).model_dump(mode="json")


def is_in_force(page: Mapping[str, Any], told: InForce) -> bool:
    """Whether the gateway, by its /tracks, deals by these settings, and every server that it knows of serves the version it should."""
    tracks = page.get("models", {}).get(told.desired.model, {}).get("tracks", {})
    return tracks.keys() == {track.value for track in told.settings.tracks} and all(
        _same(tracks[track.value], backend, told.desired.tracks[track].version) for track, backend in told.settings.tracks.items()
    )


def _same(page: Mapping[str, Any], backend: Backend, version: int) -> bool:
    endpoints = page["endpoints"]
    alike = page["grpc"] == backend.grpc and page["rest"] == backend.rest and abs(page["weight"] - backend.weight) < 1e-6  # noqa: PLR2004
    return alike and bool(endpoints) and all(each["up"] and each["version"] == version for each in endpoints)


def _settings(desired: Desired, up: Mapping[Member, Address]) -> Model:
    tracks: dict[Track, Backend] = {}
    for track, wanted in desired.tracks.items():
        address = up[Member(desired.model, wanted.version)]
        tracks[track] = Backend(grpc=address.grpc, rest=address.rest, weight=wanted.weight)
    return Model(tracks=tracks, sticky=desired.sticky, log=desired.log, rollout=told_of(desired))


def told_of(desired: Desired) -> Rollout | None:
    """What the gateway is told of the rollout, for Prometheus."""
    rollout = desired.rollout
    if rollout is None:
        return None
    told = rollout.model_dump(include={"id", "from_version", "to_version", "phase", "step", "verdict"})
    return Rollout(**told, steps=len(rollout.plan.steps))


def _with_word_of(desired: Desired, before: InForce) -> InForce:
    """The settings before, with what is to be told of the rollout: its version is not loaded yet."""
    return InForce(settings=before.settings.model_copy(update={"rollout": told_of(desired)}), desired=before.desired)


def _moved(before: InForce, up: Mapping[Member, Address]) -> InForce:
    """The same settings, for servers that came back on other ports."""
    return InForce(settings=_settings(before.desired, up), desired=before.desired) if members(before.desired) <= up.keys() else before
