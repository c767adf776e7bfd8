"""Credentials in files: a folder with one file for each, of the machine that deploys. Never in git, never in a chart's values."""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlplatform.errors import ConfigError
from mlplatform.plan.steps import Credential, SecretObject

_LETTERS = string.ascii_letters + string.digits
"""Of what is made by chance: nothing that an address or a shell would read otherwise."""
_PLACEHOLDERS = ("changeme", "change-me", "password", "secret", "todo", "xxx", "placeholder")


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFiles:
    """A folder of credentials.

    Args:
        folder: where.
        generate: make what is missing by chance, and keep it there.
    """

    folder: Path
    generate: bool

    def values(self, objects: Iterable[SecretObject]) -> dict[str, str]:
        """Each credential by name.

        Raises:
            ConfigError: some are missing or are placeholders; all of them are named.
        """
        wanted = {credential.name: credential for each in objects for credential in each.sources.values()}
        found = {name: self._value(credential) for name, credential in sorted(wanted.items())}
        if missing := [name for name, value in found.items() if value is None]:
            raise ConfigError(
                f"Credentials are missing in {self.folder}: {', '.join(missing)}. Write one file for each, with nothing else in it."
            )
        values = {name: value for name, value in found.items() if value is not None}
        if bad := [name for name, value in values.items() if value.lower() in _PLACEHOLDERS]:
            raise ConfigError(f"These credentials in {self.folder} are placeholders: {', '.join(bad)}. Write the real ones.")
        return values

    def complete(self, objects: Iterable[SecretObject]) -> bool:
        """Whether every one has its file; makes none."""
        return all((self.folder / credential.name).is_file() for each in objects for credential in each.sources.values())

    def _value(self, credential: Credential) -> str | None:
        file = self.folder / credential.name
        if file.is_file():
            return file.read_text(encoding="utf-8").strip() or None
        if not (self.generate and credential.length):
            return None
        value = "".join(secrets.choice(_LETTERS) for _ in range(credential.length))
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Made as somebody's own before anything is in it.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(value)
        return value
