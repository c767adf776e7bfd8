"""`millrace compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlpipelines.commands import options, screen
from mlpipelines.errors import ConfigError

_EXAMPLES = """  millrace compare 20261121-140000-ab12 20261121-150000-cd34
  millrace compare --last 3 --project transactions"""
_AT_LEAST = 2


def main(argv: Sequence[str]) -> int:
    """Runs side by side: data, parameters, metrics, time, memory."""
    parser = options.make_parser(
        "compare", "Set runs side by side: data, parameters, metrics, time and memory. Rows on which they differ are marked.", _EXAMPLES
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run ids, as `millrace runs` prints them")
    parser.add_argument("--project", help="with --last: whose runs")
    parser.add_argument("--last", type=int, metavar="N", help="the last N runs that were evaluated")
    parser.add_argument("--all", action="store_true", help="also rows on which the runs agree")
    options.add_workspace(parser)
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    workspace = options.workspace_of(arguments)
    wanted = arguments.runs or _last(workspace, arguments.project, arguments.last or _AT_LEAST)
    if len(wanted) < _AT_LEAST:
        raise ConfigError("there are fewer than two evaluated runs to compare. `millrace runs` lists what there is.")
    from mlpipelines.publishing import registry

    compared = registry.compare_runs(workspace, wanted)
    if arguments.json:
        screen.print_json(compared)
    else:
        _print(wanted, compared, everything=arguments.all)
    return 0


def _last(workspace: Any, project: str | None, count: int) -> list[str]:
    from mlpipelines.runs import list_runs

    evaluated = [r.run_id for r in list_runs(workspace, project) if r.steps["evaluate"].status == "done"]
    return list(reversed(evaluated[:count]))


def _print(wanted: Sequence[str], compared: Sequence[dict[str, Any]], *, everything: bool) -> None:
    """One column a run, one row a fact."""
    names = list(dict.fromkeys(name for run in compared for name in run))
    rows = []
    for name in names:
        values = [run.get(name) for run in compared]
        differs = len({str(value) for value in values}) > 1
        if differs or everything:
            rows.append({"": "≠" if differs else "", "fact": name, **dict(zip(wanted, values, strict=True))})
    screen.print_table("Runs side by side", rows, empty="the runs agree in everything that was recorded")
