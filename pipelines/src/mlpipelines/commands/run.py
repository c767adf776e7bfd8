"""`millrace run`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mlpipelines.commands import options, screen
from mlpipelines.run import RunRequest, run
from mlpipelines.runs import RunRecord

_EXAMPLES = """  millrace run pipelines/projects/transactions
  millrace run pipelines/projects/transactions --set source.kind=parquet --set source.path=rows.parquet
  millrace run my-project --accept-schema          the first run of a project without a reviewed schema
  millrace run my-project --reuse champion         new labels, no training: what is served is built anew from the champion's training
  millrace run my-project --no-cache               every step anew"""
_EXIT = {"blessed": 0, "unchanged": 0, "rejected": 3, "failed": 1, "interrupted": 130, "killed": 1}


def main(argv: Sequence[str]) -> int:
    """Run the pipeline on this machine."""
    arguments = _parser().parse_args(argv)
    workspace = options.workspace_of(arguments)
    request = RunRequest(
        project=options.reusing(options.project_of(arguments), arguments.reuse, workspace),
        project_dir=arguments.project_dir,
        workspace=workspace,
        since=arguments.since,
        until=arguments.until,
        accept_schema=arguments.accept_schema,
        cache=not arguments.no_cache,
        reason=arguments.reason,
        run_id=arguments.run_id,
    )
    if arguments.json:
        record = run(request, lambda _: None)
        screen.print_json(as_json(record))
    else:
        with screen.RunScreen(f"{request.project.name} · {request.workspace.root}") as drawn:
            record = run(request, drawn.show)
        print_outcome(record)
    return exit_code_of(record)


def exit_code_of(record: RunRecord) -> int:
    """The foreseen failure's own code, else the status's."""
    if record.status == "failed" and record.failure:
        return int(record.failure["exit_code"])
    return _EXIT[record.status]


def print_outcome(record: RunRecord) -> None:
    """The verdict, or why there is none, and what to do next."""
    out = screen.console()
    out.print()
    if record.failure:
        _print_failure(record)
    if path := record.facts.get("verdict_file"):
        from mlpipelines.evaluation.verdict_table import print_verdict

        print_verdict(out, path)
    sentence = {
        "blessed": f"[green]Published[/green] {record.facts.get('model', record.project)} version {record.facts.get('version')}",
        "unchanged": "Nothing new: this model is the champion already.",
        "rejected": "[red]Rejected.[/red] Nothing was registered; the champion stays.",
        "interrupted": "Interrupted. Run the same command again: finished steps are reused, training goes on from its last checkpoint.",
        "failed": "[red]Failed.[/red]",
        "killed": "[red]Killed.[/red]",
    }[record.status]
    out.print(f"\n{sentence}  (run {record.run_id}, {record.seconds:.0f} s in steps)")


def _print_failure(record: RunRecord) -> None:
    failure: Any = record.failure
    out = screen.console()
    out.print(f"[red]{failure['kind']}[/red]: ", end="")
    out.print(failure["message"], markup=False)
    if failure["report"]:
        screen.print_table("Reasons", failure["report"])
    out.print(f"The whole log: {record.folder / 'log.txt'}", style="dim", soft_wrap=True)


def as_json(record: RunRecord) -> dict[str, Any]:
    """A run for machines."""
    return {
        "run": record.run_id,
        "project": record.project,
        "status": record.status,
        "reason": record.reason,
        "started": record.started.isoformat(),
        "folder": str(record.folder),
        "facts": record.facts,
        "failure": record.failure,
        "steps": {name: {"status": s.status, "seconds": s.seconds, "peak_mb": s.peak_mb} for name, s in record.steps.items()},
    }


def _parser() -> argparse.ArgumentParser:
    parser = options.make_parser(
        "run",
        "Run a project's pipeline on this machine: ingest, statistics, validate, transform, train, evaluate and, if the new model is\n"
        "better than the champion, register and publish. Steps whose inputs did not change are reused; Ctrl-C stops cleanly.",
        _EXAMPLES,
    )
    options.add_project(parser)
    options.add_workspace(parser)
    options.add_reuse(parser)
    parser.add_argument("--since", default="", metavar="TIME", help="read rows from this time on (ISO 8601)")
    parser.add_argument("--until", default="", metavar="TIME", help="read rows before this time (ISO 8601)")
    parser.add_argument("--accept-schema", action="store_true", help="accept the proposed schema at once, where the project has none")
    parser.add_argument("--no-cache", action="store_true", help="run every step, whatever has been done before")
    parser.add_argument("--reason", default="started by hand", metavar="TEXT", help="why, for the record")
    parser.add_argument(
        "--run-id",
        default="",
        metavar="NAME",
        help="the run's name, used once: a second run of it is refused (default: one made from the time)",
    )
    options.add_json(parser)
    return parser
