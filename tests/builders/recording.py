"""A recorder in a process of its own, and what a gateway would do beside it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mlserving.predictions.reading import log


def gateway_yaml(folder: Path, models: dict[str, dict[str, Any]], rest: str = "127.0.0.1:1") -> Path:
    """Settings with one stable track for each model, served at `rest`; what is given beside is the model's `log`."""
    backend = {"grpc": "127.0.0.1:1", "rest": rest, "weight": 100}
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump({"models": {name: {"tracks": {"stable": backend}, "log": log} for name, log in models.items()}}))
    return path


@contextlib.contextmanager
def recording(folder: Path, config: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m mlserving record` on `folder/spool` and `folder/predictions`; asked to finish at the end, unless it is gone."""
    command = [sys.executable, "-m", "mlserving", "record", "--spool", str(folder / "spool"), "--predictions", str(folder / "predictions")]
    command += ["--config", str(config), "--metrics", str(folder / "recorder.prom"), "--most-seconds", "0.3", *options]
    with (folder / "recorder.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
            if process.poll() is None:
                process.terminate()
                assert process.wait(120) == 0, (folder / "recorder.log").read_text()
        finally:
            process.kill()


def rows_in(predictions: Path, model: str) -> int:
    """How many rows the log has, as a reader sees it."""
    return log(predictions, model).count()
