"""The trigger as a person and Alertmanager see it: through its commands and its address, on one machine, and killed on purpose."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from triggers import TOKEN, Trigger, an_alert
from typed_commands import millrace
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """One project that trains in seconds, with a schema that was accepted, so that runs go to their end."""
    millrace("new", "visits", "--team", "web", "--into", tmp_path / "projects", workspace=tmp_path / "w")
    file = tmp_path / "projects" / "visits" / "project.yaml"
    text = file.read_text().replace("rows: 20000", "rows: 2000").replace("batch_size: 512", "batch_size: 128")
    file.write_text(text + "\nretraining: {cooldown_hours: 0}\n")
    return tmp_path / "projects"


def runs(workspace: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(millrace("runs", "visits", "--json", workspace=workspace).stdout)
    return found


def outcomes(trigger: Trigger) -> list[str]:
    return [run["outcome"] for run in trigger.why("visits")["runs"]]


def test_an_alert_becomes_one_run_whoever_is_killed_and_everything_is_told(projects: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    with Trigger(workspace, projects) as trigger:
        assert trigger.post(an_alert("visits"), an_alert("visits", "another"), an_alert("nobody")) == [
            "started",
            "run-open",
            "unknown-model",
        ]
        trigger.kill()  # with the decision written down, and its run started or not
        trigger.start()
        assert trigger.post(an_alert("visits")) == ["duplicate"]
        eventually("a run begins", (workspace / "projects" / "visits" / "runs").exists, 400)
        trigger.kill()  # while the run goes on
        trigger.start()
        eventually("the run is rejected", lambda: outcomes(trigger) == ["rejected"], 400)  # it has no reviewed schema yet
        (run,) = runs(workspace)
        told = trigger.why("visits")
        assert run["run"] == told["runs"][0]["name"]
        assert run["reason"] == "drift: visits is asked something else"
        assert [each["reason"] for each in told["decisions"]] == ["duplicate", "run-open", "started"]
        assert trigger.post(an_alert("visits", "another")) == ["started"]  # Alertmanager repeats it, and now nothing speaks against it
    shown = millrace("why", "visits", workspace=workspace).stdout
    assert "run-open" in shown
    assert "trains visits at the moment" in " ".join(shown.split())


def test_a_freeze_holds_everything_back_until_it_is_lifted(projects: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    with Trigger(workspace, projects) as trigger:
        millrace("freeze", "visits", "--because", "month end", workspace=workspace)
        assert trigger.post(an_alert("visits")) == ["frozen"]
        refused = millrace("trigger", "fire", projects / "visits", "--because", "now!", workspace=workspace, code=3)
        assert "month end" in refused.stderr
        assert "month end" in millrace("why", "visits", workspace=workspace).stdout
        assert "Lifted" in millrace("thaw", "visits", workspace=workspace).stdout
        assert "not frozen" in millrace("thaw", "visits", workspace=workspace).stdout
        millrace("freeze", "visits", "--because", "late", "--until", "2020-01-01", workspace=workspace, code=2)
        assert trigger.post(an_alert("visits")) == ["started"]
        eventually("the run is rejected", lambda: outcomes(trigger) == ["rejected"], 400)


def test_a_person_fires_without_any_server_and_once_for_an_occasion(projects: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    words = ("trigger", "fire", projects / "visits", "--because", "the labels were cleaned", "--once", "cleaning", "--json")
    fired = json.loads(millrace(*words, workspace=workspace).stdout)
    assert fired["started"]
    assert Path(fired["address"]).is_dir()
    again = millrace(*words, workspace=workspace, code=3)
    assert "already" in again.stderr
    eventually("the run is rejected", lambda: runs(workspace)[0]["status"] == "rejected", 400)
    (run,) = runs(workspace)
    assert run["run"] == fired["run"]
    assert run["reason"].startswith("by-hand: the labels were cleaned (")


def test_changed_code_and_a_date_start_runs_by_themselves(projects: Path, tmp_path: Path) -> None:
    workspace, folder = tmp_path / "w", projects / "visits"
    first = json.loads(millrace("run", folder, "--accept-schema", "--json", workspace=workspace).stdout)
    assert first["status"] == "blessed"
    with Trigger(workspace, projects) as trigger:
        eventually(
            "it says when it trained last", lambda: trigger.metric('millrace_trigger_last_training_timestamp_seconds{model="visits"}'), 400
        )
        time.sleep(2)  # some looks
        assert trigger.why("visits")["decisions"] == [], "accepting the schema is no change: the run went on with it"
        (folder / "model.py").write_text((folder / "model.py").read_text() + "\n# a remark\n")
        eventually(
            "the run has ended",
            lambda: outcomes(trigger) == ["unchanged"] or outcomes(trigger) == ["blessed"] or outcomes(trigger) == ["rejected"],
            400,
        )
        file = folder / "project.yaml"
        file.write_text(file.read_text() + "schedule: {cron: '* * * * *'}\n")
        eventually("another run has ended", lambda: len(outcomes(trigger)) == 2, 400)
    told = trigger.why("visits")
    assert [each["signal"] for each in told["decisions"] if each["reason"] == "started"] == ["calendar", "new-code"]
    assert [run["reason"].partition(":")[0] for run in runs(workspace)] in (
        ["calendar", "new-code", "started by hand"],
        ["new-code", "started by hand"],
    )


def test_what_the_trigger_is_told_about_itself(projects: Path, tmp_path: Path) -> None:
    with Trigger(tmp_path / "w", projects) as trigger:
        assert trigger.ask("GET", "/healthz") == (200, '{"status":"ok"}')
        assert trigger.ask("POST", "/alerts", b"{}", token="wrong")[0] == 401
        assert trigger.metric('millrace_trigger_turn_timestamp_seconds{part="looking"}')
        trigger.token_file.write_text("another-token-of-some-length\n")
        eventually(
            "the new token is known", lambda: trigger.ask("POST", "/alerts", b"{}", token="another-token-of-some-length")[0] == 400, 400
        )
        assert trigger.ask("POST", "/alerts", b"{}")[0] == 401
        trigger.process.terminate()
        assert trigger.process.wait(30) == 0


def test_only_clients_of_the_authority_get_in_where_that_is_asked_for(projects: Path, tmp_path: Path) -> None:
    authority, strangers = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = authority.issue("trigger", user="trigger", hosts=["127.0.0.1"])
    words = ("--tls-cert", str(certificate), "--tls-key", str(key), "--client-ca", str(authority.certificate))
    unknown = ssl.create_default_context(cafile=str(authority.certificate))
    foreign = ssl.create_default_context(cafile=str(authority.certificate))
    foreign.load_cert_chain(*strangers.issue("eve", user="eve"))
    with Trigger(tmp_path / "w", projects, *words) as trigger:

        def ask(context: ssl.SSLContext) -> int:
            connection = http.client.HTTPSConnection(trigger.address, context=context, timeout=30)
            connection.request("POST", "/alerts", b"{}", {"Authorization": f"Bearer {TOKEN}"})
            return connection.getresponse().status

        assert ask(authority.client("alertmanager", user="alertmanager")) == 400
        for context in (unknown, foreign):
            with pytest.raises(OSError):  # noqa: PT011  an SSLError or a reset, as the system has it
                ask(context)
    refused = millrace(
        "trigger",
        "serve",
        "--projects",
        projects,
        "--token-file",
        trigger.token_file,
        "--client-ca",
        certificate,
        workspace=tmp_path,
        code=2,
    )
    assert "--tls-cert" in refused.stderr
