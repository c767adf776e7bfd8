"""The bearer tokens that may post: lines of a file, looked at again when it changes, compared in constant time.

Two lines are two tokens that both count, so a token is changed without a gap: add the new one, give it to Alertmanager, take the old one out.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from mlpipelines.errors import ConfigError, Unavailable

_SHORTEST = 16


class Tokens:
    """What stands in one file."""

    def __init__(self, file: Path) -> None:
        """Reads the file.

        Raises:
            ConfigError: it holds no token, or one that could be guessed.
            Unavailable: it cannot be read.
        """
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._digests: tuple[bytes, ...] = ()
        self._look()

    def allow(self, header: str | None) -> bool:
        """Whether an Authorization header carries one of the tokens. A file that cannot be read leaves the tokens that were read last."""
        with suppress(ConfigError, Unavailable):  # a Secret that is being replaced: what was right a moment ago still is
            self._look()
        scheme, _, token = (header or "").partition(" ")
        given = _digest(token.strip())
        matches = [hmac.compare_digest(given, known) for known in self._digests]  # all of them: time must not tell which
        return scheme.lower() == "bearer" and any(matches)

    def _look(self) -> None:
        try:
            stat = self._file.stat()
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if mark == self._seen:
                return
            lines = [line.strip() for line in self._file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"The token file {self._file} cannot be read: {error}. Check --token-file.") from error
        if not lines or any(len(line) < _SHORTEST for line in lines):
            raise ConfigError(f"{self._file} needs a token of at least {_SHORTEST} characters on each line. Make one: openssl rand -hex 32")
        self._digests, self._seen = tuple(_digest(line) for line in lines), mark


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
