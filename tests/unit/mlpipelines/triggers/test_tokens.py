"""Who may post."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.triggers.tokens import Tokens

OLD, NEW = "old-0123456789abcdef", "new-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(OLD + "\n")
    return file


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (f"Bearer {OLD}", True),
        (f"bearer  {OLD} ", True),
        (f"Basic {OLD}", False),
        (f"Bearer {OLD}x", False),
        ("Bearer ", False),
        (OLD, False),
        (None, False),
        ("Bearer ÿ", False),
    ],
)
def test_only_the_token_as_a_bearer_is_let_in(file: Path, header: str | None, *, allowed: bool) -> None:
    assert Tokens(file).allow(header) is allowed


def test_a_token_is_changed_without_a_gap_and_without_a_restart(file: Path) -> None:
    tokens = Tokens(file)
    file.write_text(f"{OLD}\n{NEW}\n")
    assert [tokens.allow(f"Bearer {token}") for token in (OLD, NEW)] == [True, True]
    file.unlink()
    assert tokens.allow(f"Bearer {NEW}")
    file.write_text(NEW)
    assert [tokens.allow(f"Bearer {token}") for token in (OLD, NEW)] == [False, True]


@pytest.mark.parametrize("content", ["", "\n\n", "short\n", f"{OLD}\nshort\n"])
def test_a_file_without_a_good_token_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError, match="openssl rand"):
        Tokens(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="--token-file"):
        Tokens(tmp_path / "missing")
