"""A project with two published versions, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_world import make_world
from mlpipelines.batch.request import BatchOutcome, BatchRequest
from mlpipelines.batch.run import run_batch
from mlpipelines.project_file import load_project
from mlpipelines.workspace import Workspace

Score = Callable[..., BatchOutcome]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world that every test gets a copy of."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder, versions=2)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    """A folder with `payments` (the project) and `workspace`; version 2 is the champion."""
    shutil.copytree(made, tmp_path / "world")
    return tmp_path / "world"


@pytest.fixture
def request_for(world: Path) -> Callable[..., BatchRequest]:
    """A request on the world: `in` → `out`, unless a test says otherwise; everything is logged."""

    def make(**changes: Any) -> BatchRequest:
        settings = changes.pop("settings", ())
        values: dict[str, Any] = {
            "project": load_project(world / "payments", settings=settings),
            "project_dir": world / "payments",
            "workspace": Workspace(world / "workspace"),
            "input": str(world / "in"),
            "output": world / "out",
            "log_share": 1.0,
        }
        return BatchRequest(**{**values, **changes})

    return make


@pytest.fixture
def score(request_for: Callable[..., BatchRequest]) -> Score:
    """Score, in this process."""
    return lambda **changes: run_batch(request_for(**changes))
