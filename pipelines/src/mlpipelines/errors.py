"""Every failure that a person can do something about, named for what that is.

Steps and adapters raise these; `millrace` prints the text and exits with the class's code; a step that runs in a pod
does the same, so the code in Kubernetes and in the terminal agree. Anything else that escapes is a bug and keeps its
traceback. A text ends with the next command to type.
"""

from __future__ import annotations


class MillraceError(Exception):
    """A failure that was foreseen. `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(MillraceError):
    """A file or an argument is wrong: fix it and run again."""

    exit_code = 2


class Rejected(MillraceError):
    """The work was done and the answer is no: read the report. `report` is a JSON-able table of the reasons."""

    exit_code = 3

    def __init__(self, message: str, report: list[dict[str, object]] | None = None) -> None:
        super().__init__(message)
        self.report = report or []


class DataRejected(Rejected):
    """The rows break the reviewed schema, a data rule, or the source cannot be read as what it claims to be."""


class ModelRejected(Rejected):
    """The challenger is not better, too slow, too large, or answers differently once exported."""


class Unavailable(MillraceError):
    """Something outside did not answer: try again."""

    exit_code = 4


class Conflict(MillraceError):
    """Somebody else is at it, or what was read has changed since: look again."""

    exit_code = 5
