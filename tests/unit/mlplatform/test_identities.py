"""Each component has an account of its own, and reaches what it needs and no more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mlplatform.environment import Environment, read_environment
from mlplatform.identities import RUNNER, Right, identities

FILES = sorted((Path(__file__).resolve().parents[3] / "platform" / "environments").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def environment(request: pytest.FixtureRequest) -> Environment:
    return read_environment(request.param)


def test_no_two_components_share_an_account(environment: Environment) -> None:
    accounts = Counter((identity.namespace, identity.account) for identity in identities(environment))
    assert max(accounts.values()) == 1


def test_every_namespace_of_a_team_has_a_runner_that_reaches_what_its_steps_mount(environment: Environment) -> None:
    runners = {identity.namespace: identity for identity in identities(environment) if identity.account == RUNNER}
    assert set(runners) == {namespace for team in environment.teams.values() for namespace in team.namespaces}
    mounted = dict.fromkeys(("workspace", "models", "predictions"), Right.WRITE)
    assert all(dict(runner.buckets).items() >= mounted.items() for runner in runners.values())


def test_only_the_secrets_operator_reads_secret_manager(environment: Environment) -> None:
    readers = [identity.component for identity in identities(environment) if identity.secrets]
    assert readers == (["secrets"] if environment.secrets.kind == "secret-manager" else [])
