"""The programs that `make demo` lets run beside it while the loop closes: monitor, trigger, and Prometheus and Alertmanager where they are on PATH."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpipelines.errors import Unavailable

_RULES = Path("helm/model-serving/rules/monitor.yaml")
_START_SECONDS = 120.0
_TOKEN = "of-make-demo-and-of-nobody-else"  # noqa: S105  it opens a trigger on loopback, for a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where they answer."""

    monitor: str
    trigger: str
    prometheus: str
    """Empty where there is none: then nobody tells the trigger."""

    def firing(self) -> list[dict[str, Any]]:
        """The drift alerts that Prometheus fires."""
        found = json.loads(_page(f"http://{self.prometheus}/api/v1/alerts") or '{"data": {"alerts": []}}')["data"]["alerts"]
        return [alert for alert in found if alert["state"] == "firing" and alert["labels"].get("signal") == "drift"]

    def drifting(self) -> list[str]:
        """The columns that the monitor alarms about, as it tells Prometheus."""
        lines = _page(f"http://{self.monitor}/metrics").splitlines()
        alarms = [line for line in lines if line.startswith("millrace_monitor_drift_alarm{") and line.endswith(" 1.0")]
        return sorted({found[1] for line in alarms if (found := re.search(r'column="([^"]*)"', line))})

    def post(self, model: str, columns: Sequence[str]) -> None:
        """Tell the trigger what Alertmanager would.

        Raises:
            Unavailable: it does not answer.
        """
        summary = f"{model} is asked something else than it was trained on: {', '.join(columns)}"
        labels = {"alertname": "ModelFeatureDrift", "model": model, "signal": "drift"}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        alert = {"status": "firing", "labels": labels, "annotations": {"summary": summary}, "startsAt": now, "fingerprint": "make-demo"}
        body = json.dumps({"version": "4", "groupKey": "make demo", "alerts": [alert]}).encode()
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.trigger}/alerts", body, headers)
        try:
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310  loopback
        except OSError as error:
            raise Unavailable(f"the trigger does not take the alert: {error}") from error


@contextmanager
def running(millrace: str, model: str, projects: Path, workspace: Path) -> Iterator[Running]:
    """All of them, until the context ends. What they say lies in `<workspace>/demo`.

    Raises:
        Unavailable: one did not start.
    """
    folder = workspace / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(_TOKEN + "\n")
    ready, here = folder / "trigger.json", ["--workspace", str(workspace)]
    ready.unlink(missing_ok=True)
    monitor, metrics, alerts = (f"127.0.0.1:{port}" for port in _free_ports(3))
    with ExitStack() as stack:

        def start(name: str, words: Sequence[str], holds: Callable[[], object]) -> None:
            log = folder / f"{name}.log"
            if not came_up(stack.enter_context(started(words, log)), holds):
                raise Unavailable(f"the {name} did not start:\n{log.read_text(errors='replace')[-2000:]}")

        start("monitor", [millrace, "monitor", model, *here, "--every", "1s", "--since", "15s", "--listen", monitor], lambda: True)
        words = ["--projects", str(projects), "--token-file", str(folder / "token"), "--port", "0", "--ready-file", str(ready)]
        start("trigger", [millrace, "trigger", "serve", *words, "--every", "1", *here], ready.exists)
        trigger = str(json.loads(ready.read_text())["address"])
        programs = shutil.which("prometheus"), shutil.which("alertmanager")
        if programs[0] and programs[1]:
            _configure(folder, monitor=monitor, trigger=trigger, alertmanager=alerts)
            for name, program, address, store in (
                ("alertmanager", programs[1], alerts, "--storage.path"),
                ("prometheus", programs[0], metrics, "--storage.tsdb.path"),
            ):
                shutil.rmtree(folder / f"{name}-data", ignore_errors=True)
                options = [
                    f"--config.file={folder / f'{name}.json'}",
                    f"{store}={folder / f'{name}-data'}",
                    f"--web.listen-address={address}",
                ]
                options += ["--cluster.listen-address="] if name == "alertmanager" else []
                start(name, [program, *options], lambda address=address: _page(f"http://{address}/-/ready"))  # type: ignore[misc]  # bound now
        yield Running(monitor=monitor, trigger=trigger, prometheus=metrics if programs[0] and programs[1] else "")


def _configure(folder: Path, *, monitor: str, trigger: str, alertmanager: str) -> None:
    """Both programs' files: the chart's own rules, which wait a second where they wait a quarter of an hour. JSON is YAML."""
    (folder / "rules.yaml").write_text(re.sub(r"for: \S+", "for: 1s", _RULES.read_text(encoding="utf-8")), encoding="utf-8")
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    said = {
        "global": every,
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [{"job_name": "monitor", "static_configs": [{"targets": [monitor]}]}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
    }
    (folder / "prometheus.json").write_text(json.dumps(said))
    told = {"url": f"http://{trigger}/alerts", "http_config": {"authorization": {"credentials": _TOKEN}}}
    route = {"receiver": "trigger", "group_by": ["model"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "5s"}
    receivers = [{"name": "trigger", "webhook_configs": [told]}]
    (folder / "alertmanager.json").write_text(json.dumps({"route": route, "receivers": receivers}))


@contextmanager
def started(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process, told to go when the context ends."""
    with log.open("wb") as output, subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def came_up(process: subprocess.Popen[bytes], holds: Callable[[], object], seconds: float = _START_SECONDS) -> bool:
    """Wait until `holds`; False where the process ends first, or it takes longer."""
    deadline = time.monotonic() + seconds
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _page(url: str) -> str:
    """What stands at an address; empty while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  loopback
            return str(answer.read().decode()) or " "
    except (OSError, urllib.error.URLError):
        return ""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
