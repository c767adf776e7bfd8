"""What can go wrong when models are stored, served or asked, named for what the reader can do about it.

The `millrace` command prints the text of an error that carries `exit_code` and exits with it, so these classes need no
common ancestor with those of the other packages: this package imports none of them. A text ends with the next thing to type.
"""

from __future__ import annotations


class ServingError(Exception):
    """A failure that was foreseen. `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(ServingError):
    """An argument, a request or a file is wrong: fix it and try again."""

    exit_code = 2


class NotServed(ConfigError):
    """No such model, version, label or signature is served."""


class Unavailable(ServingError):
    """A server, a disk or a model did not answer: try again."""

    exit_code = 4


class NobodyServes(Unavailable):
    """Whoever would load models is not there at the moment: nothing is known against a version."""


class Conflict(ServingError):
    """Somebody else wrote this first: look again."""

    exit_code = 5
