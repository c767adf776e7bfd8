"""`millrace features`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mlpipelines.commands import options, screen
from mlpipelines.moments import moments

_EXAMPLES = """  millrace features export pipelines/projects/scam-users --since 2025-05-01 --output feature-store
  millrace features export my-project --since 2025-05-20 --until 2025-05-21 --output feature-store      one day, each morning"""


def main(argv: Sequence[str]) -> int:
    """Write a contract's rows and definitions for Feast."""
    parser = options.make_parser(
        "features",
        "`export` writes the daily rows of a project's feature contract, without the label, and their definitions into a feature repository\n"
        "of Feast. Then, in there: feast apply, feast materialize-incremental. A day that is written already is written again.",
        _EXAMPLES,
    )
    parser.add_argument("action", choices=["export"])
    options.add_project(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the feature repository; made where there is none")
    parser.add_argument("--since", required=True, metavar="TIME", help="the moments from this time on")
    parser.add_argument("--until", default="", metavar="TIME", help="the moments before this time (default: those that have come)")
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    since, until = moments(arguments.since, arguments.until)
    assert since is not None
    from mlpipelines.features.feast_repository import export

    found = export(options.project_of(arguments), arguments.project_dir, arguments.output, since, until)
    if arguments.json:
        screen.print_json(asdict(found))
    else:
        screen.console().print(
            f"{found.rows:,} rows of {found.days:,} days, declared in {found.definitions}.\n"
            f"Go on with: cd {arguments.output} && feast apply",
            soft_wrap=True,
        )
    return 0
