"""Which version of the model scores, decided once for a whole run: the champion, or the one that was asked for.

From then on the version is meant, not the alias: a champion that moves while files are being scored changes nothing in this run.
The files are held against what `register` recorded of them, so a model that was changed in the store scores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlpipelines.errors import ConfigError, Conflict
from mlpipelines.evaluation.served_model import fingerprint
from mlpipelines.publishing import registry
from mlpipelines.workspace import Workspace
from mlserving.store import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedModel:
    """A version and where its files lie."""

    model: str
    version: int
    folder: Path
    digest: str
    """`mlserving.store.digest` of the folder, as servers and the chart know the version."""
    fingerprint: str
    """What the registry recorded of the graph: the same wherever the version's files lie."""


def pin_model(workspace: Workspace, model: str, version: int | None) -> PinnedModel:
    """Look the version up (the champion, for None) and check its files.

    Raises:
        ConfigError: there is no champion, or no such version.
        Conflict: the files are not those that were registered.
        Unavailable: the registry does not answer, or the files are gone.
    """
    found = registry.version_of(workspace, model, version) if version is not None else registry.champion_of(workspace, model)
    if found is None:
        raise ConfigError(
            f"{model} has no champion in {workspace.root}. Train and publish one: `millrace run PROJECT_DIR`, or name a version with --version."
        )
    folder = registry.model_files(workspace, found)
    registered = found.tags.get(registry.FINGERPRINT)
    if registered is None or fingerprint(folder) != registered:
        raise Conflict(
            f"The files of {model} version {found.version} in {folder} are not those that were registered "
            f"({(registered or 'no fingerprint')[:12]}). Somebody changed them: restore the folder from a backup, or delete it, and the registry's copy is used."
        )
    return PinnedModel(model=model, version=found.version, folder=folder, digest=digest(folder), fingerprint=registered)
