"""`millrace why`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from mlpipelines.commands import options, screen

_EXAMPLES = """  millrace why transactions                 why it was, or was not, trained again of late
  millrace why transactions --last 100 --json"""


def main(argv: Sequence[str]) -> int:
    """Tell the last decisions on a model, and what became of them."""
    parser = options.make_parser(
        "why",
        "Why a model was trained again, or was not: the last decisions with their reasons, the runs that came of them, the rollouts of what they brought, and a freeze.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="its name in the registry")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many decisions, runs and rollouts (default 20)")
    options.add_workspace(parser)
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    from mlpipelines.triggers.ledger import Ledger
    from mlpipelines.triggers.rollouts import Rollouts
    from mlserving.database import address, open_database

    database = open_database(address(options.workspace_of(arguments).root))
    ledger, rollouts = Ledger(database), Rollouts(database).last(arguments.model, arguments.last)
    decisions, runs = ledger.decisions(arguments.model, arguments.last), ledger.runs(arguments.model, arguments.last)
    freeze = ledger.frozen(arguments.model, time.time())
    if arguments.json:
        told = {"frozen": asdict(freeze) if freeze else None, "decisions": [*map(asdict, decisions)], "runs": [*map(asdict, runs)]}
        told["rollouts"] = [*map(asdict, rollouts)]
        screen.print_json({"model": arguments.model, **told})
        return 0
    out = screen.console()
    if freeze is not None:
        lasting = f"until {moment(freeze.until)}" if freeze.until is not None else f"until somebody types: millrace thaw {arguments.model}"
        out.print(f"Frozen by {freeze.by}, {lasting}: {freeze.why}", markup=False)
    screen.print_table(
        f"Decisions on {arguments.model}",
        [{"when": moment(each.at), "signal": each.signal, "decision": str(each.reason), "why": each.text} for each in decisions],
        empty="none yet. An alert with its label `model`, a schedule or `millrace trigger fire` brings the first.",
    )
    if runs:
        screen.print_table("Runs", [_row(run) for run in runs])
    if rollouts:
        screen.print_table("Rollouts", [_rollout_row(each) for each in rollouts])
    return 0


def moment(at: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _row(run: Any) -> dict[str, Any]:
    return {
        "run": run.name,
        "decided": moment(run.decided_at),
        "state": run.outcome or run.state,
        "GPU hours": round(run.gpu_seconds / 3600, 2) if run.gpu_seconds else "",
        "trouble": run.trouble,
        "where": run.address,
    }


def _rollout_row(rollout: Any) -> dict[str, Any]:
    return {
        "of run": rollout.run,
        "version": rollout.version or "",
        "state": (rollout.phase or rollout.state).replace("_", " "),
        "why": rollout.text,
    }
