"""Who may do what in the registry, worked out from the teams: the same file that says it for the cluster. Pure.

Each team has a workspace of MLflow's by its name, and what is in it is the team's: models, runs, artifacts. A name in one workspace says nothing of
another, so no team can take another's. Its pods act under one account, and the people of a role share one: MLflow knows accounts and passwords,
no groups and no Google. Which person may read which account's password is Kubernetes' to say, which does know groups (`helm/mlflow`).

`mlplatform.registry` compares this with a server and brings it there. Why workspaces: docs/decisions/0022-a-workspace-for-each-team.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlplatform.teams import Member, Role, Team

if TYPE_CHECKING:
    from mlplatform.environment import Environment

NAMESPACE = "mlflow"
URL = f"http://mlflow.{NAMESPACE}.svc:5000"
"""As pods reach it."""
ADMIN = "admin"
AUDITOR = "auditor"
PODS = "runs"
"""The part of an account's name that says it is a team's pods'."""
ACCOUNT_SECRET = "registry-account"  # noqa: S105  a name
"""The Secret of the pods' account, in each namespace of the team."""
RUNS, CHAMPIONS, READER = "millrace-runs", "millrace-champions", "millrace-reader"
"""Roles of MLflow, of which each workspace has these three."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Grant:
    """What a role gives on everything of one kind in its workspace."""

    resource: str
    permission: str


GRANTS: dict[str, tuple[Grant, ...]] = {
    # To make models and experiments, and to move and take off aliases, which MLflow counts as deleting from a model. With EDIT on versions nothing
    # that is registered can be deleted: no version, and no model that has one.
    RUNS: (
        Grant(resource="workspace", permission="USE"),
        Grant(resource="experiment", permission="MANAGE"),
        Grant(resource="registered_model", permission="MANAGE"),
        Grant(resource="registered_model_version", permission="EDIT"),
    ),
    # To name a champion; runs can be read and not written, so that what is registered stays what a run has made.
    CHAMPIONS: (
        Grant(resource="experiment", permission="READ"),
        Grant(resource="registered_model", permission="MANAGE"),
        Grant(resource="registered_model_version", permission="EDIT"),
    ),
    READER: (Grant(resource="experiment", permission="READ"), Grant(resource="registered_model", permission="READ")),
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RegistryRole:
    """A role in a workspace."""

    workspace: str
    name: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class KeptIn:
    """The Secret of the cluster in which a password is kept, under the key `password`."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody MLflow knows by a password."""

    user: str
    roles: tuple[tuple[str, str], ...]
    """Each as workspace and name."""
    workspace: str
    """In which it works; the auditor's is the first, and any other is chosen by `MLFLOW_WORKSPACE`."""
    kept_in: tuple[KeptIn, ...]
    credential: str
    """The name under which the password is kept outside of the cluster."""
    people: tuple[Member, ...] = ()
    """Who may read the password; nobody, where it is pods'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRights:
    """All of it."""

    workspaces: tuple[str, ...]
    roles: tuple[RegistryRole, ...]
    accounts: tuple[Account, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How much of each there is."""
        return {"workspace": len(self.workspaces), "role": len(self.roles), "account": len(self.accounts)}


def registry_rights(environment: Environment) -> RegistryRights:
    """What the environment says."""
    teams = tuple(environment.teams)
    return RegistryRights(
        workspaces=teams,
        roles=tuple(RegistryRole(workspace=team, name=name, grants=grants) for team in teams for name, grants in GRANTS.items()),
        accounts=tuple(accounts(environment)),
    )


def accounts(environment: Environment) -> Iterator[Account]:
    """Each team's, and the auditor's."""
    for name, team in environment.teams.items():
        kept = tuple(KeptIn(namespace=namespace, name=ACCOUNT_SECRET) for namespace in team.namespaces)
        yield _account(environment, name, PODS, RUNS, kept_in=kept)
        for role, people in _people(team).items():
            kept = (KeptIn(namespace=NAMESPACE, name=f"registry-{name}-{role}"),)
            yield _account(environment, name, role, READER if role == Role.VIEWER else CHAMPIONS, kept_in=kept, people=people)
    if environment.registry.auditors and environment.teams:
        yield Account(
            user=AUDITOR,
            roles=tuple((team, READER) for team in environment.teams),
            workspace=next(iter(environment.teams)),
            kept_in=(KeptIn(namespace=NAMESPACE, name=f"registry-{AUDITOR}"),),
            credential=f"mlflow-{AUDITOR}",
            people=environment.registry.auditors,
        )


def _account(
    environment: Environment, team: str, part: str, role: str, *, kept_in: tuple[KeptIn, ...], people: tuple[Member, ...] = ()
) -> Account:
    others = environment.teams if environment.registry.others == "read" else ()
    return Account(
        # A dot is in no team's name, so two teams cannot mean one account.
        user=f"{team}.{part}",
        roles=((team, role), *((other, READER) for other in others if other != team)),
        workspace=team,
        kept_in=kept_in,
        credential=f"mlflow-{team}-{part}",
        people=people,
    )


def _people(team: Team) -> dict[Role, tuple[Member, ...]]:
    """Who shares an account. Everybody with a role is a viewer, and a runner is no more than that here: runs are Kubeflow's, and write as pods."""
    everybody = tuple(dict.fromkeys(member for members in team.members.values() for member in members))
    found = {Role.VIEWER: everybody} | {role: team.members.get(role, ()) for role in (Role.APPROVER, Role.RELEASER)}
    return {role: people for role, people in found.items() if people}
