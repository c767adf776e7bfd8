"""`millrace audit`: read the log, check it, hand it over."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from mlserving import database
from mlserving.audit.chain import Anchor, Entry, verify
from mlserving.audit.database import AuditLog
from mlserving.errors import ServingError
from mlserving.workspace import workspace_folder

_DESCRIPTION = """\
Who did what to which model, when and why.

Entries are chained by SHA-256, so none can be changed, moved or taken out unseen; `verify` names the first that is wrong. That the end was cut off shows by
anchors: the file beside the database, and those that you kept (`--anchor`)."""
_EPILOG = """\
examples:
  millrace audit list transactions            what was done to one model, the newest last
  millrace audit verify                       is the log whole? prints the anchor to keep
  millrace audit verify --anchor 17:3fa9…     and does it still hold what you remember?
  millrace audit export > audit.jsonl         every entry with its hashes, one a line

exit codes: 0 whole, 1 broken, 2 wrong argument, 4 the database does not answer"""


class Broken(ServingError):
    """The log is not what was written."""

    exit_code = 1


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    log = open_log(arguments.workspace)
    return int(arguments.run(log, arguments))


def open_log(workspace: str | Path | None) -> AuditLog:
    """The log of a workspace, or of the database that MILLRACE_DATABASE names."""
    place = workspace_folder(workspace)
    return AuditLog(database.address(place), place / "serving" / "audit.anchors")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace audit", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="entries as a table")
    listing.add_argument("subject", nargs="?", metavar="MODEL", help="only this model's")
    listing.add_argument("--last", type=int, default=50, metavar="N", help="at most so many (default 50)")
    listing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    listing.set_defaults(run=_list)
    checking = verbs.add_parser("verify", help="follow the chain from its beginning")
    checking.add_argument("--anchor", action="append", default=[], metavar="SEQUENCE:HASH", help="an entry as you remember it (repeatable)")
    checking.set_defaults(run=_verify)
    exporting = verbs.add_parser("export", help="every entry, one JSON object a line")
    exporting.set_defaults(run=_export)
    for each in (listing, checking, exporting):
        each.add_argument(
            "--workspace", metavar="DIR", help="default: MILLRACE_WORKSPACE, else .millrace; MILLRACE_DATABASE names a database"
        )
    return parser


def _list(log: AuditLog, arguments: argparse.Namespace) -> int:
    entries = list(log.entries(arguments.subject, arguments.last))
    if arguments.json:
        print(json.dumps([as_json(entry) for entry in entries], indent=2))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "when (UTC)", "who", "what", "subject", "why"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        fact = entry.fact
        table.add_row(str(entry.sequence), fact.time[:19].replace("T", " "), fact.who, fact.action, fact.subject, fact.why)
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table if entries else "Nothing has been logged yet.")
    return 0


def _verify(log: AuditLog, arguments: argparse.Namespace) -> int:
    found = verify(log.entries(), [*log.anchors(), *map(Anchor.parse, arguments.anchor)])
    if found.broken:
        raise Broken(
            f"{found.broken}. {found.entries:,} entries before it are whole. Keep the database as it is, compare it with a backup, "
            "and ask who could write to it."
        )
    print(f"{found.entries:,} entries, whole. Anchor to keep elsewhere: {found.head or 'none yet'}")
    return 0


def _export(log: AuditLog, _: argparse.Namespace) -> int:
    write_lines(log.entries(), sys.stdout)
    return 0


def write_lines(entries: Iterable[Entry], out: TextIO) -> None:
    """One JSON object a line, with everything that a check of its own needs."""
    out.writelines(_lines(entries))


def _lines(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        yield json.dumps(as_json(entry), sort_keys=True, ensure_ascii=False) + "\n"


def as_json(entry: Entry) -> dict[str, Any]:
    """An entry for machines."""
    fact = entry.fact
    told = {"time": fact.time, "who": fact.who, "action": fact.action, "subject": fact.subject, "why": fact.why, "details": fact.details}
    return {"sequence": entry.sequence, **told, "previous": entry.previous, "hash": entry.hash}
