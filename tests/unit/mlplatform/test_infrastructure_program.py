"""Pulumi is asked about the environment's own stack and state, and what it says when it fails is told as what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clouds import environment
from mlplatform.errors import ConfigError, Conflict, PlatformError, Unavailable
from mlplatform.infrastructure import __main__ as command
from mlplatform.infrastructure.program import Verb, run

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that writes down how it was started and does what `behaves` was told."""
    file = tmp_path / "pulumi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    behaves(file, "")
    return file


def behaves(file: Path, then: str) -> None:
    file.write_text(f'#!/bin/sh\necho "$@ in $(basename $PWD) with $PULUMI_BACKEND_URL" > {file.parent}/asked\n{then}\n')
    file.chmod(0o755)


def asked(file: Path) -> str:
    return (file.parent / "asked").read_text().strip()


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (Verb.PREVIEW, "preview --diff"),
        (Verb.UP, "up --yes --skip-preview"),
        (Verb.DRIFT, "refresh --preview-only --diff --expect-no-changes"),
        (Verb.OUTPUTS, "stack output --json"),
    ],
)
def test_pulumi_is_asked_about_the_environments_stack_in_the_projects_state(pulumi: Path, verb: Verb, words: str) -> None:
    run(environment("gke-staging"), verb)
    assert asked(pulumi) == f"{words} --stack gke-staging --non-interactive in gke with gs://millrace-staging-millrace-state"


def test_what_pulumi_says_is_printed(pulumi: Path, capsys: pytest.CaptureFixture[str]) -> None:
    behaves(pulumi, "echo '+ 153 to create'; echo careful >&2")
    run(environment("gke-prod"), Verb.PREVIEW)
    assert capsys.readouterr().out == "+ 153 to create\ncareful\n"


FAILURES: dict[str, tuple[str, type[PlatformError], str]] = {
    "nobody is signed in": ("error: google: could not find default credentials. See https://…", ConfigError, "Next: gcloud auth application-default login"),
    "the sign-in is old": ('oauth2: "invalid_grant" "reauth related error (invalid_rapt)"', ConfigError, "has expired. Next: gcloud auth application-default login"),
    "no state": ("error: unable to check if bucket is accessible: blob (code=NotFound): storage: bucket doesn't exist", ConfigError, "Next: python -m mlplatform.infrastructure bootstrap gke-prod"),
    "no stack": ("error: no stack named 'gke-prod' found", ConfigError, "the last line of python -m mlplatform.infrastructure bootstrap gke-prod"),
    "somebody else": ("error: the stack is currently locked by 1 lock(s).", Conflict, "pulumi --stack gke-prod cancel"),
    "no plugin": ("error: no resource plugin 'pulumi-resource-gcp' found in the workspace", ConfigError, "pulumi plugin install resource gcp 10."),
    "no project": ('googleapi: Error 403: Permission denied on resource project millrace-prod. reason: "CONSUMER_INVALID"', ConfigError, "Next: gcloud projects describe millrace-prod"),
    "an API that has just been switched on": ("Error 403: Compute Engine API has not been used in project 1 before or it is disabled.", Unavailable, "Wait two minutes"),
    "no quota": ("Error 403: Quota 'NVIDIA_L4_GPUS' exceeded. Limit: 0.0 in region europe-west4., quotaExceeded", Unavailable, "iam-admin/quotas?project=millrace-prod"),
    "no right": ("googleapi: Error 403: Required 'compute.networks.create' permission for 'projects/millrace-prod', forbidden", ConfigError, "docs/platform-gke.md lists the roles"),
    "data that would go": ('error: unable to delete resource "urn:…" as it is currently marked for protection', ConfigError, "docs/platform-gke.md says how"),
    "a passphrase": ("error: getting secrets manager: passphrase must be set with PULUMI_CONFIG_PASSPHRASE", ConfigError, "pulumi stack change-secrets-provider 'gcpkms://"),
    "something new": ("error: the moon is in the way", Unavailable, "run the same command again"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_told_as_what_to_do(pulumi: Path, tmp_path: Path, case: str) -> None:
    said, kind, words = FAILURES[case]
    (tmp_path / "said").write_text(said)
    behaves(pulumi, f"cat {tmp_path}/said >&2; exit 255")
    with pytest.raises(kind) as failure:
        run(environment("gke-prod"), Verb.PREVIEW)
    assert type(failure.value) is kind
    assert words in str(failure.value)


def test_drift_is_a_conflict_with_the_command_that_undoes_it(pulumi: Path) -> None:
    behaves(pulumi, "echo 'error: no changes were expected but changes were proposed'; exit 255")
    with pytest.raises(Conflict, match=r"python -m mlplatform\.infrastructure up gke-prod"):
        run(environment("gke-prod"), Verb.DRIFT)


def test_without_pulumi_one_is_told_where_to_get_it_and_what_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"not on PATH.*mlplatform\.infrastructure show gke-prod"):
        run(environment("gke-prod"), Verb.PREVIEW)


def test_a_cluster_that_is_there_already_is_nothing_for_pulumi(pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert command.main(["preview", "laptop"]) == ConfigError.exit_code
    assert not (pulumi.parent / "asked").exists()


def test_an_environment_that_is_not_there_names_those_that_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert command.main(["show", "nowhere"]) == ConfigError.exit_code
    assert "gke-prod, gke-staging, laptop" in capsys.readouterr().err
