"""`python -m mlserving record` and `compact`: what the gateway and a CronJob start. People have no need of them."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from mlserving.predictions import labels, logs, upkeep
from mlserving.predictions.commit import locked
from mlserving.predictions.recorder import MOST_ROWS, MOST_SECONDS, Options, Recorder
from mlserving.predictions.records import MOST_VALUE_BYTES

_PAUSE = 0.2


def record(argv: list[str]) -> int:
    """Run the recorder until SIGTERM, or until the gateway that started it is gone. Raises ConfigError."""
    arguments = vars(_record_parser().parse_args(argv))
    parent = arguments.pop("parent") or os.getppid()
    options = Options(**arguments)
    logs.configure()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        with locked(options.spool) as ours:
            if ours:
                Recorder(options).run(stopping, lambda: os.getppid() != parent)
                return 0
        time.sleep(_PAUSE)  # a recorder before this one is still writing what its gateway left
    return 0


def compact(argv: list[str]) -> int:
    """Merge and delete what is old, once."""
    arguments = _compact_parser().parse_args(argv)
    collected = sum(labels.collect(arguments.predictions).values())
    merged, deleted = upkeep.keep_up(arguments.predictions, datetime.now(UTC), arguments.keep_days)
    print(f"{collected} labels written, {merged} files merged, {deleted} days deleted")
    return 0


def _record_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlserving record", description="Write what the gateway spooled as Parquet.")
    parser.add_argument("--spool", type=Path, required=True, metavar="DIR", help="where the gateway appends")
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="where the log and the labels lie")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="gateway.yaml: the models, and what is logged of each")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="where to write figures in Prometheus' text format, each second")
    parser.add_argument("--most-rows", type=int, default=MOST_ROWS, metavar="N", help="rows of a file (default %(default)s)")
    parser.add_argument(
        "--most-seconds", type=float, default=MOST_SECONDS, metavar="S", help="how long rows wait for company (default %(default)g)"
    )
    parser.add_argument(
        "--most-value-bytes", type=int, default=MOST_VALUE_BYTES, metavar="N", help="larger values are left out (default %(default)s)"
    )
    parser.add_argument("--keep-days", type=int, metavar="N", help="delete days older than this (default: keep all)")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process is no longer the parent (default: whoever is now)")
    return parser


def _compact_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlserving compact", description="Merge the small files of days that are over.")
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="where the log and the labels lie")
    parser.add_argument("--keep-days", type=int, metavar="N", help="delete days older than this (default: keep all)")
    return parser
