"""What a person at a terminal sees of a plan. Fits 80 columns and uses more where there are more."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mlplatform.plan.cost import Estimate
from mlplatform.plan.report import Difference, Report, Row


def console() -> Console:
    """Where it is drawn: a terminal as wide as it is, and 100 columns into a file."""
    drawn = Console(highlight=False)
    return drawn if drawn.is_terminal else Console(highlight=False, width=100)


def plan_page(report: Report) -> RenderableType:
    """The whole plan."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    environment = report.environment
    where = f"{environment.cloud.project}, {environment.cloud.region}" if environment.cloud else "a cluster that is there"
    yield Text.assemble((f"{environment.name}", "bold"), f": {environment.stage}, {where}, {len(report.rows)} steps")
    yield Text(f"{report.release}\n" if report.release else "", style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("step", no_wrap=True, style="bold")
    table.add_column("what, by whom, and what is waited for", overflow="fold")
    if any(row.difference for row in report.rows):
        table.add_column("on the cluster", overflow="fold")
    for number, row in enumerate(report.rows, 1):
        more = [_against(row.difference)] if len(table.columns) > 3 else []  # noqa: PLR2004  # the fourth column
        table.add_row(str(number), row.step.name, _about(row), *more)
    yield table
    yield _gpus(report)
    if report.cost:
        yield _cost(report.cost)
    if report.refused:
        yield Text("\nThe cluster refuses", style="bold red")
        yield from (Text(f"  {text}", overflow="fold") for text in report.refused)
    if report.missing:
        yield Text("\nBefore it can be deployed", style="bold")
        yield from (Text(f"  {text}", overflow="fold") for text in report.missing)


def _about(row: Row) -> Text:
    text = Text(row.step.what)
    text.append(f"\n{row.step.owner}", style="cyan")
    if row.objects is None:
        text.append(f"\nfetched at deployment: {row.step.fetched}", style="yellow")
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in row.objects.items())
        text.append(f"\n{kinds or 'nothing to write'}", style="dim")
    text.append(f"\nready when {row.step.ready}", style="dim")
    return text


def _against(difference: Difference | None) -> Text:
    if difference is None:
        return Text("")
    text = Text(difference.words)
    text.append(f"\n{difference.chart}" if difference.chart else "", style="dim")
    for restarted in difference.restarts:
        text.append(f"\nrestarts {restarted}", style="yellow")
    text.append("\nrefused, see below" if difference.refused else "", style="red")
    return text


def _gpus(report: Report) -> RenderableType:
    environment = report.environment
    there = environment.gpus()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title="GPUs", title_justify="left", title_style="bold")
    table.add_column("type")
    table.add_column("in pools, at most", justify="right")
    for team in environment.teams:
        table.add_column(team, justify="right")
    for kind, most in sorted(there.items()):
        held = [sum(lane.quota for lane in team.lanes.values() if lane.type == kind) for team in environment.teams.values()]
        table.add_row(kind, str(most), *(str(gpus) if gpus else "–" for gpus in held))
    return table if there else Text("No GPUs.")


def _cost(cost: Estimate) -> RenderableType:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title=f"A month in {cost.currency}", title_justify="left", title_style="bold"
    )
    for heading in ("", "at least", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    for line in cost.lines:
        table.add_row(line.what, f"{line.least:,.0f}", f"{line.most:,.0f}")
    table.add_row("together", f"{cost.least:,.0f}", f"{cost.most:,.0f}", style="bold")
    table.add_section()
    for text in cost.unpriced:
        table.add_row(text, "–", "–", style="dim")
    return Group(Text(""), table, Text(f"By the environment's own prices (as of {cost.as_of or 'nobody knows when'})."))
