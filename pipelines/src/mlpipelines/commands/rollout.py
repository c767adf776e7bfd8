"""`millrace rollout`: `start` reads the plan from the project; every other verb is serving's own and needs no project folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlpipelines.commands import options
from mlserving.rollout import command

if TYPE_CHECKING:
    from mlserving.rollout.actions import Room

_START = "load a version beside the one that answers, and give it the first step's share"


def main(argv: Sequence[str]) -> int:
    """Run a verb."""
    parser = argparse.ArgumentParser(
        prog="millrace rollout",
        description=command.DESCRIPTION,
        epilog=command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    start = verbs.add_parser(
        "start", help=_START, description=f"{_START[0].upper()}{_START[1:]}. The plan is deployment.rollout in project.yaml."
    )
    options.add_project(start)
    start.add_argument("--version", type=int, metavar="N", help="which (default: the challenger, else the newest)")
    start.add_argument("--digest", default="", help="what the version must be, where its files are not at hand")
    start.add_argument("--reason", default="", help="why; it goes into the audit log")
    command.add_place(start)
    start.set_defaults(run=_start)
    command.add_verbs(verbs)
    arguments = parser.parse_args(argv)
    return int(arguments.run(command.room_of(arguments), arguments))


def _start(room: Room, arguments: argparse.Namespace) -> int:
    from mlpipelines.rollout_wish import wish_of
    from mlserving.rollout import actions

    project = options.project_of(arguments)
    desired = actions.start(room, wish_of(project, version=arguments.version, digest=arguments.digest, reason=arguments.reason))
    assert desired.rollout is not None
    name = desired.model
    print(
        f"Version {desired.rollout.to_version} of {name} answers {desired.rollout.weight:g} % of the requests, version {desired.rollout.from_version} the rest. Next:\n"
        f"  millrace rollout run {name}\n  millrace rollout status {name} --watch"
    )
    return 0
