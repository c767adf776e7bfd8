"""What can go wrong when a platform is planned, installed or looked at, named for what the reader can do about it.

The `millrace` command prints the text of an error that carries `exit_code` and exits with it. A text ends with the next thing to type.
"""

from __future__ import annotations


class PlatformError(Exception):
    """A failure that was foreseen. `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(PlatformError):
    """An environment file, a secret or an argument is wrong: fix it; nothing was done."""

    exit_code = 2


class Unavailable(PlatformError):
    """A cluster did not answer, or something in it is not ready: the same command goes on where this one stopped."""

    exit_code = 4


class Conflict(PlatformError):
    """Somebody else deploys right now, or owns what we would write: look again."""

    exit_code = 5
