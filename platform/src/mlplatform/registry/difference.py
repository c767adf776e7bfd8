"""What has to be done so that the registry grants what the environment says, and nothing else. Pure: a picture goes in, acts come out.

What is taken away comes first, so that a deployment which is interrupted leaves nobody with more than the file gives. Accounts and roles that we would not
have made are named and left alone, as is what a removed team has registered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlplatform.plan.registry_rights import ADMIN, AUDITOR, GRANTS, PODS, Account, Grant, RegistryRights, RegistryRole
from mlplatform.teams import Role

_OURS = re.compile(rf"{AUDITOR}|[-a-z0-9]+\.({'|'.join([PODS, *Role])})")
EVERYTHING = "*"
"""The pattern of a grant on all of a kind; our roles have no other."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Given:
    """A permission that is there."""

    resource: str
    pattern: str
    permission: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleThere:
    """A role that is there."""

    workspace: str
    name: str
    given: frozenset[Given]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountThere:
    """An account that is there."""

    user: str
    is_admin: bool
    roles: frozenset[tuple[str, str]]
    """Workspace and name of each."""
    own: frozenset[tuple[str, Given]] = frozenset()
    """What it holds by itself, with its workspace: MLflow gives everything to whoever makes a thing."""
    knows: bool = True
    """Whether its password is the one that the cluster keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A registry's permissions."""

    workspaces: frozenset[str]
    roles: tuple[RoleThere, ...]
    accounts: tuple[AccountThere, ...]


class Verb(StrEnum):
    """What can be done to permissions."""

    REMOVE_ACCOUNT = "remove account"
    REMOVE_ADMIN = "remove the administrator's rights of"
    UNASSIGN = "take the role from"
    REVOKE_OWN = "revoke what it holds by itself from"
    REMOVE_ROLE = "remove role"
    REVOKE = "revoke from role"
    MAKE_WORKSPACE = "make workspace"
    MAKE_ROLE = "make role"
    CHANGE = "change in role"
    GRANT = "grant to role"
    MAKE_ACCOUNT = "make account"
    SET_PASSWORD = "set the password of"  # noqa: S105  a name
    ASSIGN = "give the role to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing to do."""

    verb: Verb
    workspace: str = ""
    role: str = ""
    user: str = ""
    given: Given | None = None

    def __str__(self) -> str:
        """For people."""
        place = f"{self.workspace}/{self.role}" if self.role else self.workspace
        grant = f"{self.given.permission} on {self.given.resource} {self.given.pattern}" if self.given else ""
        if self.user:
            more = f"{grant} in {place}" if grant else place
            return f"{self.verb} {self.user}" + (f": {more}" if more else "")
        return f"{self.verb} {place}" + (f": {grant}" if grant else "")


def acts(wanted: RegistryRights, there: Picture) -> list[Act]:
    """In their order; none where the registry is as it should be."""
    return [*_taken(wanted, there), *_made(wanted, there)]


def strangers(there: Picture) -> list[str]:
    """Accounts that no deployment has made: somebody has, by hand."""
    return sorted(
        f"{each.user}, an administrator" if each.is_admin else each.user
        for each in there.accounts
        if each.user != ADMIN and not _OURS.fullmatch(each.user)
    )


def _taken(wanted: RegistryRights, there: Picture) -> Iterator[Act]:
    accounts = {each.user: each for each in wanted.accounts}
    for each in there.accounts:
        if each.user in accounts:
            yield from _taken_from(accounts[each.user], each)
        elif _OURS.fullmatch(each.user):
            yield Act(verb=Verb.REMOVE_ACCOUNT, user=each.user)
    roles = {(role.workspace, role.name): role for role in wanted.roles}
    for role in there.roles:
        if role.name not in GRANTS:
            continue
        if (role.workspace, role.name) not in roles:
            yield Act(verb=Verb.REMOVE_ROLE, workspace=role.workspace, role=role.name)
            continue
        kinds = {grant.resource for grant in roles[role.workspace, role.name].grants}
        for given in sorted(role.given):
            if given.pattern != EVERYTHING or given.resource not in kinds:
                yield Act(verb=Verb.REVOKE, workspace=role.workspace, role=role.name, given=given)


def _taken_from(wanted: Account, there: AccountThere) -> Iterator[Act]:
    if there.is_admin:
        yield Act(verb=Verb.REMOVE_ADMIN, user=there.user)
    for workspace, role in sorted(there.roles - set(wanted.roles)):
        yield Act(verb=Verb.UNASSIGN, user=there.user, workspace=workspace, role=role)
    # What pods have made in their own workspace is their team's anyway.
    at_home = wanted.workspace if not wanted.people else ""
    for workspace, given in sorted(there.own):
        if workspace != at_home:
            yield Act(verb=Verb.REVOKE_OWN, user=there.user, workspace=workspace, given=given)


def _made(wanted: RegistryRights, there: Picture) -> Iterator[Act]:
    yield from (Act(verb=Verb.MAKE_WORKSPACE, workspace=name) for name in wanted.workspaces if name not in there.workspaces)
    roles = {(role.workspace, role.name): role for role in there.roles}
    for role in wanted.roles:
        yield from _made_role(role, roles.get((role.workspace, role.name)))
    accounts = {each.user: each for each in there.accounts}
    for account in wanted.accounts:
        known = accounts.get(account.user)
        if known is None:
            yield Act(verb=Verb.MAKE_ACCOUNT, user=account.user)
        elif not known.knows:
            yield Act(verb=Verb.SET_PASSWORD, user=account.user)
        for workspace, name in account.roles:
            if known is None or (workspace, name) not in known.roles:
                yield Act(verb=Verb.ASSIGN, user=account.user, workspace=workspace, role=name)


def _made_role(wanted: RegistryRole, there: RoleThere | None) -> Iterator[Act]:
    if there is None:
        yield Act(verb=Verb.MAKE_ROLE, workspace=wanted.workspace, role=wanted.name)
    has = {given.resource: given.permission for given in (there.given if there else ()) if given.pattern == EVERYTHING}
    for grant in wanted.grants:
        if has.get(grant.resource) != grant.permission:
            verb = Verb.CHANGE if grant.resource in has else Verb.GRANT
            yield Act(verb=verb, workspace=wanted.workspace, role=wanted.name, given=_on_everything(grant))


def _on_everything(grant: Grant) -> Given:
    return Given(resource=grant.resource, pattern=EVERYTHING, permission=grant.permission)
