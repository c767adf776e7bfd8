"""The verdict in the terminal: the same checks as on the page, as many as a screen holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mlpipelines.evaluation.verdict import Check, Estimate, Verdict, figure, from_json

_SLICES = 8
_COLOURS = {"blessed": "green", "rejected": "red", "unchanged": "cyan"}
_ORDER = {False: 0, True: 1, None: 2}
_MARKS = {True: ("✔", "green"), False: ("✘", "red"), None: ("–", "dim")}


def print_verdict(console: Console, path: str | Path) -> None:
    """Print the verdict that lies at `path`, and where its page is."""
    file = Path(path)
    console.print(verdict_table(from_json(file.read_text(encoding="utf-8"))))
    page = file.with_name("verdict.html")
    if page.is_file():
        console.print(Text(f"The whole verdict: {page}", style="dim"), soft_wrap=True)


def verdict_table(verdict: Verdict) -> RenderableType:
    """Title, checks and the other metrics; of the slices eight, failed ones first, then the weakest."""
    colour = _COLOURS[verdict.outcome]
    headline, _, sentence = verdict.title.partition(": ")
    title = Panel(Text.assemble((f"{headline}  ", f"bold {colour}"), sentence), border_style=colour, expand=False)
    table = _empty(verdict)
    slices = sorted((check for check in verdict.checks if check.check == "slice"), key=lambda check: _ORDER[check.passed])
    for check in [*(check for check in verdict.checks if check.check != "slice"), *slices[:_SLICES]]:
        table.add_row(*_row(check))
    if hidden := slices[_SLICES:]:
        table.add_row("", Text(_told(hidden), style="dim"))
    others = [score for score in verdict.scores if score.metric != verdict.metric]
    for place, score in enumerate(others):
        name = Text(("also " if place == 0 else "     ") + score.metric, style="dim")
        table.add_row("", name, str(score.challenger), *_against(score.opponent, score.difference), "")
    return Group(title, table)


def _told(hidden: Sequence[Check]) -> str:
    """`and 15 more slices: 3 failed, 12 passed`."""
    words = {False: "failed", True: "passed", None: "not judged"}
    counts = [(sum(check.passed is passed for check in hidden), word) for passed, word in words.items()]
    return f"and {len(hidden):,} more slices: " + ", ".join(f"{count:,} {word}" for count, word in counts if count)


def _empty(verdict: Verdict) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("check", overflow="fold")
    table.add_column("challenger", justify="right")
    table.add_column("baseline" if verdict.opponent.kind == "baseline" else f"version {verdict.opponent.version}", justify="right")
    table.add_column("better by", justify="right")
    table.add_column("rule", overflow="fold")
    return table


def _row(check: Check) -> list[RenderableType]:
    mark, style = _MARKS[check.passed]
    reason = Text.assemble(check.rule, (f" · {check.reason}" if check.rule and check.reason else check.reason, style))
    return [Text(mark, style=style), check.subject, check.challenger_text, *_against(check.opponent, check.difference), reason]


def _against(opponent: float | None, difference: Estimate | None) -> list[str]:
    return [figure(opponent) if opponent is not None else "", str(difference) if difference else ""]
