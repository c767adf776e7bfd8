"""The project's modules, imported as its steps import them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "invoice-matching"
NAMES = {file.stem for file in PROJECT.glob("*.py")}


@pytest.fixture(scope="module")
def code() -> Iterator[Callable[[str], ModuleType]]:
    """A module of the project by its name; afterwards another project's modules of the same names are found again."""
    before, others = list(sys.path), {name: sys.modules.pop(name) for name in NAMES & set(sys.modules)}
    sys.path.insert(0, str(PROJECT))
    yield importlib.import_module
    sys.path[:] = before
    for name in NAMES & set(sys.modules):
        del sys.modules[name]
    sys.modules.update(others)
