"""A real Prometheus on loopback with a history that the test made up: what queries are tried against.

`promtool` turns OpenMetrics text with timestamps into blocks, so hours of history are there at once and always the same. It also
scrapes what it is told to. The server dies with the thread that started it, even when that is killed.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import binaries
import programs
from programs import NotReady

PROGRAMS = ["prometheus", "promtool"]
_LISTENING = re.compile(r'msg="Listening on".* address=(\S+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series: its labels, and its values by moment (seconds since the epoch)."""

    name: str
    labels: Mapping[str, str]
    values: Mapping[float, float]


class PrometheusServer:
    """Real Prometheus with `history`, as a context manager. The folder is the caller's to remove.

    Args:
        folder: where data, configuration and log go.
        history: what it knows from the start.
        scrape: its `scrape_configs`.
        rules: files of rules, which it evaluates every second where there are any.
        alertmanagers: whom it tells of alerts, as HOST:PORT.

    Raises:
        NotReady: it ended or did not listen in time.
        binaries.ToolsMissing: the programs are not there and cannot be built.
    """

    def __init__(
        self,
        folder: Path,
        history: Iterable[Series] = (),
        scrape: Sequence[Mapping[str, Any]] = (),
        rules: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
    ) -> None:
        self.url = ""
        self._folder, self._history = folder, history
        self._settings: dict[str, Any] = {"scrape_configs": scrape}
        if rules:
            self._settings |= {"global": {"evaluation_interval": "1s"}, "rule_files": [str(file) for file in rules]}
        if alertmanagers:
            self._settings["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]}

    def __enter__(self) -> Self:
        """Make the blocks, start, and wait until it answers."""
        built = binaries.paths(PROGRAMS)
        data, config, self._log = self._folder / "data", self._folder / "prometheus.yaml", self._folder / "prometheus.log"
        config.write_text(json.dumps(self._settings))  # JSON is YAML
        _make_blocks(built["promtool"], self._folder / "history.txt", data, self._history)
        settings = [f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y", "--web.listen-address=127.0.0.1:0"]
        self._process = programs.started([built["prometheus"], f"--config.file={config}", *settings], self._log)
        programs.wait("Prometheus", self._process, self._log, self._answers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it at once."""
        programs.end(self._process)

    def _answers(self) -> bool:
        found = _LISTENING.search(self._log.read_text())  # which port it chose, nobody else knows
        if found is None:
            return False
        self.url = f"http://{found[1]}"
        return programs.is_ready(self.url)


def _make_blocks(promtool: Path, text: Path, data: Path, history: Iterable[Series]) -> None:
    """Raises `NotReady` when promtool refuses it."""
    named: dict[str, list[str]] = {}
    for series in history:
        labels = ",".join(f'{name}="{value}"' for name, value in series.labels.items())
        named.setdefault(series.name, []).extend(f"{series.name}{{{labels}}} {value} {at:.3f}" for at, value in series.values.items())
    lines = [line for name, samples in named.items() for line in (f"# TYPE {name} gauge", *samples)]
    text.write_text("\n".join([*lines, "# EOF", ""]))
    command = [str(promtool), "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NotReady(f"{' '.join(command)}\n{made.stdout}{made.stderr}")
