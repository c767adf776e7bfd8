"""The review page as people reach it: a server in a process of its own, and what a client without a browser may try on it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from chromium import Window
from mlserving.review.people import People
from waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the page."""

    status: int
    headers: Message
    text: str

    @property
    def hidden(self) -> dict[str, str]:
        """What the forms of the page carry."""
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', self.text))


@dataclass
class Client:
    """Somebody with a cookie jar and no browser."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, None, headers)

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> Answer:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urllib.parse.urlencode(form).encode(), kind | headers)

    def request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=30)
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        try:
            connection.request(
                method, path, body, {**self.headers, **cookie, **{name.replace("_", "-"): text for name, text in headers.items()}}
            )
            answer = connection.getresponse()
            for text in answer.headers.get_all("Set-Cookie") or []:
                name, _, value = text.partition(";")[0].partition("=")
                self.cookies[name] = value.strip('"')
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def sign_in(self, name: str, token: str, **headers: str) -> Answer:
        return self.post("/login", {"name": name, "token": token}, **headers)


def sign_in(window: Window, url: str, name: str, token: str) -> None:
    """As a person does it, by keyboard."""
    window.go(f"{url}/login")
    window.write(name)
    window.press("Tab")
    window.write(token)
    window.press("Enter")
    window.shows("What is there to review?")


def command(workspace: Path, *arguments: str, database: str | None = None) -> subprocess.CompletedProcess[str]:
    """`millrace review …`, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mlplatform", "review", *arguments, "--workspace", str(workspace)],
        capture_output=True, text=True, check=False, timeout=120, env=_environment(database),
    )  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A server that is ready."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    metrics: str | None = None
    """Where Prometheus asks."""

    def events(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def served(workspace: Path, *arguments: str, database: str | None = None) -> Iterator[Served]:
    """`millrace review serve` on a free port; killed at the end if it is still there."""
    ready, log = workspace / f"ready-{len(list(workspace.glob('ready-*')))}.json", workspace / "serve.log"
    options = ["--workspace", str(workspace), "--port", "0", "--ready-file", str(ready), *arguments]
    start = [sys.executable, "-m", "mlplatform", "review", "serve", *options]
    with (
        log.open("a") as file,
        subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=file, text=True, env=_environment(database)) as process,
    ):
        try:

            def told() -> str | None:
                assert process.poll() is None, log.read_text()
                return ready.read_text() if ready.exists() else None

            said = json.loads(eventually("the page is served", told, 90))
            yield Served(said["url"], process, log, said["metrics"])
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def people(workspace: Path, names: Sequence[str]) -> dict[str, str]:
    """Tokens of users; who is called lead is one."""
    users = People(workspace / "serving" / "review-users.json")
    return {name: users.add(name, "lead" if name.startswith("lead") else "reviewer") for name in names}


def _environment(database: str | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return environment | ({"MILLRACE_DATABASE": database} if database else {})
