"""`millrace monitor`: arguments in, findings out, as text, JSON, a page and metrics. The work is in `mlserving.monitor.survey`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlserving import store
from mlserving.errors import ConfigError, Unavailable
from mlserving.monitor.settings import FILE, MonitorSettings
from mlserving.workspace import named_store, named_workspace

DEFAULT_SINCE = "24h"
ALARMED = 3
"""What the command exits with when something alarms."""
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DESCRIPTION = """\
Look at what served models were asked and answered: drift from training, quality where labels have come, golden requests.

Reads the prediction log and the labels of the workspace and what each version carries of its training. Every number is told, also when
all is well. What each means and when it alarms: docs/monitoring.md."""
_EPILOG = """\
examples:
  millrace monitor transactions                         the last day
  millrace monitor transactions --since 7d --by team --report monitor.html
  millrace monitor transactions --address 127.0.0.1:8501
                                                        also asks the golden requests again, over REST
  millrace monitor --every 5m --listen 127.0.0.1:9108   every model, again and again; metrics for Prometheus
  millrace monitor --metrics-file /var/lib/node_exporter/millrace.prom
                                                        once, for a CronJob beside a node exporter

exit codes: 0 healthy, 2 wrong argument or damaged file, 3 something alarms, 4 a log or a server cannot be read"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to look at."""

    predictions: Path
    store: Path
    models: tuple[str, ...]
    """Every model with a log, where empty."""
    since: str = DEFAULT_SINCE
    until: str | None = None
    by: tuple[str, ...] | None = None
    settings: MonitorSettings | None = None
    addresses: tuple[str, ...] = ()
    """Of the servers that golden requests are asked of."""
    grpc: bool = False


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    wanted = _wanted(arguments)
    from mlserving.monitor import service  # TensorFlow's metadata, Arrow and Prometheus cost a second that --help need not wait for

    if arguments.every or arguments.listen:
        return service.serve(
            wanted,
            every=duration(arguments.every or "5m", "--every"),
            listen=arguments.listen,
            metrics_file=arguments.metrics_file,
            report=arguments.report,
        )
    return service.once(wanted, as_json=arguments.json, report=arguments.report, metrics_file=arguments.metrics_file)


def duration(text: str, option: str) -> timedelta:
    """`30s`, `5m`, `24h`, `7d`, `2w`.

    Raises:
        ConfigError: it is none; `option` is named.
    """
    found = re.fullmatch(r"(\d+)([smhdw])", text)
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"{option} {text!r} is no length of time. Write a number and a unit: 30m, 24h, 7d, 2w.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def window(since: str, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Start and end: each a moment (ISO 8601; UTC where it names no zone), or a length of time before now.

    Raises:
        ConfigError: a text is neither, or the window is empty.
    """
    start, end = _moment(since, "--since", now), now if until is None else _moment(until, "--until", now)
    if start >= end:
        raise ConfigError(f"--since {since} is not before --until {until or 'now'}.")
    return start, end


def _moment(text: str, option: str, now: datetime) -> datetime:
    if re.fullmatch(r"\d+[smhdw]", text):
        return now - duration(text, option)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{option} {text!r} is neither a length of time (24h, 7d) nor a moment (2026-11-28, 2026-11-28T09:00)."
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace monitor", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="what to look at (default: every model with a log)")
    parser.add_argument("--workspace", type=Path, metavar="DIR", help="default: MILLRACE_WORKSPACE, else .millrace")
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="log and labels (default: the workspace's)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="the model store (default: MILLRACE_MODEL_STORE, else the workspace's)")
    parser.add_argument("--since", default=DEFAULT_SINCE, metavar="WHEN", help="24h, 7d, or a moment (default 24h)")
    parser.add_argument("--until", metavar="WHEN", help="the same (default: now)")
    parser.add_argument("--by", action="append", metavar="COLUMN", help="also by each value of it; may be repeated")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="in the place of the settings that versions carry")
    parser.add_argument(
        "--address", action="append", metavar="HOST:PORT", help="ask golden requests of the versions served there; may be repeated"
    )
    parser.add_argument("--grpc", action="store_true", help="over gRPC (default: REST)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page; with several models a folder of them")
    parser.add_argument("--metrics-file", type=Path, metavar="FILE", help="write the metrics in Prometheus' text form, by one rename")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, one object a model")
    parser.add_argument("--every", metavar="TIME", help="go on, one run after this time each (default 5m with --listen)")
    parser.add_argument("--listen", metavar="HOST:PORT", help="serve /metrics there; port 0 takes a free one")
    return parser


def _wanted(arguments: argparse.Namespace) -> Wanted:
    workspace, models = named_workspace(arguments.workspace), named_store(arguments.store, arguments.workspace)
    window(arguments.since, arguments.until, datetime.now(UTC))  # a wrong text is told before any work
    wanted = Wanted(
        predictions=arguments.predictions or workspace / "predictions",
        store=Path(models),
        models=tuple(arguments.models),
        since=arguments.since,
        until=arguments.until,
        by=tuple(arguments.by) if arguments.by else None,
        settings=FILE.read(arguments.settings) if arguments.settings else None,
        addresses=tuple(arguments.address or ()),
        grpc=arguments.grpc,
    )
    _require_known(wanted.models, wanted)
    return wanted


def _require_known(models: Sequence[str], wanted: Wanted) -> None:
    if not wanted.predictions.is_dir() and not wanted.store.is_dir():
        raise Unavailable(
            f"There is neither a prediction log in {wanted.predictions} nor a model store in {wanted.store}. Name the workspace: --workspace DIR"
        )
    known = {*store.models(wanted.store), *(path.name.removeprefix("model=") for path in (wanted.predictions / "log").glob("model=*"))}
    unknown = [model for model in models if model not in known]
    if unknown:
        raise ConfigError(
            f"There is no model {unknown[0]!r} in {wanted.store} or in {wanted.predictions}. There are: {', '.join(sorted(known)) or 'none'}."
        )
