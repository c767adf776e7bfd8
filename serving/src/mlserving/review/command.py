"""`millrace review`: arguments in, the queue's work out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from mlserving import database
from mlserving.errors import ConfigError

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
  millrace review status transactions --json

exit codes: 0 done, 2 wrong argument or file, 4 database or disk did not answer, 5 somebody else did it first"""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _fill(arguments: argparse.Namespace) -> int:
    from mlserving.review.choose import Shares
    from mlserving.review.delivery import send_to
    from mlserving.review.figures import figures
    from mlserving.review.fill import Plan, fill
    from mlserving.review.outbox import Outbox
    from mlserving.review.queue import ReviewQueue
    from mlserving.review.tables import Database

    workspace, now = _workspace(arguments), datetime.now(UTC)
    predictions, tables = _predictions(arguments), Database(database.address(workspace))
    if not (predictions / "log" / f"model={arguments.model}").is_dir():
        raise ConfigError(f"There is no log of {arguments.model!r} in {predictions}. Name the folder: --predictions DIR")
    plan = Plan(
        capacity=arguments.capacity,
        runs=arguments.runs,
        most_waiting=arguments.most_waiting or 5 * arguments.capacity,
        shares=Shares(random=arguments.random, minimum=arguments.minimum, double=arguments.double),
        margin=arguments.margin,
        due=timedelta(days=arguments.due),
    )
    waiting = figures(tables, arguments.model, now).open_reviews
    done = fill(
        ReviewQueue(tables), predictions, arguments.model, plan, now, waiting=waiting, models=_models(arguments), since=arguments.since
    )
    Outbox(tables).deliver(send_to(predictions), now)
    print(done.why_none or _said_filled(arguments.model, done))
    return 0


def _said_filled(model: str, done: Any) -> str:
    whys = [choice.why for choice in done.choices]
    parts = ", ".join(f"{whys.count(why)} {why}" for why in dict.fromkeys(sorted(whys))) or "nothing"
    double = sum(choice.double for choice in done.choices)
    return (
        f"Looked through {done.read} predictions of {model} from {done.since:%Y-%m-%d %H:%M} to {done.until:%Y-%m-%d %H:%M} UTC.\n"
        f"{done.added} are to be reviewed ({parts}; {double} of them by two people). The page: millrace review serve"
    )


def _serve(arguments: argparse.Namespace) -> int:
    from mlserving.review.access import Access, session_secret
    from mlserving.review.people import People
    from mlserving.review.service import Service, now
    from mlserving.review.tables import Database

    workspace, people = _workspace(arguments), People(_users(arguments))
    proxy = _proxy(arguments)
    if proxy is None and not people.users():
        raise ConfigError(f"Nobody could sign in: {people.path} has no user. Make one: millrace review add-user NAME")
    if (arguments.tls_certificate is None) != (arguments.tls_key is None):
        raise ConfigError("--tls-certificate and --tls-key go together.")
    secret = session_secret(arguments.secret_file or workspace / "serving" / "review-secret")
    access = Access(people=people, secret=secret, hours=arguments.session_hours, clock=now, proxy=proxy, public_url=arguments.public_url)
    service = Service(
        host=arguments.host,
        port=arguments.port,
        access=access,
        database=Database(database.address(workspace)),
        predictions=_predictions(arguments),
        lease=timedelta(minutes=arguments.lease),
        hold=timedelta(seconds=arguments.hold),
        certificate=arguments.tls_certificate,
        key=arguments.tls_key,
        ready_file=arguments.ready_file,
    )
    return service.run(lambda url: print(f"Reviewers come to {arguments.public_url or url}\nCtrl-C stops it.", flush=True))


def _proxy(arguments: argparse.Namespace) -> Any:
    from mlserving.review.access import Proxy

    if arguments.proxy_header is None:
        if arguments.proxy_secret_file or arguments.proxy_address or arguments.lead:
            raise ConfigError(
                "--proxy-secret-file, --proxy-address and --lead need --proxy-header: in which header does the proxy name people?"
            )
        return None
    secret = _read_secret(arguments.proxy_secret_file) if arguments.proxy_secret_file else None
    if secret is None and not arguments.proxy_address:
        raise ConfigError(
            "Anybody could write that header. Say how the proxy is known: --proxy-address NETWORK, or --proxy-secret-file FILE, or both."
        )
    try:
        networks = tuple(ip_network(each) for each in arguments.proxy_address)
    except ValueError as error:
        raise ConfigError(f"--proxy-address: {error}. Write an address or a network: 10.8.0.0/16") from error
    return Proxy(header=arguments.proxy_header, secret=secret, networks=networks, leads=frozenset(map(str.lower, arguments.lead)))


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--proxy-secret-file {path} cannot be read: {error}.") from error
    if len(secret) < 16:  # noqa: PLR2004  what nobody guesses
        raise ConfigError(f"The secret in {path} is shorter than 16 characters. Make one: openssl rand -hex 24")
    return secret


def _status(arguments: argparse.Namespace) -> int:
    from mlserving.review.figures import figures
    from mlserving.review.status import as_text
    from mlserving.review.tables import Database

    found = figures(Database(database.address(_workspace(arguments))), arguments.model, datetime.now(UTC))
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
    tables = Database(database.address(_workspace(arguments)))
    count = erase(tables, arguments.model, ids=arguments.prediction_id, before=before)
    print(
        f"The features of {count} cases of {arguments.model} are erased from the review queue. The log's are not: millrace predictions --help"
    )
    return 0


def _add_user(arguments: argparse.Namespace) -> int:
    from mlserving.review.people import People

    token = People(_users(arguments)).add(arguments.name, arguments.role, reset=arguments.reset)
    print(f"{arguments.name} ({arguments.role}) may sign in with this token. It is shown once and kept nowhere:", file=sys.stderr)
    print(token)
    return 0


def _remove_user(arguments: argparse.Namespace) -> int:
    from mlserving.review.people import People

    People(_users(arguments)).remove(arguments.name)
    print(f"{arguments.name} can no longer sign in. What they reviewed stays.")
    return 0


def _list_users(arguments: argparse.Namespace) -> int:
    from mlserving.review.people import People

    for name, user in People(_users(arguments)).users().items():
        print(f"{name}  {user.role}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace review", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--workspace", type=Path, metavar="DIR", help="default: MILLRACE_WORKSPACE, else .millrace")
    where.add_argument("--predictions", type=Path, metavar="DIR", help="log and labels (default: the workspace's)")
    where.add_argument("--users", type=Path, metavar="FILE", help="who may sign in (default: serving/review-users.json in the workspace)")
    _add_fill(verbs.add_parser("fill", parents=[where], help="choose predictions for people to look at"))
    _add_serve(verbs.add_parser("serve", parents=[where], help="the page on which people review"))
    status = verbs.add_parser("status", parents=[where], help="what waits and what came out")
    status.add_argument("model", metavar="MODEL")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(run=_status)
    forget = verbs.add_parser("forget", parents=[where], help="erase the features of cases, on request or because they are old")
    forget.add_argument("model", metavar="MODEL")
    forget.add_argument("--prediction-id", action="append", default=[], metavar="ID", help="of this prediction; again for more")
    forget.add_argument("--older-than", type=_at_least(0), metavar="DAYS", help="of all that were chosen before")
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
    parser.add_argument("--capacity", type=_at_least(1), default=100, metavar="N", help="reviews a day (default 100)")
    parser.add_argument("--random", type=_share, default=0.3, metavar="SHARE", help="of the cases, drawn at random (default 0.3)")
    parser.add_argument("--double", type=_share, default=0.1, metavar="SHARE", help="of the cases, for two people (default 0.1)")
    parser.add_argument("--minimum", type=_at_least(0), default=2, metavar="N", help="cases of each predicted class (default 2)")
    parser.add_argument("--margin", metavar="OUTPUT", help="the output with a score for each class: its margin counts, not the confidence")
    parser.add_argument("--runs", type=_at_least(1), default=1, metavar="N", help="runs a day; each uses its part (default 1)")
    parser.add_argument(
        "--most-waiting", type=_at_least(1), metavar="N", help="add nothing while so many reviews wait (default: five days' capacity)"
    )
    parser.add_argument("--due", type=_at_least(1), default=2, metavar="DAYS", help="until when they should be reviewed (default 2)")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="where the first run begins (default: yesterday, 00:00 UTC)")
    parser.set_defaults(run=_fill)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8600, metavar="N", help="default 8600; 0 takes a free one")
    parser.add_argument("--public-url", metavar="URL", help="under which people reach the page, where a proxy stands in front")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="serve by HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--lease", type=_at_least(1), default=15, metavar="MINUTES", help="how long a case stays with one person (default 15)"
    )
    parser.add_argument(
        "--hold", type=_at_least(0), default=30, metavar="SECONDS", help="labels leave after so long, so that undo is free (30)"
    )
    parser.add_argument("--session-hours", type=float, default=10.0, metavar="H", help="how long a sign-in lasts (default 10)")
    parser.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="signs sessions, the same for all replicas (default: made in the workspace)"
    )
    parser.add_argument(
        "--proxy-header", metavar="NAME", help="in which a proxy that signs people in names them, such as X-Forwarded-Email"
    )
    parser.add_argument("--proxy-secret-file", type=Path, metavar="FILE", help="what the proxy sends in X-Millrace-Proxy-Secret")
    parser.add_argument(
        "--proxy-address", action="append", default=[], metavar="NETWORK", help="from which the proxy connects; again for more"
    )
    parser.add_argument("--lead", action="append", default=[], metavar="NAME", help="who of the proxy's people is a lead; again for more")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help='written once people can come: {"url", "pid"}')
    parser.set_defaults(run=_serve)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return number


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: from 0 to 1")
    return value


def _moment(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _workspace(arguments: argparse.Namespace) -> Path:
    return Path(arguments.workspace or os.environ.get("MILLRACE_WORKSPACE") or ".millrace")


def _predictions(arguments: argparse.Namespace) -> Path:
    return Path(arguments.predictions or _workspace(arguments) / "predictions")


def _users(arguments: argparse.Namespace) -> Path:
    return Path(arguments.users or _workspace(arguments) / "serving" / "review-users.json")


def _models(arguments: argparse.Namespace) -> Path:
    if arguments.store or (arguments.workspace is None and os.environ.get("MILLRACE_MODEL_STORE")):
        return Path(arguments.store or os.environ["MILLRACE_MODEL_STORE"])
    return _workspace(arguments) / "models"
