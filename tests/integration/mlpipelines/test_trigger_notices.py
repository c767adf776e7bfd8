"""Notices arrive, once, at real servers; and a training never fails for one that does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Engine

from kubeflow_api import KubeflowApi, kubeflow_api
from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.kubeflow import Kubeflow
from mlpipelines.project import Notifications
from mlpipelines.triggers.channels import FILE, Channels
from mlpipelines.triggers.decide import Cause, Policy, Signal
from mlpipelines.triggers.kubeflow_runs import KubeflowRuns
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.notices import Notice, of_start
from mlpipelines.triggers.outbox import GIVE_UP_SECONDS, Outbox
from mlpipelines.triggers.projects import Projects
from mlpipelines.triggers.starter import Starter
from mlpipelines.triggers.telling import Telling
from mlpipelines.workspace import Workspace
from mlserving.database import open_database
from mlserving.errors import ConfigError as WrongSettings
from postgres import postgres_server, url_of
from receivers import Inbox, http_inbox, mail_inbox

IMAGE = "registry.example/steps@sha256:" + "a" * 64
NOTICE = of_start("churn", "churn-drift-1", "drift: pages drifted", "http://kubeflow/#/runs/details/1")
PROJECT = """
name: churn
team: growth
task: classification
source: {kind: parquet, path: rows}
features: {pages: integer}
label: {column: left}
notifications: {slack: growth, email: [ann@example.com]}
"""


@pytest.fixture
def http() -> Iterator[Inbox]:
    with http_inbox() as inbox:
        yield inbox


@pytest.fixture
def api() -> Iterator[KubeflowApi]:
    with kubeflow_api() as served:
        yield served


@pytest.fixture
def mail() -> Iterator[Inbox]:
    with mail_inbox() as inbox:
        yield inbox


@pytest.fixture
def channels(tmp_path: Path, http: Inbox, mail: Inbox) -> Channels:
    """As a file says them; every address that is secret stands in a file of its own."""
    (tmp_path / "url").write_text(http.url + "\n")
    (tmp_path / "token").write_text("a-token\n")
    said = {
        "slack": {"growth": str(tmp_path / "url")},
        "webhook": {"url_file": str(tmp_path / "url"), "token_file": str(tmp_path / "token")},
        "email": {"host": "127.0.0.1", "port": mail.port, "sender": "millrace@example.com", "to": ["team@example.com"], "starttls": False},
    }
    (tmp_path / "notify.yaml").write_text(yaml.safe_dump(said))
    return FILE.read(tmp_path / "notify.yaml")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/serving.db" if request.param == "sqlite" else url_of(stack.enter_context(postgres_server()))
        engine = open_database(url)
        stack.callback(engine.dispose)
        yield engine


@pytest.fixture
def outbox(database: Engine) -> Outbox:
    return Outbox(database)


def test_a_notice_goes_every_way_that_the_project_names(outbox: Outbox, channels: Channels, http: Inbox, mail: Inbox) -> None:
    ways = channels.wanted(Notifications(slack="growth", email=["ann@example.com"]))
    outbox.put(NOTICE, ways, 0.0)
    outbox.deliver(channels.send, 1.0)
    slack, program = http.posted
    assert slack["blocks"][0]["text"]["text"] == "churn: training started"
    assert program["run"] == "churn-drift-1"
    assert http.headers[1]["Authorization"] == "Bearer a-token"
    assert "Authorization" not in http.headers[0]
    (got,) = mail.mails
    assert (got["Subject"], got["To"]) == ("churn: training started", "ann@example.com, team@example.com")
    assert "pages drifted" in got.get_content()
    assert outbox.waiting().count == 0


def test_told_twice_it_arrives_once(outbox: Outbox, channels: Channels, http: Inbox) -> None:
    for now in (0.0, 1.0):
        outbox.put(NOTICE, ["webhook"], now)
        outbox.deliver(channels.send, now)
    assert len(http.posted) == 1


@pytest.mark.parametrize("status", [500, 429, 404])
def test_what_is_refused_is_tried_again_after_a_pause(outbox: Outbox, channels: Channels, http: Inbox, status: int) -> None:
    http.answers = [status, status]
    outbox.put(NOTICE, ["slack growth"], 0.0)
    outbox.deliver(channels.send, 0.0)
    outbox.deliver(channels.send, 0.5)
    assert len(http.answers) == 1, "not before its pause is over"
    outbox.deliver(channels.send, 10.0)
    outbox.deliver(channels.send, 30.0)
    assert len(http.posted) == 1
    assert outbox.waiting().count == 0


def test_a_mail_server_that_is_full_gets_the_mail_later(outbox: Outbox, channels: Channels, mail: Inbox) -> None:
    mail.answers = [452]
    outbox.put(NOTICE, ["mail ann@example.com"], 0.0)
    outbox.deliver(channels.send, 0.0)
    assert outbox.waiting().oldest == 0.0
    outbox.deliver(channels.send, 10.0)
    assert len(mail.mails) == 1


def test_after_a_day_it_is_given_up_and_counted(outbox: Outbox, channels: Channels, http: Inbox) -> None:
    http.answers = [500] * 10_000
    outbox.put(NOTICE, ["webhook"], 0.0)
    now = 0.0
    while now < GIVE_UP_SECONDS + 700.0:
        outbox.deliver(channels.send, now)
        now += 650.0
    waiting = outbox.waiting()
    assert (waiting.count, waiting.given_up) == (0, 1)


def test_a_secret_is_in_no_error(tmp_path: Path, channels: Channels, http: Inbox) -> None:
    http.answers = [403]
    with pytest.raises(Unavailable) as refused:
        channels.send("slack growth", NOTICE)
    (tmp_path / "url").write_text("http://127.0.0.1:1/services/T0/B0/secret-path")
    with pytest.raises(Unavailable) as away:
        channels.send("slack growth", NOTICE)
    (tmp_path / "url").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        channels.send("slack growth", NOTICE)
    assert "secret-path" not in str(refused.value) + str(away.value) + repr(away.value.__cause__)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slack: [a]", "slack"),
        ("pager: {}", "pager"),
        ("email: {host: h, sender: nobody}", "email.sender"),
        ("{", "is no YAML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_field(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "notify.yaml").write_text(text)
    with pytest.raises(WrongSettings, match=says):
        FILE.read(tmp_path / "notify.yaml")


def test_the_image_s_command_says_what_is_wrong_with_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "token").write_text("0123456789abcdef-token")
    (tmp_path / "notify.yaml").write_text("pager: {}")
    command = [sys.executable, "-m", "mlpipelines", "trigger", "serve", "--projects", str(tmp_path), "--workspace", str(tmp_path / "w")]
    command += ["--token-file", str(tmp_path / "token"), "--notify", str(tmp_path / "notify.yaml")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert said.returncode == 2
    assert "notify.yaml: pager: Extra inputs" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_training_starts_and_ends_although_nobody_can_be_told(  # noqa: PLR0917  each is a server
    tmp_path: Path, database: Engine, channels: Channels, http: Inbox, mail: Inbox, api: KubeflowApi
) -> None:
    (tmp_path / "projects").mkdir()
    (tmp_path / "projects" / "project.yaml").write_text(PROJECT)
    ledger, outbox, projects = Ledger(database), Outbox(database), Projects(tmp_path / "projects")
    telling = Telling(outbox, channels, projects, ledger)
    cause = Cause(model="churn", signal=Signal.DRIFT, fingerprint="f", starts_at=1.0, summary="pages drifted")
    ledger.settle([cause], lambda _: Facts(policy=Policy()), 1.0)
    starter = Starter(ledger, KubeflowRuns(Kubeflow(api.host), projects, IMAGE, Workspace(tmp_path / "w")), ears=[telling.ear()])
    http.answers, mail.answers = [500] * 4, [451] * 2
    now = time.time()
    starter.turn()
    outbox.deliver(channels.send, now + 1)
    api.end("FAILED", failed="train")
    starter.turn()
    outbox.deliver(channels.send, now + 1)
    assert [run.outcome for run in ledger.runs("churn")] == ["failed"]
    for later in (100.0, 200.0):
        outbox.deliver(channels.send, now + later)
    titles = [body["title"] for body in http.posted if "title" in body]
    assert sorted(titles) == ["churn: training failed", "churn: training started"]
    assert sorted(got["Subject"] for got in mail.mails) == ["churn: training failed", "churn: training started"]
    assert any("The step train failed" in str(body) for body in http.posted)


def test_a_project_that_names_a_channel_which_nobody_knows_is_told_so(outbox: Outbox, channels: Channels) -> None:
    with pytest.raises(ConfigError, match="growth"):
        channels.send("slack other", replace(NOTICE, text="x"))


def test_nothing_is_sent_for_a_model_without_ways(outbox: Outbox) -> None:
    outbox.put(NOTICE, Channels().wanted(Notifications()), 0.0)
    sent: list[Notice] = []
    outbox.deliver(lambda _way, notice: sent.append(notice), 1.0)
    assert not sent
