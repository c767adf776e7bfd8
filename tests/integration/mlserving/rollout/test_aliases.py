"""Aliases in a real MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserving.errors import Unavailable
from mlserving.rollout.aliases import ROLLED_BACK, RUN, Registry, client_at


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with three versions of a model, of which the first is the champion and the last the challenger."""
    found = f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    client = client_at(found)
    client.create_registered_model("demo")
    for _ in range(3):
        client.create_model_version("demo", source="file:///nowhere")
    client.set_registered_model_alias("demo", "champion", "1")
    client.set_registered_model_alias("demo", "challenger", "3")
    return found


def test_promotion_and_rollback_move_the_aliases_and_doing_either_again_changes_nothing(uri: str) -> None:
    registry = Registry(uri)
    for _ in range(2):
        registry.promote("demo", 3)
        assert registry.aliases("demo") == {"champion": 3, "previous": 1}
    for _ in range(2):
        registry.roll_back("demo", to=1, away_from=3, why="customers complain")
        assert registry.aliases("demo") == {"champion": 1}
    assert client_at(uri).get_model_version("demo", "3").tags[ROLLED_BACK].endswith("UTC: customers complain")


def test_a_model_that_nobody_registered_has_no_aliases_and_none_are_made(uri: str) -> None:
    registry = Registry(uri)
    registry.promote("by-hand", 2)
    assert registry.aliases("by-hand") == {}


def test_the_version_that_a_run_registered_is_found_by_the_run(uri: str) -> None:
    client_at(uri).set_model_version_tag("demo", "2", RUN, "run-of-2")
    registry = Registry(uri)
    assert registry.version_of_run("demo", "run-of-2") == 2
    assert registry.version_of_run("demo", "another") is None
    assert registry.version_of_run("nobody", "run-of-2") is None


def test_a_registry_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/none.db")
    registry.promote("demo", 2)
    assert registry.version_of_run("demo", "run") is None
    assert registry.aliases("demo") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_the_registry_does_not_know_is_said(uri: str) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        Registry(uri).promote("demo", 77)
