"""The review settings that a published version carries."""

from __future__ import annotations

from pathlib import Path

from mlserving import store
from mlserving.review.settings import ReviewSettings
from mlserving.settings_file import SettingsFile

FILE = SettingsFile(ReviewSettings, "docs/review.md", "Publish the version anew: millrace run PROJECT_DIR")


def of_model(models: Path, model: str) -> ReviewSettings:
    """What the newest published version carries; the defaults where it carries nothing, or there is none.

    Args:
        models: the model store.
        model: the model's name.

    Raises:
        ConfigError: the file cannot be read, or a field of it is unknown or out of range.
    """
    newest = max(store.versions(models, model), default=None)
    path = models / model / str(newest) / store.REVIEW_SETTINGS
    return FILE.read(path) if newest is not None and path.is_file() else ReviewSettings()
