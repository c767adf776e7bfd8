"""A project's own modules as fixtures: imported as its steps import them, and the import path as it was afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlpipelines.project_code import load_code


def module_of(project: Path, name: str) -> Callable[..., Iterator[ModuleType]]:
    """A fixture, once for a test module: `project/name.py`. Where it is assigned to is what it is called."""

    @pytest.fixture(scope="module")
    def loaded() -> Iterator[ModuleType]:
        before = list(sys.path)
        yield load_code(project, name)
        sys.path[:] = before

    return loaded


def module_beside(fixture: str, name: str) -> Callable[..., ModuleType]:
    """A fixture: a module of the project that the module of another fixture imports."""

    @pytest.fixture(scope="module")
    def loaded(request: pytest.FixtureRequest) -> Any:
        request.getfixturevalue(fixture)
        return sys.modules[name]

    return loaded
