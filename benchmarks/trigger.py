"""How fast the trigger answers Alertmanager: decisions a second, and the slowest answer of a burst.

The address itself with its ledger, on SQLite and on PostgreSQL, asked over HTTP. First a burst: 1,000 alerts of 50 models, twenty a message, told by two
Alertmanagers at once; how many runs come of it is counted. Then one caller with one alert a message, each of which is a new occurrence: it is decided
on, written down and answered. The database of the test bed is PostgreSQL without fsync, as its flushes are the disk's to answer for.

    python benchmarks/trigger.py [--alerts 1000] [--models 50] [--output benchmarks/results/trigger.json]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import uvicorn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "builders"))

from mlpipelines.commands.screen import console, print_table  # noqa: E402
from mlpipelines.triggers.decide import Policy  # noqa: E402
from mlpipelines.triggers.ledger import Facts, Ledger  # noqa: E402
from mlpipelines.triggers.tokens import Tokens  # noqa: E402
from mlpipelines.triggers.webhook import Parts, build_app  # noqa: E402
from mlpipelines.workspace import write_json  # noqa: E402
from mlserving.database import open_database  # noqa: E402
from postgres import postgres_server, url_of  # noqa: E402

TOKEN = "0123456789abcdef-token"
A_MESSAGE = 20


def main() -> int:
    """Measure both, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alerts", type=int, default=1000)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "trigger.json")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))  # as the trigger's own process does
    rows = []
    for name in ("SQLite", "PostgreSQL"):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            url = f"sqlite:///{folder}/serving.db" if name == "SQLite" else url_of(stack.enter_context(postgres_server()))
            ledger, port = stack.enter_context(trigger(url, Path(folder), arguments.models))
            grouped = [alert(n * arguments.models // arguments.alerts, f"burst {n}") for n in range(arguments.alerts)]
            burst = [grouped[start : start + A_MESSAGE] for start in range(0, len(grouped), A_MESSAGE)] * 2
            together, seconds = asked(port, burst, callers=2)
            runs = len(ledger.wanted())
            assert runs == arguments.models, f"{runs} runs for {arguments.models} models"
            one = [[alert(n % arguments.models, f"one {n}")] for n in range(arguments.alerts)]
            steady, took = asked(port, one, callers=1)
            rows.append(
                {
                    "ledger": name,
                    "burst: decisions/s": round(2 * len(grouped) / seconds),
                    "message p50 ms": milliseconds(together, 50),
                    "slowest ms": milliseconds(together, 100),
                    "runs": runs,
                    "one by one: decisions/s": round(len(one) / took),
                    "answer p50 ms": milliseconds(steady, 50),
                    "p99 ms": milliseconds(steady, 99),
                }
            )
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform(), "load": os.getloadavg()[0]}
    write_json(arguments.output, {"machine": machine, "alerts": arguments.alerts, "models": arguments.models, "rows": rows})
    print_table("the trigger's answers", rows)
    console().print(f"Written to {arguments.output}", soft_wrap=True)
    return 0


@contextlib.contextmanager
def trigger(url: str, folder: Path, models: int) -> Iterator[tuple[Ledger, int]]:
    """The address that alerts are posted to: its ledger and its port."""
    (folder / "token").write_text(TOKEN)
    policies = {f"model-{n}": Policy(cooldown=0.0) for n in range(models)}
    database = open_database(url)
    ledger = Ledger(database)
    parts = Parts(ledger=ledger, facts=lambda model: Facts(policy=policies.get(model)), tokens=Tokens(folder / "token"), woken=lambda: None)
    server = uvicorn.Server(uvicorn.Config(build_app(parts), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield ledger, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        database.dispose()


def alert(model: int, fingerprint: str) -> dict[str, Any]:
    """One that fires."""
    labels = {"alertname": "ModelFeatureDrift", "model": f"model-{model}", "signal": "drift"}
    return {"status": "firing", "labels": labels, "startsAt": "2026-11-28T05:00:00Z", "fingerprint": fingerprint}


def asked(port: int, messages: Sequence[list[dict[str, Any]]], *, callers: int) -> tuple[list[float], float]:
    """Seconds until each message was answered, and until all were."""

    def ask(message: list[dict[str, Any]]) -> float:
        body = json.dumps({"version": "4", "groupKey": "g", "alerts": message})
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/alerts", body, {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        decisions = json.loads(answer.read())["decisions"]
        connection.close()
        assert (answer.status, len(decisions)) == (200, len(message))
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        took = list(pool.map(ask, messages))
    return took, time.perf_counter() - began


def milliseconds(seconds: Sequence[float], percent: float) -> float:
    """A percentile, in milliseconds."""
    return round(1000 * float(np.percentile(seconds, percent)), 1)


if __name__ == "__main__":
    sys.exit(main())
