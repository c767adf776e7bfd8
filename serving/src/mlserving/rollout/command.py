"""`millrace rollout VERB MODEL`: everything after `start` needs the model's name and no project folder."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

from mlserving.errors import ConfigError, Conflict
from mlserving.rollout import actions, screen
from mlserving.rollout.actions import Room
from mlserving.rollout.document import Desired, history
from mlserving.rollout.plan import Phase
from mlserving.rollout.wiring import Cluster, cluster_room, local_room, whoever
from mlserving.workspace import workspace_folder

DESCRIPTION = """\
Move a model's requests from one version to another, step by step, and back in seconds.

A rollout's state lies with what it steers, so every verb works from any shell (and, on a cluster, any machine). `run` judges and goes on by itself until the
version has taken over or was aborted; stop it at any time, and `run` again goes on."""

EPILOG = """\
examples:
  millrace serve --tracks transactions                    in another terminal, first
  millrace rollout start PROJECT_DIR --reason "new week"  load the challenger and give it the first percent
  millrace rollout run transactions                       judge and go on, until it is promoted or aborted
  millrace rollout status transactions --watch
  millrace rollout approve transactions                   where deployment.approval asks for it
  millrace rollout rollback transactions --reason "…"     the version before answers everything, in seconds

exit codes: 0 done, 2 wrong argument or not allowed, 3 aborted (run), 4 something did not answer, 5 somebody else acted, or nothing to do"""

Verb = Callable[[Room, argparse.Namespace], int]
_ABORTED = 3


def main(argv: list[str]) -> int:
    """Run a verb other than `start`. Returns its exit code; raises ServingError."""
    arguments = parser().parse_args(argv)
    return int(arguments.run(room_of(arguments), arguments))


def parser() -> argparse.ArgumentParser:
    """The parser of every verb but `start`."""
    found = argparse.ArgumentParser(
        prog="millrace rollout", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_verbs(found.add_subparsers(required=True, metavar="VERB"))
    return found


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Every verb but `start`."""
    table: dict[str, tuple[Verb, str]] = {
        "status": (_status, "where a rollout stands, on what grounds, and what comes next"),
        "advance": (_advance, "judge once and do what follows: what a CronJob calls"),
        "run": (_run, "advance until the version is promoted or aborted"),
        "approve": (_approve, "agree to the promotion"),
        "promote": (_promote, "give the canary everything now, whatever steps are left"),
        "abort": (_abort, "give stable everything again and unload the canary"),
        "rollback": (_rollback, "give everything back to the version before"),
        "finish": (_finish, "let the old version go before its warm time is over"),
        "history": (_history, "the rollouts of a model, the newest first"),
    }
    for name, (verb, text) in table.items():
        each = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        each.add_argument("model", metavar="MODEL")
        each.set_defaults(run=verb)
        add_place(each)
        if name in {"approve", "promote", "abort", "rollback"}:
            each.add_argument("--reason", default="", required=name == "promote", help="why; it goes into the audit log")
        if name in {"status", "history"}:
            each.add_argument("--json", action="store_true", help="print JSON")
        if name == "status":
            each.add_argument("--watch", action="store_true", help="draw it anew until the rollout is over")


def add_place(of: argparse.ArgumentParser) -> None:
    """Options that say where a model is served, and who acts."""
    of.add_argument("--workspace", metavar="DIR", help="default: MILLRACE_WORKSPACE, else .millrace")
    of.add_argument("--release", metavar="NAME", help="on a cluster: the helm release that serves the model (MILLRACE_RELEASE)")
    of.add_argument("--namespace", metavar="NS", help="of the release (MILLRACE_NAMESPACE, else default)")
    of.add_argument(
        "--chart", metavar="CHART", help="folder or oci:// (MILLRACE_CHART, else the chart that is installed, as helm keeps it)"
    )
    of.add_argument("--prometheus", metavar="URL", help="who scrapes the gateways (MILLRACE_PROMETHEUS)")
    of.add_argument("--as", dest="who", default=None, metavar="NAME", help="who acts (default: MILLRACE_USER, else your account)")


def room_of(arguments: argparse.Namespace) -> Room:
    """The room that the options name."""
    workspace, who = workspace_folder(arguments.workspace), arguments.who or whoever()
    release = arguments.release or os.environ.get("MILLRACE_RELEASE")
    if not release:
        return local_room(workspace, who)
    prometheus = arguments.prometheus or os.environ.get("MILLRACE_PROMETHEUS")
    if not prometheus:
        raise ConfigError(
            "On a cluster requests are counted by Prometheus. Name it: --prometheus http://HOST:9090, or MILLRACE_PROMETHEUS."
        )
    place = Cluster(
        release=release,
        namespace=arguments.namespace or os.environ.get("MILLRACE_NAMESPACE", "default"),
        chart=arguments.chart or os.environ.get("MILLRACE_CHART", ""),
        prometheus=prometheus,
    )
    return cluster_room(workspace, who, place)


def _status(room: Room, arguments: argparse.Namespace) -> int:
    desired = room.driver.read(arguments.model)
    if arguments.json:
        print(desired.model_dump_json(indent=2))
        return 0
    if not arguments.watch:
        screen.show(desired, screen.seen_now(room, desired), time.time())
        return 0
    with screen.live() as draw:
        while True:
            desired = room.driver.read(arguments.model)
            draw(desired, screen.seen_now(room, desired), time.time())
            if desired.rollout is None or not desired.rollout.open:
                return 0
            time.sleep(1)


def _advance(room: Room, arguments: argparse.Namespace) -> int:
    _, done = actions.advance(room, arguments.model)
    print(done)
    return 0


def _run(room: Room, arguments: argparse.Namespace) -> int:
    said = ""
    while True:
        try:
            desired, done = actions.advance(room, arguments.model)
        except Conflict as error:  # somebody else acts too: look again
            if str(error) != said:
                said = str(error)
                print(said, flush=True)
            time.sleep(1)
            continue
        line = f"{_where(desired)}: {done}"
        if line != said:
            print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
            said = line
        code = _end_of(desired)
        if code is not None:
            return code
        time.sleep(_pause(desired))


def _where(desired: Desired) -> str:
    rollout = desired.rollout
    assert rollout is not None
    return f"{rollout.phase.value.replace('_', ' ')} {rollout.weight:g} %"


def _pause(desired: Desired) -> float:
    assert desired.rollout is not None
    return 0.0 if desired.rollout.step_started is None else desired.rollout.plan.every_seconds


def _end_of(desired: Desired) -> int | None:
    """The exit code, once there is nothing to judge any more."""
    rollout = desired.rollout
    assert rollout is not None
    match rollout.phase:
        case Phase.PROMOTING:
            print(
                f"Version {rollout.to_version} answers everything. Version {rollout.from_version} stays warm until {screen.moment(rollout.warm_until)}: `millrace rollout rollback {rollout.model}` takes seconds."
            )
            return 0
        case Phase.DONE:
            return 0
        case Phase.ABORTED | Phase.ROLLED_BACK:
            print(f"{rollout.phase.value.replace('_', ' ').capitalize()}: {rollout.ended_because}. See docs/runbooks/RolloutAborted.md")
            return _ABORTED
        case _:
            return None


def _approve(room: Room, arguments: argparse.Namespace) -> int:
    desired = actions.approve(room, arguments.model, arguments.reason)
    assert desired.rollout is not None
    print(
        f"{room.who} approved version {desired.rollout.to_version} of {arguments.model}. The next judgement promotes it: millrace rollout run {arguments.model}"
    )
    return 0


def _promote(room: Room, arguments: argparse.Namespace) -> int:
    desired = actions.promote(room, arguments.model, arguments.reason)
    print(f"Version {desired.answering.version} of {arguments.model} answers everything.")
    return 0


def _abort(room: Room, arguments: argparse.Namespace) -> int:
    desired = actions.abort(room, arguments.model, arguments.reason)
    print(f"Version {desired.answering.version} of {arguments.model} answers everything again.")
    return 0


def _rollback(room: Room, arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    desired = actions.rollback(room, arguments.model, arguments.reason)
    print(
        f"Version {desired.answering.version} of {arguments.model} answers everything again, {time.monotonic() - began:.1f} s after the command."
    )
    return 0


def _finish(room: Room, arguments: argparse.Namespace) -> int:
    desired = actions.finish(room, arguments.model)
    print(f"Version {desired.stable.version} of {arguments.model} is stable, and nothing else is loaded.")
    return 0


def _history(room: Room, arguments: argparse.Namespace) -> int:
    found = history(room.driver.read(arguments.model))
    if arguments.json:
        print(json.dumps([past.model_dump(mode="json") for past in found], indent=2))
    else:
        screen.show_history(arguments.model, found)
    return 0
