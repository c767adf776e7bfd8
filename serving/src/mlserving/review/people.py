"""Who may review on a small installation: a file of names, roles and hashed tokens. There is no first user and no default password.

`millrace review add-user NAME` makes a token and prints it once; kept is only its scrypt hash (RFC 7914). The file is read anew when it
changes, so a user who was removed is out at the next click. Where people sign in elsewhere, a proxy says who they are (`access`) and this file is
not needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mlserving.errors import ConfigError, Conflict, Unavailable
from mlserving.review.cases import Person

NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,99}", re.ASCII)
ROLES = ("reviewer", "lead")
_COST = {"n": 2**14, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024}
_NOBODY = "0" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A line of the file."""

    role: str
    salt: str
    hash: str

    @property
    def mark(self) -> str:
        """Changes with the token: a session that was begun with the old one is over."""
        return self.hash[:16]


class People:
    """The file.

    Args:
        path: where it lies; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: tuple[int, int, int] | None = None
        self._users: Mapping[str, User] = {}

    def users(self) -> Mapping[str, User]:
        """By name.

        Raises:
            ConfigError: the file is not as this module writes it.
        """
        try:
            state = self.path.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
            if stamp != self._read_at:
                self._users = _parsed(self.path.read_text(encoding="utf-8"), self.path)
                self._read_at = stamp
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error}. Name the users' file with --users.") from error
        return self._users

    def knows(self, name: str, token: str) -> bool:
        """Whether it is that user's token. A name that is not there takes as long as a wrong token."""
        user = self.users().get(name)
        found = _hash(token, user.salt if user else _NOBODY)
        return hmac.compare_digest(found, user.hash if user else _NOBODY) and user is not None

    def person(self, name: str) -> Person | None:
        """The user, as the queue knows people."""
        user = self.users().get(name)
        return Person(name, lead=user.role == "lead") if user else None

    def add(self, name: str, role: str, *, reset: bool = False) -> str:
        """Make a user. Returns the token, which is kept nowhere.

        Raises:
            ConfigError: that is no name.
            Conflict: the user is there, and `reset` does not ask for a new token.
            Unavailable: the file cannot be written.
        """
        if not NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot name a user: use letters, digits and . @ + _ -, beginning with a letter or digit.")
        token, salt = secrets.token_urlsafe(18), secrets.token_hex(16)
        with self._changing() as users:
            if name in users and not reset:
                raise Conflict(f"{name} is there already. For a new token: millrace review add-user {name} --reset")
            users[name] = User(role=role, salt=salt, hash=_hash(token, salt))
        return token

    def remove(self, name: str) -> None:
        """Take a user out. Their reviews stay.

        Raises:
            ConfigError: there is no such user.
            Unavailable: the file cannot be written.
        """
        with self._changing() as users:
            if name not in users:
                raise ConfigError(f"There is no user {name!r} in {self.path}. It has: {', '.join(users) or 'nobody'}")
            del users[name]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        """The users, to be changed; one at a time, and written whole."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                users = dict(self.users())
                yield users
                text = json.dumps({"users": {name: asdict(user) for name, user in sorted(users.items())}}, indent=1)
                fresh = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
                write_private(fresh, text + "\n")
                fresh.rename(self.path)
        except OSError as error:
            raise Unavailable(f"{self.path} could not be written: {error}. Nothing was changed.") from error


def introduced(name: str, leads: Collection[str]) -> Person | None:
    """Somebody whom a proxy names, in whatever spelling; None if that cannot be a name."""
    name = name.rpartition(":")[2].strip().lower()  # Google writes `accounts.google.com:` before the address in its plain headers
    return Person(name, lead=name in leads) if NAME.fullmatch(name) else None


def write_private(path: Path, text: str) -> None:
    """A new file that only its owner reads. Raises FileExistsError where there is one."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _hash(token: str, salt: str) -> str:
    return hashlib.scrypt(token.encode(), salt=bytes.fromhex(salt), dklen=32, **_COST).hex()


def _parsed(text: str, path: Path) -> dict[str, User]:
    try:
        users = {str(name): User(**fields) for name, fields in json.loads(text)["users"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is not a users' file: {error}. Move it away and begin anew: millrace review add-user NAME") from error
    for name, user in users.items():
        if user.role not in ROLES:
            raise ConfigError(f"{path}: {name}: role {user.role!r} is none of {', '.join(ROLES)}. Mend it there.")
    return users
