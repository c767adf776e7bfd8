"""What a version says of how requests to it are dealt and logged: so that the first one on tracks is served as its project asks, before any rollout."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from mlserving.errors import ConfigError
from mlserving.gateway.settings import Log
from mlserving.settings_file import Strict
from mlserving.store import SERVING_SETTINGS


class Carried(Strict):
    """`deployment.sticky` and `deployment.log` of the project that published the version."""

    sticky: str | None = None
    log: Log = Log()


def carried_by(folder: Path) -> Carried:
    """What the version in `folder` carries; the defaults for one that carries nothing.

    Raises:
        ConfigError: it cannot be read.
    """
    file = folder / SERVING_SETTINGS
    try:
        return Carried.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Carried()
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{file} is damaged: {error}. Publish the version again: millrace run PROJECT_DIR --no-cache") from error
