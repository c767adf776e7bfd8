"""The loop of `millrace serve --tracks`: ten times a second, what is wanted is brought a step nearer.

    wanted documents ── fleet (pure) ──> model servers (children) ── all loaded ──> gateway.yaml ── gateway says so ──> in_force.json

It decides nothing about rollouts, with one exception: when an old version's warm time is over, it lets it go, as anybody else might.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from mlserving import store
from mlserving.rollout.document import Desired
from mlserving.rollout.local import file_of, read_file
from mlserving.tracks import announcement, fleet
from mlserving.tracks.children import Child
from mlserving.tracks.fleet import Address, InForce, Member
from mlserving.workspace import write_whole

_TICK = 0.1
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to serve and where. `folder` is the workspace's serving folder; ports 0 are any free ones; `grace` in seconds."""

    models: tuple[str, ...]
    folder: Path
    store: Path
    predictions: Path
    log_seconds: float = 60.0
    """So long logged predictions wait until they are a file."""
    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    admin_port: int = 8502
    grace: float = 30.0
    threads: int = 16
    implementation: str = "auto"
    ready_file: Path | None = None


class Supervisor:
    """Everything that runs. `settle` is called now and then with each model's document."""

    def __init__(self, settings: Settings, announce: Callable[[dict[str, Any]], None], settle: Callable[[Desired], None]) -> None:
        self._settings, self._announce, self._settle = settings, announce, settle
        self._wanted: dict[str, Desired] = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._servers: dict[Member, Child] = {}
        self._changed: dict[Member, str] = {}
        """Versions whose files are not those that were wanted; they take no requests."""
        self._leaving: list[Child] = []
        self._told: dict[str, InForce] = {}
        self._revisions: dict[str, int] = {}
        self._written = ""
        self._gateway: Child | None = None
        self._ports: dict[str, str] = {}
        self._announced: dict[str, Any] = {}

    def run(self) -> int:
        """Until a signal comes. Returns the exit code: 0 after SIGTERM, 130 after Ctrl-C."""
        with announcement.only_supervisor(self._settings.folder), _signal() as came:
            try:
                while not came:
                    self.tick()
                    time.sleep(_TICK)
            finally:
                self._stop()
        return _INTERRUPTED if came[0] == signal.SIGINT else 0

    def tick(self) -> None:
        """Look, and do what can be done now."""
        self._read()
        self._tend_servers()
        self._told = fleet.next_settings(self._wanted.values(), self._up(), self._told)
        if self._told.keys() == self._wanted.keys():
            self._tend_gateway()
            self._ask_gateway()
            self._let_go()
        self._tell()
        for desired in self._wanted.values():
            self._settle(desired)

    def _read(self) -> None:
        for model in self._settings.models:
            path = file_of(self._settings.folder, model)
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if self._stamps.get(model) == (stat.st_mtime_ns, stat.st_ino):
                    continue
                found = read_file(path)
                if found is not None:
                    self._wanted[model], self._stamps[model] = found, (stat.st_mtime_ns, stat.st_ino)

    def _tend_servers(self) -> None:
        for member in sorted(fleet.needed(self._wanted.values(), self._told)):
            if member not in self._servers:
                self._servers[member], self._changed[member] = self._server(member), self._difference(member)
            if not self._changed[member]:
                self._servers[member].tend()

    def _difference(self, member: Member) -> str:
        wanted = {each.digest for each in self._wanted[member.model].tracks.values() if each.version == member.version} - {""}
        folder = self._settings.store / member.model / str(member.version)
        return f"{folder} is not what the rollout was started with: its digest is another one." if wanted - {store.digest(folder)} else ""

    def _server(self, member: Member) -> Child:
        name = f"{member.model}-{member.version}"
        run, config = self._settings.folder / "run", self._settings.folder / "run" / f"{name}.config"
        write_whole(config, config_text(member, self._settings.store))
        options = ["--host", "127.0.0.1", "--grpc-port", "0", "--rest-port", "0", "--ready-file", str(run / f"{name}.json")]
        options += ["--threads", str(self._settings.threads), "--implementation", self._settings.implementation]
        command = [sys.executable, "-m", "mlserving", "serve", "--model-config", str(config), *options]
        title = f"the server of {member.model} version {member.version}"
        return Child(title, command, run / f"{name}.json", self._settings.folder / "logs" / f"{name}.log")

    def _up(self) -> dict[Member, Address]:
        told = {member: child.ready() for member, child in self._servers.items()}
        return {member: Address(grpc=ready["grpc"], rest=ready["rest"]) for member, ready in told.items() if ready}

    def _tend_gateway(self) -> None:
        text = yaml.safe_dump(fleet.file_of(self._told), sort_keys=False, allow_unicode=True)
        if text != self._written:
            write_whole(self._settings.folder / "gateway.yaml", text)
            self._written = text
        folder = self._settings.folder
        if self._gateway is None:
            self._gateway = Child("the gateway", self._gateway_command(), folder / "run" / "gateway.json", folder / "logs" / "gateway.log")
        self._gateway.tend()
        self._ports = self._gateway.ready() or self._ports
        self._gateway.command = self._gateway_command()

    def _gateway_command(self) -> list[str]:
        """On the ports that it had before, where it had some: callers know them."""
        settings, folder = self._settings, self._settings.folder
        ports = {"grpc": settings.grpc_port, "rest": settings.rest_port, "admin": settings.admin_port}
        known = {name: int(self._ports[name].rpartition(":")[2]) if name in self._ports else port for name, port in ports.items()}
        options = ["--config", str(folder / "gateway.yaml"), "--host", settings.host, "--ready-file", str(folder / "run" / "gateway.json")]
        options += [text for name, port in known.items() for text in (f"--{name}-port", str(port))]
        options += ["--spool", str(folder / "spool"), "--predictions", str(settings.predictions)]
        options += ["--log-seconds", str(settings.log_seconds)]
        return [sys.executable, "-m", "mlserving", "gateway", *options]

    def _ask_gateway(self) -> None:
        """Which documents are in force? Asked only while some is not."""
        late = {model: each for model, each in self._told.items() if self._revisions.get(model) != each.desired.revision}
        if late and self._gateway and self._gateway.ready():
            page = _page(self._ports["admin"])
            self._revisions |= {model: each.desired.revision for model, each in late.items() if fleet.is_in_force(page, each)}

    def _let_go(self) -> None:
        """End the servers to which the gateway sends nobody any more."""
        if all(self._revisions.get(model) == each.desired.revision for model, each in self._told.items()):
            for member in self._servers.keys() - fleet.needed(self._wanted.values(), self._told):
                child = self._servers.pop(member)
                child.ask_to_end()
                self._leaving.append(child)
        for child in [child for child in self._leaving if child.ended()]:
            child.end(0)  # what it left of itself
            self._leaving.remove(child)

    def _tell(self) -> None:
        if not self._ports:
            return
        models = {
            model: {"revision": self._revisions.get(model, 0), "seen": desired.revision, "trouble": self._trouble(desired)}
            for model, desired in self._wanted.items()
        }
        told = {**self._ports, "models": models}
        if told != self._announced:
            announcement.write(self._settings.folder, told)
            first, self._announced = not self._announced, told
            if first:
                self._announce(self._ports)

    def _trouble(self, desired: Desired) -> str:
        found = [
            self._changed[member] or self._servers[member].trouble
            for member in sorted(fleet.members(desired))
            if not self._servers[member].ready()
        ]
        return next(filter(None, found), "")

    def _stop(self) -> None:
        """The gateway first: it takes no more requests and finishes those under way, while the servers still answer."""
        if self._settings.ready_file:
            self._settings.ready_file.unlink(missing_ok=True)
        if self._gateway:
            self._gateway.end(self._settings.grace + 5)
        servers = [*self._servers.values(), *self._leaving]
        for child in servers:
            child.ask_to_end()
        for child in servers:
            child.end(self._settings.grace + 5)


def config_text(member: Member, model_store: Path) -> str:
    """A model_config_list with one version, whatever newer ones are published."""
    policy = f"model_version_policy {{ specific {{ versions: {member.version} }} }}"
    place = json.dumps(str(model_store / member.model))
    return (
        f'model_config_list {{ config {{ name: {json.dumps(member.model)} base_path: {place} model_platform: "tensorflow" {policy} }} }}\n'
    )


def _page(admin: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{admin}/tracks", timeout=2) as answer:
            page: dict[str, Any] = json.load(answer)
            return page
    except (OSError, urllib.error.URLError, ValueError):
        return {}


@contextlib.contextmanager
def _signal() -> Iterator[list[int]]:
    """Empty until SIGTERM or Ctrl-C came."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def missing(models: Sequence[str], folder: Path) -> list[str]:
    """The models that have no document yet."""
    return [model for model in models if read_file(file_of(folder, model)) is None]
