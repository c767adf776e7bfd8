"""What people write is refused with the file, the field and the page that lists all fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mlserving.errors import ConfigError
from mlserving.gateway import settings as gateway_settings
from mlserving.monitor import settings as monitor_settings

KINDS: list[Any] = [gateway_settings.FILE, monitor_settings.FILE]


@pytest.mark.parametrize("kind", KINDS, ids=["gateway", "monitor"])
@pytest.mark.parametrize(("text", "names"), [("a: [", "is no YAML"), ("wrong: 1", "wrong: Extra inputs"), ("[1]", "the file: ")])
def test_a_file_that_cannot_be_meant_is_told_by_name_and_field(tmp_path: Path, kind: Any, text: str, names: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=names) as told:
        kind.read(file)
    assert str(file) in str(told.value)
    assert text == "a: [" or kind.page in str(told.value)


@pytest.mark.parametrize("kind", KINDS, ids=["gateway", "monitor"])
def test_a_file_that_is_not_there_is_told_with_what_to_do(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"cannot be read.*{re.escape(kind.remedy)}"):
        kind.read(tmp_path / "none.yaml")


def test_an_empty_file_has_every_default_and_lacks_what_has_none() -> None:
    assert monitor_settings.FILE.parse("", "here") == monitor_settings.MonitorSettings()
    with pytest.raises(ConfigError, match="here: models: Field required"):
        gateway_settings.FILE.parse("", "here")
