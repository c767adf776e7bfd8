"""Running `helm` and `kubectl`, and saying in our words what they complain about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from mlplatform.errors import ConfigError, Conflict, PlatformError, Unavailable

_SECONDS = 300
_CONTEXT = {"kubectl": "--context", "helm": "--kube-context"}
"""What each calls the option that names one."""
_SIGN_IN = (
    "unauthorized",
    "must be logged in",
    "you must be logged",
    "invalid_grant",
    "reauth",
    "token has expired",
    "expired",
    "executable gke-gcloud-auth-plugin",
)
_SILENT = (
    "unable to connect",
    "connection refused",
    "no such host",
    "i/o timeout",
    "tls handshake timeout",
    "cluster unreachable",
    "eof",
    "was refused",
)
_LONG = 800
"""Characters of a complaint that people are shown."""
_RIGHTS = ("forbidden: user ",)
"""Somebody has no right. `forbidden` alone is also what guards say (pod security, quotas, sizes of volumes) and the API server of fields that nobody may change."""
_GUARDED = ("denied request", "is forbidden: ")
_INVALID = ("is invalid:", "invalid value:")
_LOG = re.compile(r"^(?:[EWI][0-9]{4} .*|level=WARN .*)\n?", re.MULTILINE)
"""Lines of a program's log among what it says to people."""
_BUSY = ("another operation", "has been modified", "already exists")


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """`kubectl` and `helm`, for one kubeconfig and context.

    `HELM` and `KUBECTL` in the environment name others than those on PATH.
    """

    kubeconfig: str = ""
    context: str = ""

    def kubectl(
        self, *arguments: str, text: str = "", seconds: float = _SECONDS, lenient: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """One command; `text` is its standard input. `lenient` leaves the exit code to the caller."""
        return self._run("kubectl", arguments, text=text, seconds=seconds, lenient=lenient)

    def helm(self, *arguments: str, text: str = "", seconds: float = _SECONDS, lenient: bool = False) -> subprocess.CompletedProcess[str]:
        """One command, likewise."""
        return self._run("helm", arguments, text=text, seconds=seconds, lenient=lenient)

    def started(self, *arguments: str, errors: IO[str]) -> subprocess.Popen[str]:
        """kubectl, going on: what it says comes by `stdout`, what it complains about goes to a file."""
        command = self._command("kubectl", arguments)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._settings)

    @property
    def _settings(self) -> dict[str, str]:
        return os.environ | ({"KUBECONFIG": self.kubeconfig} if self.kubeconfig else {})

    def _command(self, program: str, arguments: Sequence[str]) -> list[str]:
        return [found(program), *arguments, *([_CONTEXT[program], self.context] if self.context else [])]

    def _run(self, program: str, arguments: Sequence[str], *, text: str, seconds: float, lenient: bool) -> subprocess.CompletedProcess[str]:
        command = self._command(program, arguments)
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=seconds, env=self._settings)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"{program} {arguments[0]} did not end within {seconds:.0f} s. Is the cluster there? kubectl cluster-info"
            ) from error
        if done.returncode and not lenient:
            raise complaint(program, arguments, done.stderr)
        return done


def found(program: str) -> str:
    """Where it is.

    Raises:
        ConfigError: nowhere.
    """
    path = shutil.which(os.environ.get(program.upper()) or program)
    if path is None:
        raise ConfigError(f"{program} is not on PATH, and {program.upper()} does not name it. Install it, or build ours: make tools")
    return path


def complaint(program: str, arguments: Sequence[str], said: str) -> PlatformError:
    """What a program complains about, as the error that tells the reader what to do."""
    whole = _LOG.sub("", said).strip() or "it said nothing"
    last, low = _shortened(whole), whole.lower()
    if any(words in low for words in _SIGN_IN):
        return ConfigError(
            f"The cluster does not know you any more: {last}\nSign in again: gcloud auth login, then gcloud container clusters get-credentials CLUSTER"
        )
    if any(words in low for words in _SILENT):
        return Unavailable(
            f"The cluster does not answer: {last}\nLook: kubectl cluster-info. What was done stays done; type the same command again."
        )
    if any(words in low for words in _RIGHTS):
        return ConfigError(f"You may not do that: {last}\nWho may stands in the environment, under access.admins. See: kubectl auth whoami")
    if refusal := _refusal(low):
        return PlatformFailure(f"{refusal}: {last}\nWhat cannot be changed in place: docs/platform.md", said=last)
    if any(words in low for words in _BUSY):
        return Conflict(f"Somebody else changes the same thing: {last}\nType the same command again.")
    return PlatformFailure(
        f"{program} {' '.join(arguments[:4])} failed: {last}\nMend that, and type the same command again: it goes on where it stopped.",
        said=last,
    )


def _shortened(text: str) -> str:
    """Of a long text both ends: the API server quotes whole objects between the name of what it refuses and the reason."""
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]} … {text[-_LONG // 2 :]}"


def _refusal(low: str) -> str:
    """How to say that the cluster looked at what it was given and would not take it; empty where it is something else."""
    if any(words in low for words in _INVALID):
        return "The API server refuses it"
    return "A guard of the cluster refused" if any(words in low for words in _GUARDED) else ""


class PlatformFailure(Unavailable):
    """A program refused what it was given; `said` are its own words, which are in the text too."""

    def __init__(self, text: str, *, said: str) -> None:
        super().__init__(text)
        self.said = said
