"""`millrace freeze` and `millrace thaw`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from mlpipelines.commands import options, screen
from mlpipelines.commands.why import moment
from mlpipelines.errors import ConfigError
from mlpipelines.moments import moments

_FREEZE = """  millrace freeze transactions --because "month end: no new version before the 3rd"
  millrace freeze transactions --because "labels are being checked" --until 2026-12-03T06:00"""
_THAW = """  millrace thaw transactions"""


def freeze(argv: Sequence[str]) -> int:
    """Start no training of a model from now on."""
    parser = options.make_parser(
        "freeze",
        "Start no training of a model for now, whatever is alerted, scheduled or asked for. A run that goes on is not ended.",
        _FREEZE,
    )
    parser.add_argument("model", metavar="MODEL", help="its name in the registry")
    parser.add_argument("--because", required=True, metavar="TEXT", help="why; every decision in the meantime says it")
    parser.add_argument("--until", default="", metavar="TIME", help="it lifts by itself then (ISO 8601; default: until `millrace thaw`)")
    arguments = _parsed(parser, argv)
    from mlpipelines.triggers.decide import Freeze
    from mlserving.rollout.wiring import whoever

    _, end = moments("", arguments.until)
    until, now, by = end.timestamp() if end else None, time.time(), whoever()
    if until is not None and until <= now:
        raise ConfigError(f"--until {arguments.until} is over already. Name a time to come, or leave it out.")
    ledger = _ledger(arguments)
    _audit(arguments, by, "freeze", arguments.because, until=moment(until) if until is not None else "")
    ledger.freeze(arguments.model, Freeze(by=by, why=arguments.because, until=until), now)
    lasting = f"until {moment(until)}" if until is not None else f"until: millrace thaw {arguments.model}"
    told = (
        ""
        if ledger.decisions(arguments.model, 1)
        else " Nothing was ever decided on a model of this name; is it spelt right? millrace models"
    )
    return _say(
        arguments,
        {"model": arguments.model, "frozen": True, "by": by, "why": arguments.because, "until": until},
        f"Frozen {lasting}.{told}",
    )


def thaw(argv: Sequence[str]) -> int:
    """Let a model be trained again."""
    parser = options.make_parser("thaw", "Lift the freeze of a model: it may be trained again.", _THAW)
    parser.add_argument("model", metavar="MODEL", help="its name in the registry")
    arguments = _parsed(parser, argv)
    from mlserving.rollout.wiring import whoever

    ledger, by, now = _ledger(arguments), whoever(), time.time()
    if held := ledger.frozen(arguments.model, now):
        _audit(arguments, by, "thaw", "", frozen_by=held.by, frozen_because=held.why)
    lifted = ledger.thaw(arguments.model, by, now)
    return _say(arguments, {"model": arguments.model, "frozen": False, "lifted": lifted}, "Lifted." if lifted else "It was not frozen.")


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    options.add_workspace(parser)
    options.add_json(parser)
    return parser.parse_args(argv)


def _ledger(arguments: argparse.Namespace) -> Any:
    from mlpipelines.triggers.ledger import Ledger
    from mlserving.database import address, open_database

    return Ledger(open_database(address(options.workspace_of(arguments).root)))


def _audit(arguments: argparse.Namespace, by: str, action: str, why: str, **details: str) -> None:
    """Into the audit log, before it is done: a deed without an entry would be one that nobody answers for."""
    from mlserving.rollout.wiring import audit_log

    audit_log(options.workspace_of(arguments).root).append(by, action, arguments.model, why, **details)


def _say(arguments: argparse.Namespace, facts: dict[str, Any], sentence: str) -> int:
    if arguments.json:
        screen.print_json(facts)
    else:
        screen.console().print(sentence, soft_wrap=True, markup=False)
    return 0
