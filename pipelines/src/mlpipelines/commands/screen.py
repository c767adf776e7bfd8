"""What runs and tables look like in a terminal.

On a terminal a run is one table that lives; in a log file it is a line for each thing that happened. Both are drawn from the
same `StepRecord`s.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mlpipelines.runs import StepRecord

_MARKS = {
    "waiting": Text("·", style="dim"),
    "done": Text("✔", style="green"),
    "reused": Text("↺", style="cyan"),
    "failed": Text("✘", style="red"),
    "skipped": Text("–", style="dim"),
}
_BAR_WIDTH = 18


def console() -> Console:
    """A console on standard output; wide enough for a table when there is no terminal to ask."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140, soft_wrap=False)


def print_json(value: Any) -> None:
    """`value` for machines."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(title: str, rows: Sequence[Mapping[str, Any]], *, columns: Iterable[str] | None = None, empty: str = "nothing yet") -> None:
    """`rows` as a table; keys are headings."""
    if not rows:
        console().print(f"{title}: {empty}")
        return
    names = list(columns or rows[0])
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        numeric = all(isinstance(row.get(name), (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


class RunScreen:
    """Draws a run while it goes on: `with RunScreen(title) as screen: run(request, screen.show)`."""

    def __init__(self, title: str) -> None:
        self._title, self._steps = title, dict[str, StepRecord]()
        self._began: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._console = console()
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=8) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._live:
            self._live.start()
        else:
            self._console.print(self._title)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the last picture standing."""
        if self._live:
            self._live.stop()

    def show(self, steps: Mapping[str, StepRecord]) -> None:
        """Take in how far each step is."""
        for name, step in steps.items():
            if step.status == "running":
                self._began.setdefault(name, time.monotonic())
        self._steps = dict(steps)
        if self._live is None:
            self._say()

    def _say(self) -> None:
        for name, step in self._steps.items():
            if step.status in ("waiting", "running") or self._said.get(name) == step.status:
                continue
            self._said[name] = step.status
            cost = f"{step.seconds:6.1f} s {step.peak_mb:6,.0f} MB" if step.seconds else ""
            self._console.print(f"  {step.status:<8} {name:<11} {cost}  {summary_of(step)}".rstrip(), soft_wrap=True)

    def _draw(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
        for step in self._steps.values():
            mark = Spinner("dots", style="yellow") if step.status == "running" else _MARKS[step.status]
            style = "dim" if step.status in ("waiting", "skipped") else ""
            table.add_row(mark, Text(step.step, style=style), Text(self._seconds(step), style="dim"), _memory(step), self._middle(step))
        return Group(Text(self._title, style="bold"), table)

    def _seconds(self, step: StepRecord) -> str:
        if step.status == "running":
            return f"{time.monotonic() - self._began.get(step.step, time.monotonic()):6.1f} s"
        return f"{step.seconds:6.1f} s" if step.seconds else ""

    def _middle(self, step: StepRecord) -> Any:
        if step.status != "running":
            return Text(summary_of(step), style="cyan" if step.status == "reused" else "")
        if step.fraction is None:
            return Text(step.text, style="yellow")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total=1.0, completed=step.fraction, width=_BAR_WIDTH), Text(step.text, style="yellow"))
        return grid


def _memory(step: StepRecord) -> Text:
    return Text(f"{step.peak_mb:6,.0f} MB" if step.peak_mb else "", style="dim")


def summary_of(step: StepRecord) -> str:
    """One line on what a finished step found."""
    if step.failure:
        return str(step.failure["message"]).splitlines()[0][:160] if step.failure["message"] else str(step.failure["kind"])
    if step.status == "reused":
        return "unchanged since an earlier run"
    return str(step.facts.get("summary", "")) or ", ".join(f"{name} {_cell(value)}" for name, value in list(step.facts.items())[:4])
