"""Who may do what in the registry, for real: MLflow's server as the chart starts it, brought to an environment's teams, and asked by our own registry code.

On SQLite and on PostgreSQL, for MLflow compares names and keeps permissions in the database.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

import binaries
from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.publishing import registry
from mlpipelines.publishing.mlflow_runs import RunEntry, client_of
from mlpipelines.workspace import Workspace
from mlplatform import errors as platform_errors
from mlplatform.environment import Environment, parse_environment
from mlplatform.plan.registry_rights import RegistryRights, registry_rights
from mlplatform.registry.difference import acts
from mlplatform.registry.server import Refusal, RegistryServer
from mlserving.rollout.aliases import Registry
from postgres import postgres_server, url_of
from raw_answers import ask, status
from registry_servers import Databases, Served, in_folder, mlflow_server, password_of
from typed_platform import ROOT

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.control_plane,
    pytest.mark.slow,
    pytest.mark.skipif(not binaries.ready(["helm"]), reason=f"no helm: type `{binaries.COMMAND}`"),
]
LAPTOP = (ROOT / "platform" / "environments" / "laptop.yaml").read_text()
MODEL, PROJECT = "cards", "cards"
TAGS = {registry.FINGERPRINT: "f1", "run_id": "run-1"}


def environment(said: str = "{auditors: [group:audit@example.com]}", text: str = LAPTOP) -> Environment:
    return parse_environment(f"{text}\nregistry: {said}\n", "laptop.yaml")


ENVIRONMENT = environment()


def server(served: Served, rights: RegistryRights, **others: str) -> RegistryServer:
    """As a deployment asks it; `others` are passwords of accounts that are not the credential's."""
    passwords = {account.user: password_of(account.credential) for account in rights.accounts} | others
    return RegistryServer(address=served.address, password=password_of("mlflow-admin"), passwords=passwords)


def bring(served: Served, wanted: Environment, **others: str) -> list[str]:
    """What a deployment does; the second time there is nothing to do."""
    rights = registry_rights(wanted)
    asked = server(served, rights, **others)
    todo = acts(rights, asked.picture())
    for act in todo:
        asked.do(act)
    assert acts(rights, asked.picture()) == []
    return [str(act) for act in todo]


@contextlib.contextmanager
def kept_in(kind: str, folder: Path) -> Iterator[Databases]:
    if kind == "sqlite":
        yield in_folder(folder)
        return
    with postgres_server() as port:
        with create_engine(url_of(port), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            for name in ("mlflow", "auth"):
                connection.execute(text(f"create database {name}"))
        address = url_of(port).removesuffix("/postgres")
        yield Databases(models=f"{address}/mlflow", permissions=f"{address}/auth")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry that has been brought to the environment, in which fraud has registered a version."""
    folder = tmp_path_factory.mktemp("mlflow")
    folder.mkdir(exist_ok=True)
    with kept_in(request.param, folder) as databases, mlflow_server(ENVIRONMENT, folder, databases) as running:
        assert bring(running, ENVIRONMENT)
        with pytest.MonkeyPatch.context() as patch:
            as_account(patch, running, "fraud.runs")
            assert register(running) == 1
            registry.record_run(
                workspace(running), RunEntry(project=PROJECT, run_id="run-1", params={"rate": 1}, metrics={"auc": 0.9}, tags={}), {}
            )
        yield running


def workspace(served: Served) -> Workspace:
    return Workspace(served.folder / "workspace")


def as_account(patch: pytest.MonkeyPatch, served: Served, user: str, *, team: str = "fraud", word: str = "") -> None:
    """What a pod, or a person, of that account has in its environment."""
    told = {account.user: account for account in registry_rights(ENVIRONMENT).accounts}
    settings = {
        "MLFLOW_TRACKING_URI": served.address,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": word or password_of(told[user].credential),
        "MLFLOW_WORKSPACE": team,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    for name, value in settings.items():
        patch.setenv(name, value)


def register(served: Served, fingerprint: str = "f1") -> int:
    saved = served.folder / "saved"
    saved.mkdir(exist_ok=True)
    (saved / "saved_model.pb").write_text("weights")
    tags = {**TAGS, registry.FINGERPRINT: fingerprint}
    return registry.register_version(
        workspace(served), project=PROJECT, model=MODEL, run_id="run-1", saved_model=saved, tags=tags, description="the first"
    )


# What our registry code does, and what it is called in the matrix.
DOES: dict[str, Callable[[Served], Any]] = {
    "read the champion": lambda served: registry.version_of(workspace(served), MODEL, 1),
    "read a run": lambda served: registry.compare_runs(workspace(served), ["run-1"]),
    "fetch the files": lambda served: registry.model_files(workspace(served), registry.version_of(workspace(served), MODEL, 1)),
    "see it in the list": lambda served: registry.list_versions(workspace(served), MODEL),
    "name the champion": lambda served: registry.promote(workspace(served), MODEL, 1),
    "tag a version": lambda served: client_of(workspace(served)).set_model_version_tag(MODEL, "1", "note", "seen"),
    "register a version": lambda served: register(served, fingerprint=uuid.uuid4().hex),
    "enter a run": lambda served: registry.record_run(
        workspace(served), RunEntry(project=PROJECT, run_id="run-2", params={}, metrics={}, tags={}), {}
    ),
    "make an experiment": lambda served: client_of(workspace(served)).create_experiment(f"by {served.address}"),
    "delete a version": lambda served: client_of(workspace(served)).delete_model_version(MODEL, "1"),
    "delete the model": lambda served: client_of(workspace(served)).delete_registered_model(MODEL),
}
READS = {"read the champion", "read a run", "fetch the files", "see it in the list"}
NAMES = READS | {"name the champion", "tag a version"}
# account, and what it may do with fraud's model
MATRIX = [
    ("fraud.runs", NAMES | {"register a version", "enter a run"}),
    ("fraud.viewer", READS),
    ("fraud.approver", NAMES),
    ("fraud.releaser", NAMES),
    ("auditor", READS),
    ("search.runs", set()),
    ("search.viewer", set()),
]
SHOWN = [name for name in DOES if name != "make an experiment"]


def can(served: Served, what: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        DOES[what](served)
    except (ConfigError, MlflowException):
        return False
    return True


@pytest.mark.parametrize(("user", "allowed"), MATRIX, ids=[user for user, _ in MATRIX])
def test_who_may_do_what_with_the_models_and_runs_of_a_team(
    served: Served, monkeypatch: pytest.MonkeyPatch, user: str, allowed: set[str]
) -> None:
    as_account(monkeypatch, served, user)
    assert {what for what in SHOWN if can(served, what)} == allowed


def test_two_teams_have_models_of_one_name_and_know_nothing_of_each_other(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    as_account(monkeypatch, served, "search.runs", team="search")
    assert registry.champion_of(workspace(served), MODEL) is None
    trigger = Registry(served.address)
    assert trigger.aliases(MODEL) == {}  # not registered here, and not refused for it
    assert trigger.version_of_run(MODEL, "run-1") is None
    assert register(served, fingerprint="another") == 1
    registry.promote(workspace(served), MODEL, 1)
    theirs = registry.champion_of(workspace(served), MODEL)
    assert theirs is not None
    assert "/workspaces/search/" in theirs.source
    assert theirs.tags[registry.FINGERPRINT] == "another"
    as_account(monkeypatch, served, "fraud.runs")
    ours = registry.version_of(workspace(served), MODEL, 1)
    assert ours.tags[registry.FINGERPRINT] == "f1"
    assert trigger.version_of_run(MODEL, "run-1")
    trigger.promote(MODEL, 1)
    assert trigger.aliases(MODEL)["champion"] == 1


def test_nobody_makes_anything_where_they_have_no_role_also_not_in_the_workspace_of_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user, team in (("search.runs", "fraud"), ("fraud.runs", "search"), ("fraud.runs", "default"), ("fraud.approver", "fraud")):
        as_account(monkeypatch, served, user, team=team)
        assert not can(served, "make an experiment"), (user, team)


def test_artifacts_go_by_the_same_rights_whatever_path_is_asked_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    as_account(monkeypatch, served, "fraud.runs")
    path = registry.version_of(workspace(served), MODEL, 1).source.removeprefix("mlflow-artifacts:/")
    url = f"{served.address}/api/2.0/mlflow-artifacts/artifacts/{path}/saved_model.pb"
    mine, theirs = (f"{team}.runs:{password_of(f'mlflow-{team}-runs')}" for team in ("fraud", "search"))
    assert status(url, user=mine, X_MLFLOW_WORKSPACE="fraud") == 200
    for team in ("fraud", "search", "default"):
        assert status(url, user=theirs, X_MLFLOW_WORKSPACE=team) != 200
        assert status(url, b"mine", method="PUT", user=theirs, X_MLFLOW_WORKSPACE=team) != 200
    assert status(url) == 401


def test_only_the_administrator_touches_permissions(served: Served) -> None:
    user = f"fraud.runs:{password_of('mlflow-fraud-runs')}"
    roles = {role["name"]: role["id"] for role in json.loads(ask(f"{served.address}/api/3.0/mlflow/roles/list", user=f"admin:{password_of('mlflow-admin')}"))["roles"]}  # fmt: skip
    body = json.dumps({"username": "fraud.runs", "role_id": roles["millrace-reader"]}).encode()
    assert status(f"{served.address}/api/3.0/mlflow/roles/assign", body, user=user, method="POST") == 403
    body = json.dumps({"username": "eve", "password": "long enough for it"}).encode()
    assert status(f"{served.address}/api/2.0/mlflow/users/create", body, user=user, method="POST") == 403
    assert status(f"{served.address}/api/3.0/mlflow/workspaces", b'{"name": "eve"}', user=user, method="POST") == 403


def test_a_wrong_password_and_a_missing_grant_are_told_in_one_sentence_with_what_to_type(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_account(monkeypatch, served, "fraud.runs", word="the one before")
    with pytest.raises(Unavailable, match=r"does not take the password of fraud\.runs, .*`make status-platform ENV=…`"):
        registry.champion_of(workspace(served), MODEL)
    as_account(monkeypatch, served, "search.runs")
    with pytest.raises(ConfigError, match=r"does not let search\.runs do that in the workspace fraud: .*`make status-platform ENV=…`"):
        register(served)
    as_account(monkeypatch, served, "search.runs", team="nobodys")
    with pytest.raises(ConfigError, match=r"has no workspace nobodys: .*`make deploy-platform ENV=…`"):
        registry.list_models(workspace(served))


def test_a_deployment_goes_on_where_one_was_interrupted_and_mends_what_somebody_changed(served: Served) -> None:
    rights = registry_rights(ENVIRONMENT)
    admin = server(served, rights)
    wanted = replace(rights, workspaces=(*rights.workspaces, "late"), roles=(*rights.roles, replace(rights.roles[0], workspace="late")))
    for act in acts(wanted, admin.picture())[:-2]:
        admin.do(act)
    for act in acts(wanted, admin.picture()):
        admin.do(act)
        admin.do(act)  # told twice, done once
    assert acts(wanted, admin.picture()) == []
    assert bring(served, ENVIRONMENT) == ["remove role late/millrace-runs"]


def test_who_is_removed_from_the_file_is_refused_after_the_next_deployment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_approves = environment(text=LAPTOP.replace("      approver: [user:ben@example.com]\n", ""))
    as_account(monkeypatch, served, "fraud.approver")
    assert can(served, "name the champion")
    assert bring(served, nobody_approves) == ["remove account fraud.approver"]
    with pytest.raises(Unavailable, match="does not take the password"):
        registry.promote(workspace(served), MODEL, 1)
    assert bring(served, ENVIRONMENT) == ["make account fraud.approver", "give the role to fraud.approver: fraud/millrace-champions"]


def test_others_may_be_read_if_the_file_says_so_and_not_any_longer_than_it_does(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    as_account(monkeypatch, served, "search.viewer")
    assert bring(served, environment("{others: read, auditors: [group:audit@example.com]}"))
    assert {what for what in SHOWN if can(served, what)} == READS
    assert bring(served, ENVIRONMENT)
    assert {what for what in SHOWN if can(served, what)} == set()


def test_a_changed_password_counts_from_the_next_deployment_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bring(served, ENVIRONMENT, **{"fraud.runs": "another word for it"}) == ["set the password of fraud.runs"]
    as_account(monkeypatch, served, "fraud.runs")
    with pytest.raises(Unavailable, match="does not take the password"):
        registry.champion_of(workspace(served), MODEL)
    as_account(monkeypatch, served, "fraud.runs", word="another word for it")
    assert registry.list_models(workspace(served))
    assert bring(served, ENVIRONMENT) == ["set the password of fraud.runs"]


def test_what_the_server_says_of_passwords_is_not_repeated(served: Served) -> None:
    rights = registry_rights(ENVIRONMENT)
    admin = server(served, rights, **{"fraud.viewer": "short"})
    todo = [act for act in acts(rights, admin.picture()) if act.user == "fraud.viewer"]
    with pytest.raises(Refusal) as refused:
        admin.do(*todo)
    assert "short" not in str(refused.value)
    assert "scrypt" not in repr(refused.value)
    assert password_of("mlflow-admin") not in repr(admin)


# -- servers of their own -------------------------------------------------------------------------------------------------


def test_the_administrators_password_is_the_secrets_after_a_restart_and_what_was_nobodys_becomes_a_teams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an installation from before workspaces left it: a model in the workspace `default`, and another password.
    databases, before = in_folder(tmp_path), "what it was before"
    with mlflow_server(ENVIRONMENT, tmp_path, databases, admin=before, MLFLOW_ENABLE_WORKSPACES="false") as old:
        with pytest.raises(platform_errors.ConfigError, match=r"does not know admin by the password .* rollout restart deployment/mlflow"):
            server(old, registry_rights(ENVIRONMENT)).picture()
        body = json.dumps({"name": MODEL}).encode()
        ask(f"{old.address}/api/2.0/mlflow/registered-models/create", body, user=f"admin:{before}", method="POST")
        with pytest.raises(platform_errors.ConfigError, match="runs without workspaces"):
            replace(server(old, registry_rights(ENVIRONMENT)), password=before).picture()

    with mlflow_server(ENVIRONMENT, tmp_path, databases) as now:
        assert bring(now, ENVIRONMENT)
        as_account(monkeypatch, now, "fraud.runs")
        assert registry.list_models(workspace(now)) == []
        move = [sys.executable, "-m", "mlflow", "db", "move-resources", databases.models, "--from", "default", "--to", "fraud"]
        subprocess.run([*move, "--resource-type", "registered_models", "--name", MODEL, "--yes"], check=True, capture_output=True)
        assert [row["model"] for row in registry.list_models(workspace(now))] == [MODEL]
    with contextlib.closing(sqlite3.connect(tmp_path / "auth.db")) as kept:
        assert [name for (name,) in kept.execute("select username from users where is_admin")] == ["admin"]
