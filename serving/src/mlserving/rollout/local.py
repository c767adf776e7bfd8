"""One machine: what is wanted is a YAML file in the workspace, and `millrace serve --tracks` follows it.

The file is written whole, under a lock, and only if its revision is still the one that was read. What the supervisor has brought into force it
tells in `in_force.json` beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlserving import store
from mlserving.errors import ConfigError, Conflict, NotServed, Unavailable
from mlserving.rollout.document import Desired
from mlserving.tracks import announcement
from mlserving.workspace import model_store, only_writer, serving_folder, write_whole

_PAUSE = 0.05


class LocalDriver:
    """See `driver.Driver`."""

    def __init__(self, workspace: Path) -> None:
        self._folder = serving_folder(workspace)
        self._store = model_store(workspace)

    def read(self, model: str) -> Desired:
        """See `driver.Driver`."""
        found = read_file(file_of(self._folder, model))
        if found is None:
            raise NotServed(f"{model} is not served on tracks from {self._folder.parent}. Begin with: millrace serve --tracks {model}")
        return found

    def write(self, desired: Desired) -> Desired:
        """See `driver.Driver`."""
        path = file_of(self._folder, desired.model)
        with only_writer(path):
            found = read_file(path)
            if (found.revision if found else 0) != desired.revision:
                raise Conflict(
                    f"{path} was changed by somebody else since it was read. Look again: millrace rollout status {desired.model}"
                )
            written = desired.model_copy(update={"revision": desired.revision + 1})
            write_whole(path, yaml.safe_dump(written.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return written

    def await_in_force(self, desired: Desired, seconds: float) -> None:
        """See `driver.Driver`."""
        deadline = time.monotonic() + seconds
        while True:
            told = in_force(self._folder)
            found = told["models"].get(desired.model, {})
            if found.get("revision", 0) >= desired.revision:
                return
            if found.get("trouble") and found.get("seen", 0) >= desired.revision:
                raise Unavailable(
                    f"{found['trouble']} Look at its log in {self._folder / 'logs'}, then: millrace rollout status {desired.model}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"What was written for {desired.model} is not in force after {seconds:.0f} s. Look at `millrace serve --tracks`, then: millrace rollout status {desired.model}"
                )
            time.sleep(_PAUSE)

    def digest(self, model: str, version: int) -> str:
        """See `driver.Driver`."""
        if version not in store.versions(self._store, model):
            known = ", ".join(map(str, store.versions(self._store, model))) or "none"
            raise ConfigError(f"{self._store} has no version {version} of {model}, only: {known}. `millrace run` publishes one.")
        return store.digest(self._store / model / str(version))

    def newest(self, model: str) -> int | None:
        """See `driver.Driver`."""
        return max(store.versions(self._store, model), default=None)


def file_of(folder: Path, model: str) -> Path:
    """Where what is wanted of a model lies. Raises ConfigError for the one name that is taken."""
    if model == "gateway":
        raise ConfigError(
            "a model named 'gateway' cannot be served on tracks: serving/gateway.yaml is the gateway's own. Set deployment.model."
        )
    return folder / f"{model}.yaml"


def read_file(path: Path) -> Desired | None:
    """What a file says; None where there is none.

    Raises:
        ConfigError: it says something that cannot be.
    """
    try:
        return Desired.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not as Millrace writes it: {error}. Restore it from a backup.") from error


def in_force(folder: Path) -> dict[str, Any]:
    """What the supervisor tells.

    Raises:
        Unavailable: none runs.
    """
    return announcement.read(folder)


def admin_address(folder: Path) -> Callable[[], list[str]]:
    """Where the gateway's metrics are now."""
    return lambda: [in_force(folder)["admin"]]
