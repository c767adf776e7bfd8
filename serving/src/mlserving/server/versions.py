"""Which versions of a model should be served: the decision, and nothing else.

Given the version policy, what lies on disk, what is loaded and what could not be loaded, `plan` says what to load and what
to unload. It never gives up a version that answers before its successor answers too, and it treats a version that does
not load as if it were not there, so the one before stays (or, at the start, is loaded instead). `mlserving.server.library` carries it out.
The policies are those of TensorFlow Serving's model_config_list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest `count` versions."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Every:
    """All versions on disk."""


@dataclass(frozen=True, slots=True)
class Specific:
    """These versions and no others."""

    versions: frozenset[int]


Policy = Latest | Every | Specific


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model to serve: its name, the folder that holds its version folders, which versions, and labels for some of them."""

    name: str
    base_path: Path
    policy: Policy = Latest()
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next: versions to load, newest first, and versions to unload."""

    load: tuple[int, ...] = ()
    unload: tuple[int, ...] = ()


def plan(policy: Policy, *, on_disk: Collection[int], loaded: Collection[int], failed: Collection[int]) -> Plan:
    """The next steps towards what `policy` wants. `failed` are versions on disk that did not load as they lie there now."""
    wanted = _chosen(policy, set(on_disk) - set(failed))
    missing = wanted - set(loaded)
    if missing:
        return Plan(load=tuple(sorted(missing, reverse=True)))
    if not wanted and on_disk:  # nothing that is wanted can be had: what answers now goes on answering
        return Plan()
    return Plan(unload=tuple(sorted(set(loaded) - wanted)))


def _chosen(policy: Policy, candidates: set[int]) -> set[int]:
    match policy:
        case Latest(count):
            return set(sorted(candidates)[-count:])
        case Every():
            return candidates
        case Specific(versions):
            return candidates & versions
