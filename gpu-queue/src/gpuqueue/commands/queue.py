"""`gpuq queue [NAME]`: who holds which GPUs, and who waits for them."""

from __future__ import annotations

import argparse
from typing import Any

from gpuqueue.cluster.api import Api
from gpuqueue.cluster.reports import LaneReport, QueueReport, Waiter, queue_report
from gpuqueue.commands import reading
from gpuqueue.commands.screen import print_json, print_table, say
from gpuqueue.durations import words_of
from gpuqueue.errors import ConfigError
from gpuqueue.words import listed


def add_parser(subparsers: Any) -> None:
    """`queue`."""
    parser = subparsers.add_parser("queue", help="all queues, or one with its lines")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--json", action="store_true")
    reading.add_options(parser)
    parser.set_defaults(question=queue)


async def queue(api: Api, options: argparse.Namespace) -> int:
    """Answer."""
    seen = await reading.look(api, options)
    board = seen.board()
    if options.name and options.name not in board.queues:
        raise ConfigError(f"no queue {options.name}. There are: {', '.join(sorted(board.queues)) or 'none'}")
    reports = [queue_report(board, name) for name in ([options.name] if options.name else sorted(board.queues))]
    if options.json:
        print_json(reports[0] if options.name else reports)
    elif options.name:
        _show_one(reports[0])
    else:
        _show_all(reports)
    if options.json:
        return 0
    for complaint in [*seen.view.twice.values(), *(complaint for report in reports for complaint in report.complaints)]:
        say(f"To mend: {complaint}")
    if seen.hidden:
        say(f"You may not list pods in {listed(sorted(seen.hidden))}; their lines are not shown.")
    return 0


def _show_all(reports: list[QueueReport]) -> None:
    print_table(
        ["Queue", "Lane", "#In use", "#Quota", "#Free", "#Waiting", "#GPUs wanted", "#First has waited", "#GPU hours"],
        [
            (
                report.name if number == 0 else "",
                lane.name,
                lane.granted,
                lane.quota,
                lane.free,
                len(lane.line),
                sum(waiter.gpus for waiter in lane.line),
                words_of(lane.line[0].seconds) if lane.line else "",
                _spent(report) if number == 0 else "",
            )
            for report in reports
            for number, lane in enumerate(report.lanes)
        ],
    )


def _show_one(report: QueueReport) -> None:
    say(f"{report.name}: {report.order} order; namespaces {', '.join(report.namespaces) or 'none (a pool)'}; {_spent(report)} GPU hours")
    for lane in report.lanes:
        _show_lane(lane)
    if report.passed_by:
        say("\nCannot start as they are")
        print_table(["Who", "Namespace", "#GPUs", "Why"], [(w.name, w.namespace, w.gpus, w.message) for w in report.passed_by])


def _show_lane(lane: LaneReport) -> None:
    change = f"; quota {lane.next_quota} from {lane.next_change[:16]} UTC" if lane.next_change else ""
    say(f"\nLane {lane.name}: {lane.granted} of {lane.quota} GPUs in use{change}")
    if lane.holders:
        rows = [
            (
                h.name,
                h.namespace,
                h.gpus,
                words_of(h.seconds),
                h.runs_out[:16],
                "foreign" if h.foreign else h.owner and f"lent to {h.owner}",
            )
            for h in lane.holders
        ]
        print_table(["Holds", "Namespace", "#GPUs", "#For", "Limit ends", ""], rows)
    if lane.line:
        print_table(
            ["#Place", "Waits", "Namespace", "#GPUs", "#For", "Likely", "9 in 10 by", "Why"], [_row(waiter) for waiter in lane.line]
        )
    if not lane.line:
        say("Nobody waits.")


def _row(waiter: Waiter) -> tuple[object, ...]:
    reason = waiter.reason
    return (
        waiter.place,
        waiter.name,
        waiter.namespace,
        waiter.gpus,
        words_of(waiter.seconds),
        waiter.likely[11:16],
        waiter.surely[11:16],
        reason,
    )


def _spent(report: QueueReport) -> str:
    return f"{report.spent_hours:,.1f}" + (f" of {report.budget.hours:,.0f}" if report.budget else "")
