"""Failures that were foreseen, named for what can be done about them; `exit_code` is what a command returns."""

from __future__ import annotations


class GpuQueueError(Exception):
    """The common base."""

    exit_code = 1


class ConfigError(GpuQueueError):
    """A file, a setting or an argument is wrong: mend it and try again."""

    exit_code = 2


class Unavailable(GpuQueueError):
    """Somebody did not answer, or not sensibly: try again."""

    exit_code = 4


class Refused(GpuQueueError):
    """Somebody answered no: the HTTP code, the API's reason (`Forbidden`, `Invalid`, …) and its words."""

    exit_code = 3

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({code} {reason})")
        self.code, self.reason, self.message = code, reason, message


class Conflict(Refused):
    """Somebody else wrote it meanwhile: look again."""


class Gone(Refused):
    """It is not there, or what was asked for is too old to be known: list again."""
