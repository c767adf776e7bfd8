"""`millrace review`: arguments in, the queue's work out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlserving import database
from mlserving.errors import ConfigError
from mlserving.review import options, serve_command

_DESCRIPTION = """\
Have people look at a few predictions a day. What they say becomes labels, and says how good the model is.

  fill MODEL      choose predictions of the log, the least certain and some at random, for people to look at
  serve           the page on which they do
  status MODEL    what waits, who did what, how far people agree, how often the model is right
  add-user NAME   let somebody in; prints their token once"""

_EPILOG = """\
examples:
  millrace review fill transactions --capacity 50      once a day, by cron
  millrace review add-user ann --role lead             the first user
  millrace review serve                                http://127.0.0.1:8600
  millrace review serve --proxy-header X-Forwarded-Email --proxy-address 10.0.0.0/8
                                                       behind a proxy that signs people in
  millrace review serve --iap-audience /projects/12/global/backendServices/34 --metrics 0.0.0.0:8601
                                                       behind Google's Identity-Aware Proxy
  millrace review status transactions --json

What `fill` chooses is the `review` section of project.yaml, as the newest version carries it; options change it.
exit codes: 0 done, 2 wrong argument or file, 4 database or disk did not answer, 5 somebody else did it first"""


_OF_THE_PROJECT = ("capacity", "random", "double", "minimum", "margin", "due_days", "most_waiting")
"""Options of `fill` that the project's `review` section says where they are not typed."""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _fill(arguments: argparse.Namespace) -> int:
    from mlserving.review.delivery import send_to
    from mlserving.review.figures import figures
    from mlserving.review.fill import fill
    from mlserving.review.outbox import Outbox
    from mlserving.review.queue import ReviewQueue
    from mlserving.review.tables import Database

    workspace, now = options.workspace_of(arguments), datetime.now(UTC)
    predictions, tables = options.predictions_of(arguments), Database(database.address(workspace))
    if not (predictions / "log" / f"model={arguments.model}").is_dir():
        raise ConfigError(f"There is no log of {arguments.model!r} in {predictions}. Name the folder: --predictions DIR")
    plan = _plan(arguments)
    waiting = figures(tables, arguments.model, now).open_reviews
    done = fill(
        ReviewQueue(tables),
        predictions,
        arguments.model,
        plan,
        now,
        waiting=waiting,
        models=options.models_of(arguments),
        since=arguments.since,
    )
    Outbox(tables).deliver(send_to(predictions), now)
    print(done.why_none or _said_filled(arguments.model, done))
    return 0


def _plan(arguments: argparse.Namespace) -> Any:
    """What the options say, else what the newest version carries of its project."""
    from mlserving.review.carried import of_model
    from mlserving.review.choose import Shares
    from mlserving.review.fill import Plan

    said = {name: getattr(arguments, name) for name in _OF_THE_PROJECT if getattr(arguments, name) is not None}
    wanted = of_model(options.models_of(arguments), arguments.model).model_copy(update=said)
    return Plan(
        capacity=wanted.capacity,
        runs=arguments.runs,
        most_waiting=wanted.most_waiting or 5 * wanted.capacity,
        shares=Shares(random=wanted.random, minimum=wanted.minimum, double=wanted.double),
        margin=wanted.margin,
        due=timedelta(days=wanted.due_days),
    )


def _said_filled(model: str, done: Any) -> str:
    whys = [choice.why for choice in done.choices]
    parts = ", ".join(f"{whys.count(why)} {why}" for why in dict.fromkeys(sorted(whys))) or "nothing"
    double = sum(choice.double for choice in done.choices)
    return (
        f"Looked through {done.read} predictions of {model} from {done.since:%Y-%m-%d %H:%M} to {done.until:%Y-%m-%d %H:%M} UTC.\n"
        f"{done.added} are to be reviewed ({parts}; {double} of them by two people). The page: millrace review serve"
    )


def _status(arguments: argparse.Namespace) -> int:
    from mlserving.review.figures import figures
    from mlserving.review.status import as_text
    from mlserving.review.tables import Database

    found = figures(Database(database.address(options.workspace_of(arguments))), arguments.model, datetime.now(UTC))
    if arguments.json:
        whole = asdict(found)
        whole["kappas"] = [{"reviewers": pair, **asdict(figure)} for pair, figure in found.kappas.items()]
        print(json.dumps(whole, default=lambda value: value.isoformat(), indent=1))
    else:
        print(as_text(found))
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    from mlserving.review.erase import erase
    from mlserving.review.tables import Database

    if not arguments.prediction_id and arguments.older_than is None:
        raise ConfigError("Say which cases: --prediction-id ID, or --older-than DAYS.")
    before = None if arguments.older_than is None else datetime.now(UTC) - timedelta(days=arguments.older_than)
    tables = Database(database.address(options.workspace_of(arguments)))
    count = erase(tables, arguments.model, ids=arguments.prediction_id, before=before)
    print(
        f"The features of {count} cases of {arguments.model} are erased from the review queue. The log's are not: millrace predictions --help"
    )
    return 0


def _add_user(arguments: argparse.Namespace) -> int:
    from mlserving.review.people import People

    token = People(options.users_of(arguments)).add(arguments.name, arguments.role, reset=arguments.reset)
    print(f"{arguments.name} ({arguments.role}) may sign in with this token. It is shown once and kept nowhere:", file=sys.stderr)
    print(token)
    return 0


def _remove_user(arguments: argparse.Namespace) -> int:
    from mlserving.review.people import People

    People(options.users_of(arguments)).remove(arguments.name)
    print(f"{arguments.name} can no longer sign in. What they reviewed stays.")
    return 0


def _list_users(arguments: argparse.Namespace) -> int:
    from mlserving.review.people import People

    for name, user in People(options.users_of(arguments)).users().items():
        print(f"{name}  {user.role}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace review", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    where = options.places()
    _add_fill(verbs.add_parser("fill", parents=[where], help="choose predictions for people to look at"))
    serve_command.add_options(verbs.add_parser("serve", parents=[where], help="the page on which people review"))
    status = verbs.add_parser("status", parents=[where], help="what waits and what came out")
    status.add_argument("model", metavar="MODEL")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)
    forget = verbs.add_parser("forget", parents=[where], help="erase the features of cases, on request or because they are old")
    forget.add_argument("model", metavar="MODEL")
    forget.add_argument("--prediction-id", action="append", default=[], metavar="ID", help="of this prediction; again for more")
    forget.add_argument("--older-than", type=options.at_least(0), metavar="DAYS", help="of all that were chosen before")
    forget.set_defaults(run=_forget)
    add = verbs.add_parser("add-user", parents=[where], help="let somebody in")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", choices=["reviewer", "lead"], default="reviewer", help="a lead settles cases and sees everybody's figures")
    add.add_argument("--reset", action="store_true", help="a new token for somebody who is there; their sessions end")
    add.set_defaults(run=_add_user)
    remove = verbs.add_parser("remove-user", parents=[where], help="let somebody in no more")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(run=_remove_user)
    verbs.add_parser("users", parents=[where], help="who may sign in").set_defaults(run=_list_users)
    return parser


def _add_fill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--store", type=Path, metavar="DIR", help="the model store (default: MILLRACE_MODEL_STORE, else the workspace's)")
    parser.add_argument("--capacity", type=options.at_least(1), metavar="N", help="reviews a day (default: the project's, 100)")
    parser.add_argument("--random", type=options.share, metavar="SHARE", help="of the cases, drawn at random (default: the project's, 0.3)")
    parser.add_argument("--double", type=options.share, metavar="SHARE", help="of the cases, for two people (default: the project's, 0.1)")
    parser.add_argument(
        "--minimum", type=options.at_least(0), metavar="N", help="cases of each predicted class (default: the project's, 2)"
    )
    parser.add_argument("--margin", metavar="OUTPUT", help="the output with a score for each class: its margin counts, not the confidence")
    parser.add_argument("--runs", type=options.at_least(1), default=1, metavar="N", help="runs a day; each uses its part (default 1)")
    parser.add_argument(
        "--most-waiting",
        type=options.at_least(1),
        metavar="N",
        help="add nothing while so many reviews wait (default: the project's, five days' capacity)",
    )
    parser.add_argument(
        "--due",
        dest="due_days",
        type=options.at_least(1),
        metavar="DAYS",
        help="until when they should be reviewed (default: the project's, 2)",
    )
    parser.add_argument("--since", type=options.moment, metavar="TIME", help="where the first run begins (default: yesterday, 00:00 UTC)")
    parser.set_defaults(run=_fill)
