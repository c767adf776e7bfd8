"""The step `registry-rights`: the registry's permissions looked at, brought to what the plan says, and told apart for `plan` and `status`.

The passwords are the cluster's own, from the Secrets that pods and people read them from: wherever secrets come from, that is what has to work.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlplatform.cluster.kubectl import Change, Cluster
from mlplatform.cluster.objects import Name
from mlplatform.errors import ConfigError, Unavailable
from mlplatform.plan.registry_rights import GRANTS, NAMESPACE, KeptIn, RegistryRights
from mlplatform.registry.difference import Act, Picture, Verb, acts, strangers
from mlplatform.registry.reach import forwarded
from mlplatform.registry.server import Refusal, RegistryServer

_LOOK = 2.0
"""Seconds between two tries of a server that has just started."""
_PORT = 5000
_SERVER = Name(api="apps/v1", kind="Deployment", namespace=NAMESPACE, name="mlflow")
_ADMIN = KeptIn(namespace=NAMESPACE, name="mlflow-auth")
_NEW = {Verb.MAKE_WORKSPACE: "Workspace", Verb.MAKE_ROLE: "Role", Verb.MAKE_ACCOUNT: "Account"}
_GONE = {Verb.REMOVE_ROLE: "Role", Verb.REMOVE_ACCOUNT: "Account"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryStep:
    """Of one environment.

    Args:
        cluster: where the registry and its Secrets are.
        rights: what is wanted.
        address: of the registry, where it is reached otherwise than by kubectl's port-forward.
    """

    cluster: Cluster
    rights: RegistryRights
    address: str = ""

    def look(self) -> tuple[Change, list[str]]:
        """What bringing it there would do, and the accounts that nobody's file names.

        Where there is no registry yet, all of it; where it cannot be asked, why.
        """
        if self.cluster.get(_SERVER) is None and not self.address:
            return Change(new=tuple(_names(self.rights))), []
        try:
            picture = self._picture()
        except (Unavailable, ConfigError) as error:
            return Change(unknown=str(error)), []
        return _told(acts(self.rights, picture)), strangers(picture)

    def is_there(self) -> bool:
        """Whether a deployment ever wrote its roles; where it cannot be asked, whether there is a registry that may hold some."""
        try:
            return any(role.name in GRANTS for role in self._picture().roles)
        except (Unavailable, ConfigError):
            return self.cluster.get(_SERVER) is not None

    def bring(self, seconds: float) -> Change:
        """Do it; what was done.

        Raises:
            Unavailable: the registry did not answer for so long, or refused; what was done stays done.
            ConfigError: a password is missing, or the administrator's is another.
            Conflict: somebody else changes the permissions at the same time.
        """
        deadline, done = time.monotonic() + seconds, list[Act]()
        while True:
            try:
                with self._server() as server:
                    for act in acts(self.rights, server.picture()):
                        server.do(act)
                        done.append(act)
                return _told(done)
            except Refusal:
                raise
            except Unavailable:  # it has just been started, or the pod that we had reached is gone
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK)

    def _picture(self) -> Picture:
        with self._server() as server:
            return server.picture()

    @contextmanager
    def _server(self) -> Iterator[RegistryServer]:
        passwords = {account.user: self._password(account.kept_in[0]) for account in self.rights.accounts}
        admin = self._password(_ADMIN)
        if self.address:
            yield RegistryServer(address=self.address.rstrip("/"), password=admin, passwords=passwords)
            return
        with forwarded(self.cluster.programs, NAMESPACE, "mlflow", _PORT) as address:
            yield RegistryServer(address=address, password=admin, passwords=passwords)

    def _password(self, kept: KeptIn) -> str:
        there = self.cluster.get(Name(api="v1", kind="Secret", namespace=kept.namespace, name=kept.name))
        word = base64.b64decode(((there or {}).get("data") or {}).get("password", "")).decode()
        if not word:
            raise ConfigError(
                f"The Secret {kept.namespace}/{kept.name} is not there or holds no password. The step `secrets` makes it: deploy without leaving that out."
            )
        return word


def _names(rights: RegistryRights) -> Iterator[Name]:
    """Everything that would be made, in words that a plan counts."""
    for workspace in rights.workspaces:
        yield _name("Workspace", "", workspace)
    for role in rights.roles:
        yield _name("Role", role.workspace, role.name)
    for account in rights.accounts:
        yield _name("Account", "", account.user)


def _told(todo: list[Act]) -> Change:
    """As any other step tells it. What is given to somebody who is being made goes without saying."""
    new = [act for act in todo if act.verb in _NEW]
    gone = [act for act in todo if act.verb in _GONE]
    fresh = {(act.workspace, act.role, act.user) for act in new}
    other = [act for act in todo if act not in new and act not in gone and not _of(act, fresh)]
    return Change(
        new=tuple(_named(act, _NEW) for act in new),
        changed=tuple(str(act) for act in other),
        gone=tuple(_named(act, _GONE) for act in gone),
        text="".join(f"registry: {act}\n" for act in todo),
    )


def _of(act: Act, fresh: set[tuple[str, str, str]]) -> bool:
    return (act.workspace, act.role, "") in fresh if act.verb == Verb.GRANT else act.verb == Verb.ASSIGN and ("", "", act.user) in fresh


def _named(act: Act, kinds: dict[Verb, str]) -> Name:
    kind = kinds[act.verb]
    return _name(kind, act.workspace if act.role else "", act.role or act.user or act.workspace)


def _name(kind: str, workspace: str, name: str) -> Name:
    return Name(api="registry", kind=kind, namespace=workspace, name=name)
