"""What the clouds are made of, whole; `make golden` writes it again. Read the diff as code."""

from __future__ import annotations

import pytest

from cloud_resources import GOLDEN
from clouds import ENVIRONMENTS, made
from mlplatform.infrastructure import listing


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_program_makes_what_was_reviewed(name: str) -> None:
    assert listing(made(name)) == (GOLDEN / f"{name}.txt").read_text(), "make golden, and read the difference"


def test_no_listing_is_left_of_an_environment_that_has_gone() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(ENVIRONMENTS)
