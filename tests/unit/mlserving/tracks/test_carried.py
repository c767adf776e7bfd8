"""What a version carries of how it is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserving.errors import ConfigError
from mlserving.gateway.settings import Log
from mlserving.store import SERVING_SETTINGS
from mlserving.tracks.carried import Carried, carried_by


def test_it_is_read_as_it_was_written_and_a_version_without_it_has_the_defaults(tmp_path: Path) -> None:
    assert carried_by(tmp_path) == Carried()
    said = Carried(sticky="x-caller", log=Log(share=0.5, features=("amount",)))
    (tmp_path / SERVING_SETTINGS).parent.mkdir()
    (tmp_path / SERVING_SETTINGS).write_text(said.model_dump_json())
    assert carried_by(tmp_path) == said


def test_what_is_damaged_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / SERVING_SETTINGS).parent.mkdir()
    (tmp_path / SERVING_SETTINGS).write_text("{")
    with pytest.raises(ConfigError, match="Publish the version again"):
        carried_by(tmp_path)
