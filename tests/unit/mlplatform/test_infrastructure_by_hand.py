"""What people type in Google Cloud: commands that gcloud takes, for everything that a program must not do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from clouds import ENVIRONMENTS, EVERY, environment
from mlplatform import google_names
from mlplatform.environment import FOLDER, read_environment
from mlplatform.errors import ConfigError
from mlplatform.infrastructure.by_hand import bootstrap, secrets
from mlplatform.plan.credentials import in_secret_manager

ROOT = Path(__file__).resolve().parents[3]


def commands(line: str) -> list[str]:
    """The gcloud commands of a line, also one within another, without what a shell would put in."""
    line = line.partition("  #")[0]
    outer = re.sub(r'"\$(\(.*\)|PASSWORD)"', "secret", line)
    return [
        part
        for part in [*re.split(r" (?:&&|\|\||\||>/dev/null 2>&1) ?", outer), *re.findall(r"\$\((.*)\)", line)]
        if part.startswith("gcloud ")
    ]


def typed() -> dict[str, str]:
    """One of each shape: secrets and databases differ by their names only."""
    lines = [line for name in EVERY for line in [*bootstrap(environment(name)), *secrets(environment(name))]]
    return {re.sub(r"millrace-[a-z-]+|create \S+|gke-[a-z-]+", "…", command): command for line in lines for command in commands(line)}


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="no gcloud on PATH")
@pytest.mark.slow
@pytest.mark.parametrize("command", typed().values())
def test_gcloud_takes_the_command(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    nobody = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    if "login" in words:
        words.append("--help")
    done = subprocess.run(words, env=nobody, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)
    # Whoever is not signed in is told so after the words have been understood, and nothing is asked of Google.
    assert done.returncode == 0 or "You do not currently have an active account selected" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_container_gets_a_value_and_every_database_its_user(name: str) -> None:
    text = "\n".join(secrets(environment(name)))
    for credential in in_secret_manager(environment(name)):
        assert f"versions add {google_names.secret(environment(name), credential)} " in text
    for engine in google_names.Engine:
        assert f"--instance {google_names.instance(environment(name), engine)} " in text


def test_a_value_that_is_there_is_left_alone() -> None:
    for line in secrets(environment("gke-prod")):
        if "openssl rand" in line:
            assert line.startswith("gcloud secrets versions describe latest --secret ")
            assert " >/dev/null 2>&1 || openssl rand" in line


def test_the_state_is_made_before_the_stack() -> None:
    *before, last = bootstrap(environment("gke-prod"))
    assert any("storage buckets create gs://millrace-prod-millrace-state" in line for line in before)
    assert "pulumi stack init gke-prod" in last


def test_a_cluster_that_is_there_already_needs_none_of_it() -> None:
    laptop = read_environment(ROOT / FOLDER / "laptop.yaml")
    for ask in (bootstrap, secrets):
        with pytest.raises(ConfigError, match="laptop has no 'cloud'"):
            ask(laptop)
