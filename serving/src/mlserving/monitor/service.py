"""Runs of the monitor: one after another, each over a fresh window, and where what they found goes.

A run that fails does not end the service: it is counted, told, and the metrics of the run before stay with their old timestamp, which is
what the alert about a stale monitor looks at.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from mlserving import store
from mlserving.client.ask import connect
from mlserving.client.signature import ModelSpec
from mlserving.errors import NotServed, ServingError, Unavailable
from mlserving.exposition import listening
from mlserving.monitor import metrics, parity, terminal
from mlserving.monitor import settings as monitor_settings
from mlserving.monitor.command import ALARMED, Wanted, window
from mlserving.monitor.findings import Findings, Parity
from mlserving.monitor.report import page
from mlserving.monitor.survey import survey
from mlserving.monitor.window import version_logs
from mlserving.predictions import files

_LOG = logging.getLogger(__name__)


def once(wanted: Wanted, *, as_json: bool = False, report: Path | None = None, metrics_file: Path | None = None) -> int:
    """One run over every model. Returns 0, or `ALARMED` where something alarms."""
    found = run(wanted)
    for findings in found:
        print(findings.as_json() if as_json else terminal.text(findings))
    _hand_out(found, report, metrics_file)
    return ALARMED if any(findings.alarms for findings in found) else 0


def serve(wanted: Wanted, *, every: timedelta, listen: str | None, metrics_file: Path | None, report: Path | None) -> int:
    """Run after run until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    told, registry = metrics.Told(), CollectorRegistry()
    registry.register(told)
    failed = Counter("millrace_monitor_failed_runs", "Runs that ended with an error.", registry=registry)
    with listening(listen, registry, "--listen") as where:
        if where is not None:
            _LOG.info("metrics on %s", where)
        while not stopped.is_set():
            failed.inc(_round(wanted, told, report, metrics_file))
            stopped.wait(every.total_seconds())
    return 0


def _round(wanted: Wanted, told: metrics.Told, report: Path | None, metrics_file: Path | None) -> int:
    """One run of each model. Returns how many failed: what is wrong with one model does not keep the others from being looked at."""
    failed = 0
    found = []
    for model in models(wanted):
        try:
            found.append(_run(model, wanted))
        except ServingError as error:
            failed += 1
            _LOG.error("%s: %s: %s", model, type(error).__name__, error)
    for findings in found:
        told.replace(findings)
        _LOG.info(terminal.line(findings))
    try:
        _hand_out(told.findings, report, metrics_file)
    except ServingError as error:
        failed += 1
        _LOG.error("%s: %s", type(error).__name__, error)
    return failed


def models(wanted: Wanted) -> list[str]:
    """Those that were named, else every model with a version or a log."""
    return list(wanted.models) or sorted({*store.models(wanted.store), *files.models(wanted.predictions / "log")})


def run(wanted: Wanted) -> list[Findings]:
    """Look at every model that is wanted, over the window that ends now.

    Raises:
        ServingError: a log, a version or a server cannot be read.
    """
    return [_run(model, wanted) for model in models(wanted)]


def _run(model: str, wanted: Wanted) -> Findings:
    began, now = time.monotonic(), datetime.now(UTC)
    start, end = window(wanted.since, wanted.until, now)
    logs, notes = version_logs(wanted.predictions, wanted.store, model, files.Window(start=start, end=end), wanted.settings)
    if not logs:
        notes.append("There are no predictions in the window.")
    asked = _parity(model, wanted)
    found = survey(model, logs, start=start, end=end, now=now, by=wanted.by, parity=asked.parity, notes=[*notes, *asked.notes])
    return dataclasses.replace(found, seconds=time.monotonic() - began, servers_reached=asked.reached)


@dataclasses.dataclass(slots=True)
class _Asked:
    """What came of the golden requests at all servers."""

    parity: list[Parity] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    reached: bool | None = None
    """Whether every server answered; None where none was named."""


def _parity(model: str, wanted: Wanted) -> _Asked:
    """Of every version that a server has AVAILABLE, and notes about what could not be asked."""
    if not wanted.addresses:
        return _Asked(notes=["Golden requests were not asked: name the server with --address."])
    asked = _Asked(reached=True)
    for address in wanted.addresses:
        try:
            _ask(address, model, wanted, asked)
        except NotServed:
            asked.notes.append(f"{address} does not serve {model}: its golden requests were not asked there.")
        except Unavailable as error:
            asked.reached = False
            asked.notes.append(f"Golden requests were not asked at {address}: {error}")
    return asked


def _ask(address: str, model: str, wanted: Wanted, asked: _Asked) -> None:
    with connect(address, grpc=wanted.grpc) as client:
        served = [status.version for status in client.status(ModelSpec(name=model)) if status.state == "AVAILABLE"]
        for version in sorted(served):
            folder = wanted.store / model / str(version)
            tolerance = (wanted.settings or monitor_settings.of_version(folder)).parity_tolerance
            found = parity.check(client, model, version, folder, tolerance)
            if found is None:
                asked.notes.append(f"Version {version} carries no golden requests.")
            else:
                asked.parity.append(found)


def _hand_out(found: Sequence[Findings], report: Path | None, metrics_file: Path | None) -> None:
    if metrics_file is not None:
        metrics.write(metrics_file, found)
    if report is None:
        return
    try:
        for findings in found:
            path = report if len(found) == 1 else report / f"{findings.model}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_text(page(findings), encoding="utf-8")
            fresh.replace(path)
    except OSError as error:
        raise Unavailable(f"{report} cannot be written: {error.strerror or error}. Name another place with --report.") from error
