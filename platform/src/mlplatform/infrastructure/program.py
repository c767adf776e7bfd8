"""Pulumi's own program, for one environment: started here, and what it says when it fails put into what to do.

State lies in a bucket of the environment's project; nobody's `pulumi login` matters, nor which stack somebody selected.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import deque
from enum import StrEnum

from mlplatform import google_names
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError, Conflict, PlatformError, Unavailable
from mlplatform.infrastructure.offline import PROGRAM

SIGN_IN = "gcloud auth application-default login"
REMEMBERED = 400
"""Lines of what Pulumi said, to look a failure up in."""


class Verb(StrEnum):
    """What Pulumi is asked for."""

    PREVIEW = "preview"
    """What would change, and nothing else."""
    UP = "up"
    """Make it so."""
    DRIFT = "drift"
    """What is otherwise in Google than this program left it."""
    OUTPUTS = "outputs"


ARGUMENTS: dict[Verb, tuple[str, ...]] = {
    Verb.PREVIEW: ("preview", "--diff"),
    Verb.UP: ("up", "--yes", "--skip-preview"),
    Verb.DRIFT: ("refresh", "--preview-only", "--diff", "--expect-no-changes"),
    Verb.OUTPUTS: ("stack", "output", "--json"),
}

_SAID: tuple[tuple[str, type[PlatformError], str], ...] = (
    (r"could not find default credentials|no credentials|Application Default Credentials.*not", ConfigError, "nobody is signed in to Google. Next: {sign_in}"),
    (r"invalid_grant|reauth|[Tt]oken has been expired or revoked|invalid_rapt", ConfigError, "your sign-in has expired. Next: {sign_in}"),
    (r"bucket does(n't| not) exist|NoSuchBucket", ConfigError, "there is no gs://{bucket} for Pulumi's state. Next: {bootstrap}"),
    (r"no stack named", ConfigError, "this environment has no stack yet. Next: the last line of {bootstrap}"),
    (r"passphrase must be set|incorrect passphrase", ConfigError, "the stack was made without the project's key. Next: pulumi stack change-secrets-provider '{key}'"),
    (r"currently locked by", Conflict, "somebody else is at it, or was killed. Look who: it stands above. If nobody is: {pulumi} cancel"),
    (r"no resource plugin|failed to load plugin|[Cc]ould not find plugin", ConfigError, "Pulumi's plugin for Google is not here. Next: pulumi plugin install resource gcp {plugin}"),
    (r"USER_PROJECT_DENIED|CONSUMER_INVALID|[Pp]roject .*(not found|has been deleted)|Unknown project", ConfigError, "the project {project} is not there, or is not yours. Next: gcloud projects describe {project}; it is made by {bootstrap}"),
    (r"SERVICE_DISABLED|has not been used in project .* before or it is disabled", Unavailable, "an API was switched on a moment ago and is not everywhere yet. Wait two minutes, then run the same command again"),
    (r"Quota .* exceeded|QUOTA_EXCEEDED|quotaExceeded|RESOURCE_EXHAUSTED", Unavailable, "a quota of {project} is used up; which stands above. Next: https://console.cloud.google.com/iam-admin/quotas?project={project}"),
    (r"marked for protection|deletion_protection|deletionProtection", ConfigError, "something that holds data would be deleted, and is protected. If that is meant, docs/platform-gke.md says how"),
    (r"PERMISSION_DENIED|[Pp]ermission .* denied|does not have .* access|Error 403", ConfigError, "you may not do that in {project}; which right is missing stands above. docs/platform-gke.md lists the roles"),
)  # fmt: skip
"""By what Pulumi or Google prints, the first that is found: how it is told. What none knows is told as it was said."""


def run(environment: Environment, verb: Verb) -> None:
    """Ask Pulumi, printing what it says as it says it.

    Raises:
        ConfigError: Pulumi, a sign-in, the project or the state is missing, or something protected would go.
        Conflict: somebody else is at it.
        Unavailable: Google did not do it now; the same command goes on where this one stopped.
    """
    command = [_pulumi(environment), *ARGUMENTS[verb], "--stack", environment.name, "--non-interactive"]
    heard: deque[str] = deque(maxlen=REMEMBERED)
    with subprocess.Popen(
        command, cwd=PROGRAM, env={**os.environ, **settings(environment)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.write(line)
            heard.append(line)
    if child.returncode != 0:
        raise explained("".join(heard), environment, verb)


def settings(environment: Environment) -> dict[str, str]:
    """Environment variables for Pulumi: where its state is, and in which Python its program runs."""
    assert environment.cloud is not None
    return {
        "PULUMI_BACKEND_URL": f"gs://{google_names.state_bucket(environment.cloud)}",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }


def explained(said: str, environment: Environment, verb: Verb) -> PlatformError:
    """The failure, named for what the reader can do."""
    assert environment.cloud is not None
    words = {
        "sign_in": SIGN_IN,
        "project": environment.cloud.project,
        "bucket": google_names.state_bucket(environment.cloud),
        "key": google_names.state_key(environment.cloud),
        "bootstrap": f"python -m mlplatform.infrastructure bootstrap {environment.name}",
        "pulumi": f"cd platform/gke && PULUMI_BACKEND_URL={settings(environment)['PULUMI_BACKEND_URL']} pulumi --stack {environment.name}",
        "plugin": _plugin(),
    }
    for pattern, kind, text in _SAID:
        if re.search(pattern, said):
            return kind(text.format(**words))
    if verb == Verb.DRIFT and "error: no changes were expected" in said:
        return Conflict(
            f"Google has it otherwise, as is shown above. To make it so again: python -m mlplatform.infrastructure up {environment.name}"
        )
    return Unavailable(f"pulumi {verb} failed; why stands above. What was made is known to the state: run the same command again")


def _pulumi(environment: Environment) -> str:
    if environment.cloud is None:
        raise ConfigError(
            f"{environment.name} has no 'cloud': there is nothing for Pulumi. Next: make plan-platform ENV={environment.name}"
        )
    found = shutil.which("pulumi")
    if found is None:
        raise ConfigError(
            "pulumi is not on PATH, and a cloud is made by it (https://www.pulumi.com/docs/install/). "
            f"Without it you can see what would be made: python -m mlplatform.infrastructure show {environment.name}"
        )
    return found


def _plugin() -> str:
    """The version that goes with the library."""
    pinned = re.search(r"^pulumi-gcp==(\S+)", (PROGRAM.parents[1] / "requirements" / "gke.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    return pinned[1]
