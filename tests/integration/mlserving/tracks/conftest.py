"""A model with two versions, served on tracks by the real supervisor, real model servers and the real gateway; started once for all tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlserving import store
from served_tracks import Load, Serving, serve


@pytest.fixture(scope="module")
def workspaces(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes workspaces in which version 1 is to be served, and nobody serves yet."""

    def made() -> Path:
        workspace = tmp_path_factory.mktemp("tracks")
        for version in (1, 2):
            store.publish_version(workspace / "models", "demo", version, saved / "demo" / str(version))
        (workspace / "serving").mkdir()
        (workspace / "serving" / "demo.yaml").write_text("model: demo\nrevision: 1\ntracks: {stable: {version: 1, weight: 100}}\n")
        return workspace

    return made


@pytest.fixture(scope="module")
def supervisors(workspaces: Callable[[], Path]) -> Iterator[Callable[[], Serving]]:
    """Gives the one that runs; starts one if none does yet, or a test has killed it."""
    with ExitStack() as stack:
        started: list[Serving] = []

        def running() -> Serving:
            if not started or started[-1].process.poll() is not None:
                started.append(stack.enter_context(serve(workspaces())))
            return started[-1]

        yield running


@pytest.fixture
def serving(supervisors: Callable[[], Serving]) -> Serving:
    """`millrace serve --tracks demo`, which tests of the file share."""
    return supervisors()


@pytest.fixture
def load(serving: Serving) -> Load:
    """A stream of requests to it."""
    return Load(serving.rest)
