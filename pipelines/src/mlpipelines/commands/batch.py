"""`millrace batch`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlpipelines.commands import options, screen
from mlpipelines.errors import DataRejected
from mlpipelines.inside import quiet_libraries

if TYPE_CHECKING:
    from mlpipelines.batch.request import BatchOutcome, BatchRequest

_EXAMPLES = """  millrace batch pipelines/projects/transactions --input march.parquet --output scores
  millrace batch my-project --input 'exports/2025-*.parquet' --output scores --keep account
  millrace batch my-project --since 2025-03-01 --until 2025-03-02 --output scores        the project's own source
  millrace batch scam-users --input exports --output scores --rank-by score --top 50 --per day --once-per user_id"""


def main(argv: Sequence[str]) -> int:
    """Score files with the champion."""
    arguments = _parser().parse_args(argv)
    quiet_libraries()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    request = _request(arguments)
    from mlpipelines.batch.request import require_accepted
    from mlpipelines.batch.run import run_batch

    outcome = run_batch(request, (lambda _: None) if arguments.json else lambda text: screen.console().print(text, soft_wrap=True))
    if arguments.json:
        screen.print_json(asdict(outcome))
    else:
        _print_outcome(outcome)
    try:
        require_accepted(outcome, request.max_rejected)
    except DataRejected as error:
        if not arguments.json:
            screen.print_table("Not scored", error.report)
        raise
    return 0


def _request(arguments: argparse.Namespace) -> BatchRequest:
    from mlpipelines.batch.request import BatchRequest

    return BatchRequest(
        project=options.project_of(arguments),
        project_dir=arguments.project_dir,
        workspace=options.workspace_of(arguments),
        output=arguments.output,
        input=arguments.input,
        since=arguments.since,
        until=arguments.until,
        version=arguments.version,
        keep=tuple(arguments.keep),
        rank_by=arguments.rank_by,
        top=arguments.top,
        per=arguments.per,
        once_per=arguments.once_per,
        log_share=arguments.log_share,
        log_features=tuple(arguments.log_feature),
        max_rejected=arguments.max_rejected,
    )


def _print_outcome(outcome: BatchOutcome) -> None:
    out = screen.console()
    if outcome.files == 0 and not outcome.failed:
        out.print(f"Nothing new: {outcome.unchanged} files are in {outcome.output} already.", soft_wrap=True)
        return
    out.print(
        f"Scored {outcome.scored:,} of {outcome.rows:,} rows in {outcome.files} files with {outcome.model} version {outcome.version} "
        f"({outcome.seconds:.1f} s); {outcome.rejected:,} rejected, {outcome.logged:,} in the prediction log.",
        soft_wrap=True,
    )
    if outcome.decisions is not None:
        out.print(f"{outcome.decisions:,} rows decided: {outcome.output}/decisions.parquet", soft_wrap=True)
    if outcome.cases is not None:
        out.print(f"{outcome.cases:,} cases for reviewers: {outcome.output}/cases.parquet", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = options.make_parser(
        "batch",
        "Score Parquet files with a project's champion: one output file for each input file, exactly once for each content and each version.\n"
        "Run it again whenever files were added, or after it was killed: only what is not in the output yet is scored.",
        _EXAMPLES,
    )
    options.add_project(parser)
    options.add_workspace(parser)
    parser.add_argument("--input", default="", metavar="PATH", help="a Parquet file, a folder of them, or a glob in quotes")
    parser.add_argument("--since", default="", metavar="TIME", help="in place of --input: rows of the project's source from this time on")
    parser.add_argument("--until", default="", metavar="TIME", help="in place of --input: rows of the project's source before this time")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="where predictions, rejected rows, cases and the manifest go"
    )
    parser.add_argument("--version", type=int, metavar="N", help="score with this version (default: the champion)")
    parser.add_argument("--keep", action="append", default=[], metavar="COLUMN", help="carry this column along (repeatable)")
    parser.add_argument("--max-rejected", type=float, default=0.0, metavar="SHARE", help="exit 3 if more rows cannot be scored (default 0)")
    parser.add_argument(
        "--log-share", type=float, metavar="SHARE", help="share of the predictions that is logged (default: project.yaml's)"
    )
    parser.add_argument("--log-feature", action="append", default=[], metavar="NAME", help="a feature that is logged (repeatable)")
    cut = parser.add_argument_group("cases for reviewers")
    cut.add_argument("--rank-by", default="", metavar="OUTPUT", help="rank rows by this output of the model, highest first")
    cut.add_argument("--top", type=int, metavar="N", help="how many cases (default: evaluation.capacity of project.yaml)")
    cut.add_argument(
        "--per", choices=["day", "week", "run"], help="of what: days and weeks of the project's time (default: the capacity's)"
    )
    cut.add_argument("--once-per", default="", metavar="COLUMN", help="deliver no value of this column twice, not in later runs either")
    options.add_json(parser)
    return parser
