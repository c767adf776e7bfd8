"""A model with two versions, served on tracks by the real supervisor, real model servers and the real gateway; started once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlserving import store
from served_tracks import Load, Serving, serve


@pytest.fixture(scope="module")
def serving(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    workspace = tmp_path_factory.mktemp("tracks")
    for version in (1, 2):
        store.publish_version(workspace / "models", "demo", version, saved / "demo" / str(version))
    (workspace / "serving").mkdir()
    (workspace / "serving" / "demo.yaml").write_text("model: demo\nrevision: 1\ntracks: {stable: {version: 1, weight: 100}}\n")
    with serve(workspace) as running:
        yield running


@pytest.fixture
def load(serving: Serving) -> Load:
    """A stream of requests to it."""
    return Load(serving.rest)
