"""`millrace runs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlpipelines.commands import options, screen
from mlpipelines.commands.run import as_json
from mlpipelines.errors import ConfigError
from mlpipelines.runs import RunRecord, list_runs

_EXAMPLES = """  millrace runs                         every run in the workspace, newest first
  millrace runs transactions --json
  millrace runs --show 20261121-140000-ab12     one run, step by step"""


def main(argv: Sequence[str]) -> int:
    """List runs, or show one."""
    parser = options.make_parser("runs", "List the runs of a workspace, newest first, or show one of them step by step.", _EXAMPLES)
    parser.add_argument("project", nargs="?", help="only this project's")
    parser.add_argument("--show", metavar="RUN", help="one run, step by step")
    options.add_workspace(parser)
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    records = list_runs(options.workspace_of(arguments), arguments.project)
    if arguments.show:
        return _show(records, arguments.show, as_machine=arguments.json)
    if arguments.json:
        screen.print_json([as_json(record) for record in records])
    else:
        screen.print_table("Runs", [_row(record) for record in records], empty="none yet. `millrace run PROJECT_DIR` starts one.")
    return 0


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        "run": record.run_id,
        "project": record.project,
        "status": record.status,
        "started": record.started.strftime("%Y-%m-%d %H:%M"),
        "seconds": round(record.seconds, 1),
        "version": record.facts.get("version"),
        "verdict": record.facts.get("verdict", (record.failure or {}).get("kind", "")),
        "reason": record.reason,
    }


def _show(records: list[RunRecord], run_id: str, *, as_machine: bool) -> int:
    record = next((r for r in records if r.run_id == run_id), None)
    if record is None:
        raise ConfigError(f"there is no run {run_id!r} here. `millrace runs` lists those that there are.")
    if as_machine:
        screen.print_json(as_json(record))
        return 0
    rows = [
        {"step": s.step, "status": s.status, "seconds": round(s.seconds, 1), "peak MB": round(s.peak_mb), "what": screen.summary_of(s)}
        for s in record.steps.values()
    ]
    screen.print_table(f"{record.run_id} · {record.project} · {record.status} · {record.reason}", rows)
    screen.console().print(f"Folder: {record.folder}", style="dim", soft_wrap=True)
    return 0
