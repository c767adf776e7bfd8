"""What a registered version's training left for runs that train nothing, fetched from the registry."""

from __future__ import annotations

from pathlib import Path

from mlpipelines.artifacts import Trained
from mlpipelines.errors import ConfigError
from mlpipelines.publishing.registry import TRAINED_FOLDER, RegisteredVersion, local_folder
from mlpipelines.workspace import Workspace


def trained_files(workspace: Workspace, version: RegisteredVersion) -> Path:
    """What the version's training left (`artifacts.Trained`) as a local folder.

    Raises:
        ConfigError: it left nothing.
        Unavailable: the registry does not answer.
    """
    source = f"{version.source.rsplit('/', 1)[0]}/{TRAINED_FOLDER}"
    kept = local_folder(workspace, source)
    if not Trained(kept).facts.is_file():
        raise ConfigError(
            f"Version {version.version} of {version.model} left no trained model to build on ({source}): its project has no finish() in model.py, or an "
            "older Millrace trained it. Train: `millrace run` without --reuse."
        )
    return kept
