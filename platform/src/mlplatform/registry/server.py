"""MLflow's permissions over its REST: a picture of them, and each act. No other program of ours writes them.

Ids are MLflow's own and are looked up each time: a deployment that was interrupted begins with what is there. Passwords are compared by signing in with them,
for a server keeps only what they hash to, and repeats even that in some of its errors: of an answer we show its first line and no more.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlplatform.errors import ConfigError, Conflict, Unavailable
from mlplatform.plan.registry_rights import ADMIN
from mlplatform.registry.difference import AccountThere, Act, Given, Picture, RoleThere, Verb

_OWN_ROLE = re.compile(r"__user_\d+__")
"""Where MLflow keeps what an account holds by itself."""
_SECONDS = 30
_UNAUTHENTICATED, _DENIED, _NOT_ON = 401, 403, 503
_CALLS = {
    Verb.MAKE_WORKSPACE: ("POST", "3.0/mlflow/workspaces"),
    Verb.MAKE_ROLE: ("POST", "3.0/mlflow/roles/create"),
    Verb.REMOVE_ROLE: ("DELETE", "3.0/mlflow/roles/delete"),
    Verb.GRANT: ("POST", "3.0/mlflow/roles/permissions/add"),
    Verb.CHANGE: ("PATCH", "3.0/mlflow/roles/permissions/update"),
    Verb.REVOKE: ("DELETE", "3.0/mlflow/roles/permissions/remove"),
    Verb.REVOKE_OWN: ("DELETE", "3.0/mlflow/roles/permissions/remove"),
    Verb.MAKE_ACCOUNT: ("POST", "2.0/mlflow/users/create"),
    Verb.SET_PASSWORD: ("PATCH", "2.0/mlflow/users/update-password"),
    Verb.REMOVE_ADMIN: ("PATCH", "2.0/mlflow/users/update-admin"),
    Verb.REMOVE_ACCOUNT: ("DELETE", "2.0/mlflow/users/delete"),
    Verb.ASSIGN: ("POST", "3.0/mlflow/roles/assign"),
    Verb.UNASSIGN: ("DELETE", "3.0/mlflow/roles/unassign"),
}
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past any proxy: the way leads over this machine or the cluster's own network, and passwords go along it."""


class Refusal(Unavailable):
    """The server understood and said no; `status` is HTTP's."""

    def __init__(self, text: str, status: int, code: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryServer:
    """One, as its administrator sees it.

    Args:
        address: `http://HOST:PORT`.
        password: the administrator's.
        passwords: by account, those that the cluster keeps.
    """

    address: str
    password: str = field(repr=False)
    passwords: Mapping[str, str] = field(repr=False)

    def picture(self) -> Picture:
        """What is there.

        Raises:
            Unavailable: it does not answer.
            ConfigError: it does not know its administrator by the cluster's password, or has no workspaces.
        """
        users = self._ask("GET", "2.0/mlflow/users/list")["users"]
        workspaces = self._ask("GET", "3.0/mlflow/workspaces").get("workspaces", [])
        return Picture(
            workspaces=frozenset(each["name"] for each in workspaces),
            roles=tuple(
                RoleThere(workspace=role["workspace"], name=role["name"], given=frozenset(map(_given, role["permissions"])))
                for role in self._roles()
                if not _OWN_ROLE.fullmatch(role["name"])
            ),
            accounts=tuple(self._account(user) for user in users),
        )

    def do(self, act: Act) -> None:
        """One of what differs.

        Raises:
            Unavailable, ConfigError: as `picture` does.
            Conflict: what it is about is not there any more.
        """
        method, path = _CALLS[act.verb]
        if method == "POST":
            self._make(path, self._body(act))
        else:
            self._ask(method, path, self._body(act))

    def _body(self, act: Act) -> dict[str, Any]:
        match act.verb:
            case Verb.MAKE_WORKSPACE:
                return {"name": act.workspace}
            case Verb.MAKE_ROLE:
                return {"workspace": act.workspace, "name": act.role}
            case Verb.CHANGE | Verb.REVOKE | Verb.REVOKE_OWN:
                wanted = {"permission": act.given.permission} if act.verb == Verb.CHANGE and act.given else {}
                return {"role_permission_id": self._permission(act), **wanted}
            case Verb.GRANT if act.given:
                grant = {"resource_type": act.given.resource, "resource_pattern": act.given.pattern, "permission": act.given.permission}
                return {"role_id": self._role(act)["id"], **grant}
        whom: dict[str, Any] = {"username": act.user} if act.user else {}
        password = {"password": self.passwords[act.user]} if act.verb in (Verb.MAKE_ACCOUNT, Verb.SET_PASSWORD) else {}
        lowered = {"is_admin": False} if act.verb == Verb.REMOVE_ADMIN else {}
        role = {"role_id": self._role(act)["id"]} if act.role else {}
        return whom | password | lowered | role

    # -- looking ----------------------------------------------------------------------------------------------------------

    def _account(self, user: Mapping[str, Any]) -> AccountThere:
        name = user["username"]
        own = [role for role in user["roles"] if _OWN_ROLE.fullmatch(role["name"])]
        return AccountThere(
            user=name,
            is_admin=user["is_admin"],
            roles=frozenset((role["workspace"], role["name"]) for role in user["roles"] if role not in own),
            own=frozenset((role["workspace"], _given(permission)) for role in own for permission in role["permissions"]),
            knows=name not in self.passwords or self._knows(name),
        )

    def _knows(self, user: str) -> bool:
        try:
            self._ask("GET", "2.0/mlflow/users/current", who=user)
        except Refusal as refusal:
            if refusal.status == _UNAUTHENTICATED:
                return False
            raise
        return True

    def _roles(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "3.0/mlflow/roles/list")["roles"])

    def _role(self, act: Act) -> dict[str, Any]:
        return _only(act, (role for role in self._roles() if (role["workspace"], role["name"]) == (act.workspace, act.role)))

    def _own_role(self, act: Act) -> dict[str, Any]:
        users = self._ask("GET", "2.0/mlflow/users/list")["users"]
        roles = (role for user in users if user["username"] == act.user for role in user["roles"])
        return _only(act, (role for role in roles if role["workspace"] == act.workspace and _OWN_ROLE.fullmatch(role["name"])))

    def _permission(self, act: Act) -> int:
        """The id of a permission, whatever it permits."""
        if act.given is None:
            raise AssertionError(act)
        role, place = self._role(act) if act.role else self._own_role(act), (act.given.resource, act.given.pattern)
        found = (each for each in role["permissions"] if (each["resource_type"], each["resource_pattern"]) == place)
        return int(_only(act, found)["id"])

    # -- asking -----------------------------------------------------------------------------------------------------------

    def _make(self, path: str, body: Mapping[str, Any]) -> None:
        """What may be there already: made by whoever was interrupted after it."""
        try:
            self._ask("POST", path, body)
        except Refusal as refusal:
            if refusal.code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, who: str = ADMIN) -> dict[str, Any]:
        word = self.password if who == ADMIN else self.passwords[who]
        headers = {"Authorization": "Basic " + base64.b64encode(f"{who}:{word}".encode()).decode(), "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/{path}", data=data, method=method, headers=headers)  # noqa: S310  an address of ours
        try:
            with _OPENER.open(request, timeout=_SECONDS) as answer:
                said = answer.read()
                return dict(json.loads(said)) if said.strip() else {}
        except urllib.error.HTTPError as error:
            raise self._refusal(who, f"{method} {path}", error) from None  # the body, which may hold what a password hashes to
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"The registry at {self.address} does not answer: {error}. Look: kubectl --namespace mlflow get pods"
            ) from error

    def _refusal(self, who: str, asked: str, error: urllib.error.HTTPError) -> Exception:
        code, text = _read(error.read())
        if who == ADMIN and error.code in (_UNAUTHENTICATED, _DENIED):
            return ConfigError(
                f"The registry does not know {ADMIN} by the password in the Secret mlflow/mlflow-auth, which its pods take up when they start: "
                "kubectl --namespace mlflow rollout restart deployment/mlflow, then type the same command again."
            )
        if error.code == _NOT_ON and "without workspaces" in text:
            return ConfigError(
                "The registry runs without workspaces, so nothing in it is anybody's: deploy helm/mlflow of this repository (without --without mlflow)."
            )
        return Refusal(f"The registry refused {asked} ({error.code} {code}): {text}", error.code, code)


def _only(act: Act, found: Iterator[dict[str, Any]]) -> dict[str, Any]:
    one = next(found, None)
    if one is None:
        raise Conflict(
            f"Somebody else changes the registry's permissions: to {act}, there is nothing any more. Type the same command again."
        )
    return one


def _read(body: bytes) -> tuple[str, str]:
    """MLflow's name of the error, and the first line of what it says, up to where it repeats a database's."""
    try:
        told = json.loads(body)
        return str(told["error_code"]), str(told["message"]).partition("\n")[0].partition(" Error: ")[0]
    except (ValueError, KeyError, TypeError):
        return "", body[:200].decode(errors="replace").partition("\n")[0]


def _given(permission: Mapping[str, Any]) -> Given:
    return Given(resource=permission["resource_type"], pattern=permission["resource_pattern"], permission=permission["permission"])
