"""The ways to people: Slack's incoming webhooks, any address that takes JSON, mail. What is secret stands in files, read anew for each message.

`--notify FILE` names a YAML file:

    slack: {fraud-alerts: /secrets/slack-fraud}      # a channel as project.yaml names it, and the file with its webhook's address
    webhook: {url_file: /secrets/hook, token_file: /secrets/hook-token}
    email: {host: smtp.example.com, sender: millrace@example.com, user: millrace, password_file: /secrets/smtp}
"""

from __future__ import annotations

import json
import smtplib
import ssl
from pathlib import Path
from typing import Any

import urllib3
from pydantic import Field

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.project import Notifications
from mlpipelines.triggers.notices import Notice, as_json, as_mail, as_slack
from mlserving.settings_file import SettingsFile, Strict

SECONDS = 15.0


class Webhook(Strict):
    """An address that takes each notice as JSON."""

    url_file: Path
    token_file: Path | None = None
    """Sent as a bearer token."""


class Mail(Strict):
    """A server that takes mail."""

    host: str
    port: int = 587
    sender: str = Field(pattern=r"^\S+@\S+$")
    to: list[str] = Field(default_factory=list)
    """Who gets every mail, beside those whom a project names."""
    user: str | None = None
    password_file: Path | None = None
    starttls: bool = True


class Channels(Strict):
    """The whole file."""

    slack: dict[str, Path] = Field(default_factory=dict)
    """By channel: the file with the address of its incoming webhook."""
    webhook: Webhook | None = None
    email: Mail | None = None

    def wanted(self, said: Notifications) -> list[str]:
        """The ways on which a project's notices go: `slack NAME`, `webhook`, `mail ADDRESS,…`."""
        found = [f"slack {said.slack}"] if said.slack else []
        found += ["webhook"] if self.webhook else []
        to = [*said.email, *(self.email.to if self.email else [])]
        return found + ([f"mail {','.join(dict.fromkeys(to))}"] if self.email and to else [])

    def send(self, way: str, notice: Notice) -> None:
        """Send a notice one way.

        Raises:
            Unavailable: it did not arrive. The text names no secret.
            ConfigError: the way is not in the file, or a file that it names is not there.
        """
        kind, _, where = way.partition(" ")
        if kind == "slack":
            if where not in self.slack:
                raise ConfigError(
                    f"project.yaml: notifications.slack names {where!r}; the file of --notify knows: {', '.join(self.slack) or 'none'}"
                )
            _post(way, _secret(self.slack[where]), as_slack(notice), None)
        elif kind == "webhook" and self.webhook is not None:
            token = _secret(self.webhook.token_file) if self.webhook.token_file else None
            _post(way, _secret(self.webhook.url_file), as_json(notice), token)
        elif kind == "mail" and self.email is not None:
            _mail(self.email, where.split(","), notice)
        else:
            raise ConfigError(f"the file of --notify says nothing of {kind}")


FILE = SettingsFile(Channels, page="docs/retraining.md", remedy="It is named by --notify.")
"""The file of `--notify`."""


def _post(way: str, url: str, body: Any, token: str | None) -> None:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request("POST", url, body=json.dumps(body), headers=headers, timeout=SECONDS, retries=False)
    except (urllib3.exceptions.HTTPError, ValueError) as error:  # its text would name the address, which is the secret
        raise Unavailable(f"{way} does not answer ({type(error).__name__}).") from None
    if not 200 <= answer.status < 300:  # noqa: PLR2004  OK
        raise Unavailable(f"{way} answers {answer.status}: {answer.data[:100].decode(errors='replace')}")


def _mail(server: Mail, to: list[str], notice: Notice) -> None:
    try:
        with smtplib.SMTP(server.host, server.port, timeout=SECONDS) as connection:
            if server.starttls:
                connection.starttls(context=ssl.create_default_context())
            if server.user and server.password_file:
                connection.login(server.user, _secret(server.password_file))
            connection.send_message(as_mail(notice, server.sender, to))
    except (OSError, smtplib.SMTPException) as error:
        raise Unavailable(f"{server.host} takes no mail: {type(error).__name__}: {error}") from error


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. The file of --notify names it.") from error
