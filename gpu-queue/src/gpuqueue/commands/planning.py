"""`gpuq what-if` and `gpuq plan`: what happened, replayed under another quota or order, as a table and a picture.

Both replay with the very `decide` that runs in production (`simulate`). The last days come from the queue's own history, which the wiring
passes in as `load`, or from a file (`trace_files`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from gpuqueue.commands import reading
from gpuqueue.commands.drawing import draw, quotas_panel, used
from gpuqueue.durations import seconds_of, words_of
from gpuqueue.errors import ConfigError
from gpuqueue.history import Past
from gpuqueue.planning import Change, Outlook, Place, Recorded, changed, outlook, recorded, sweep
from gpuqueue.queue import Order
from gpuqueue.replayed import Waits, waits_of
from gpuqueue.simulate import Policy
from gpuqueue.trace_files import read_trace

Load = Callable[[argparse.Namespace], tuple[Sequence[Past], Sequence[Policy]]]
"""The history of the cluster, and its queues as they are now."""
_BARS = "▁▂▃▄▅▆▇█"
_WIDE = 60


def add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], load: Load | None = None) -> None:
    """Register both commands; each parsed result carries its function as `run`.

    Args:
        subparsers: of `gpuq`.
        load: reads the cluster's history; without it both need a file.
    """
    what = subparsers.add_parser("what-if", help="replay the last days with another quota, order or pool")
    what.add_argument("--quota", action="append", default=[], metavar="TEAM/LANE=GPUS", help="another quota; may be given several times")
    what.add_argument("--order", action="append", default=[], metavar="[TEAM=]ORDER", help="strict or easy, of one team or of all")
    what.add_argument("--pool", action="append", default=[], metavar="TEAM=POOL:GPUS", help="let a team borrow so much from a pool")
    what.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw waits and GPUs in use")
    what.set_defaults(run=partial(what_if, load=load))
    plans = subparsers.add_parser("plan", help="find the quota with which people wait no longer than they should")
    plans.add_argument("--lane", required=True, metavar="TEAM/LANE")
    plans.add_argument("--wait-p95", required=True, metavar="DURATION", help="what nineteen in twenty should wait at most, such as 30m")
    plans.add_argument("--order", action="append", default=[], metavar="[TEAM=]ORDER", help="strict or easy, of one team or of all")
    plans.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="also draw waits by quota, and waits and GPUs in use under the one found"
    )
    plans.set_defaults(run=partial(plan, load=load))
    for parser in (what, plans):
        parser.add_argument("--trace", type=Path, metavar="FILE", help="jobs of a file (.csv, or lines of a history), not of the cluster")
        parser.add_argument("--days", type=float, default=30.0, help="how many of the last days (30)")
        parser.add_argument("--json", action="store_true", help="for machines")
        reading.add_options(parser)


def what_if(arguments: argparse.Namespace, load: Load | None = None) -> int:
    """Replay as it was and with the changes; 0, or 2 if an argument or a file is wrong."""
    again = "gpuq what-if --help"
    try:
        history = _history(arguments, load, again)
        change = Change(
            quotas=dict(_quota(text) for text in arguments.quota),
            orders=_orders(arguments.order, history.policies),
            pools=dict(_pool(text) for text in arguments.pool),
        )
        after = changed(history.policies, change)
    except (ConfigError, ValueError) as error:
        return _refuse(error, again)
    ways = {"as it was": outlook(history, history.policies), "what if": outlook(history, after)}
    if arguments.plot:
        try:
            draw(arguments.plot, ways, history.window)
        except OSError as error:
            return _refuse(ConfigError(f"{arguments.plot} cannot be written: {error}"), again)
    if arguments.json:
        _print_json({"window": history.window, **{way: _as_json(found) for way, found in ways.items()}})
    else:
        _show(history, ways, arguments.plot)
    return 0


def plan(arguments: argparse.Namespace, load: Load | None = None) -> int:
    """Find the smallest quota that meets the target, and replay with it; 0, 3 if none does, or 2 if an argument or a file is wrong."""
    again = "gpuq plan --help"
    try:
        history = _history(arguments, load, again)
        place, target = _place(arguments.lane), seconds_of(arguments.wait_p95)
        orders = _orders(arguments.order, history.policies)
        ordered = replace(history, policies=changed(history.policies, Change(orders=orders)))
        lanes = sorted({(past.queue, past.lane) for past in history.counted})
        if place not in lanes:
            raise ConfigError(f"no job of this time asked for {arguments.lane}; there are {', '.join('/'.join(lane) for lane in lanes)}")
    except (ConfigError, ValueError) as error:
        return _refuse(error, again)
    found = sweep(ordered, place, target)
    smallest = next((quota for quota, waits in found.items() if waits.p95 <= target), None)
    ways = {"as it was": outlook(history, history.policies)}
    if smallest is not None:
        ways["planned"] = outlook(history, changed(ordered.policies, Change(quotas={place: smallest})))
    if arguments.plot:
        try:
            draw(arguments.plot, ways, history.window, [quotas_panel(arguments.lane, found, target)])
        except OSError as error:
            return _refuse(ConfigError(f"{arguments.plot} cannot be written: {error}"), again)
    if arguments.json:
        rows = [{"quota": quota, **asdict(waits)} for quota, waits in found.items()]
        by_way = {way: _as_json(result) for way, result in ways.items()}
        _print_json({"lane": arguments.lane, "target": target, "smallest": smallest, "quotas": rows, **by_way})
    else:
        _show_plan(arguments, history, found, target)
        _show(history, ways, arguments.plot)
    return 0 if smallest is not None else 3


def _show_plan(arguments: argparse.Namespace, history: Recorded, found: Mapping[int, Waits], target: float) -> None:
    _print_table(
        f"{arguments.lane}, {_words(history.window)}: waits by quota",
        [{"quota": quota, **_cells(waits), "p95 within": waits.p95 <= target} for quota, waits in found.items()],
    )
    smallest = next((quota for quota, waits in found.items() if waits.p95 <= target), None)
    if smallest is None:
        print(f"No quota lets nineteen in twenty start within {arguments.wait_p95}: look at the lane's windows.\n")
    else:
        print(f"With {smallest} GPUs nineteen in twenty start within {arguments.wait_p95}.\n")


def _history(arguments: argparse.Namespace, load: Load | None, again: str) -> Recorded:
    if not arguments.days > 0:
        raise ConfigError(f"--days {arguments.days:g}: it must be above zero")
    if arguments.trace is not None:
        return recorded(read_trace(arguments.trace, again), days=arguments.days)
    if load is None:
        raise ConfigError("there is no cluster to ask: name a file with --trace")
    pasts, policies = load(arguments)
    if not pasts:
        raise ConfigError("the cluster's history is empty: name a file with --trace")
    return recorded(pasts, policies, days=arguments.days)


def _place(text: str) -> Place:
    queue, slash, lane = text.partition("/")
    if not (queue and slash and lane):
        raise ConfigError(f"{text!r} is no lane; write TEAM/LANE, such as fraud/l4")
    return queue, lane


def _quota(text: str) -> tuple[Place, int]:
    place, _, gpus = text.partition("=")
    return _place(place), _gpus(gpus, text)


def _pool(text: str) -> tuple[str, tuple[str, int]]:
    queue, _, rest = text.partition("=")
    pool, _, gpus = rest.partition(":")
    if not (queue and pool):
        raise ConfigError(f"{text!r} is no pool; write TEAM=POOL:GPUS, such as fraud=shared:4")
    return queue, (pool, _gpus(gpus, text))


def _gpus(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{whole!r} does not end with a number of GPUs; write such as fraud/l4=16 or fraud=shared:4")
    return int(text)


def _orders(texts: Iterable[str], policies: Iterable[Policy]) -> dict[str, Order]:
    found: dict[str, Order] = {}
    for text in texts:
        queue, _, order = text.rpartition("=")
        if order not in ("strict", "easy"):
            raise ConfigError(f"{text!r} is no order; write strict or easy, or of one team such as fraud=easy")
        found.update(dict.fromkeys([queue] if queue else [policy.queue.name for policy in policies], cast("Order", order)))
    return found


def _refuse(error: Exception, again: str) -> int:
    text = str(error) if again in str(error) else f"{error}. Look at: {again}"
    print(text, file=sys.stderr)
    return ConfigError.exit_code


def _show(history: Recorded, ways: Mapping[str, Outlook], plot: Path | None) -> None:
    teams = sorted({past.queue for past in history.counted})
    rows = []
    for team in teams:
        told = waits_of(past.wait for past in history.counted if past.queue == team)
        rows.append({"team": team, "way": "recorded", **_cells(told), "never": ""})
        rows += [{"team": team, "way": way, **_cells(waits_of(o.waits.get(team, ()))), "never": o.never[team]} for way, o in ways.items()]
    _print_table(f"Waits, {_words(history.window)}", rows)
    _print_table("GPUs", [row for way, found in ways.items() for row in _use_rows(way, found)])
    _print_lines(history, ways)
    if plot:
        print(f"Drawn in {plot}")


def _use_rows(way: str, found: Outlook) -> list[dict[str, object]]:
    return [
        {
            "team/lane": f"{queue}/{lane}",
            "way": way,
            "quota": next(policy.largest(lane) for policy in found.policies if policy.queue.name == queue),
            "GPU-hours": f"{use.held / 3600:,.1f}",
            "in use": f"{use.share:.0%}",
        }
        for (queue, lane), use in found.use.items()
    ]


def _print_lines(history: Recorded, ways: Mapping[str, Outlook]) -> None:
    series = {way: used(found, history.window, _WIDE) for way, found in ways.items()}
    top = max([1.0, *(value for values in series.values() for value in values)])
    print(f"GPUs in use over time, {top:.0f} at most")
    for way, values in series.items():
        print(f"  {way:<10} {''.join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)}")


def _as_json(found: Outlook) -> dict[str, Any]:
    return {
        "waits": {team: {**asdict(waits), "never": found.never[team]} for team, all_ in found.waits.items() if (waits := waits_of(all_))},
        "never": dict(found.never),
        "use": [
            {"queue": queue, "lane": lane, "gpu_hours": use.held / 3600, "share": use.share} for (queue, lane), use in found.use.items()
        ],
    }


def _cells(waits: Waits | None) -> dict[str, object]:
    if waits is None:
        return {"jobs": 0, "mean": "", "p50": "", "p95": "", "longest": ""}
    return {"jobs": waits.jobs, **{name: words_of(getattr(waits, name)) for name in ("mean", "p50", "p95", "longest")}}


def _words(window: tuple[float, float]) -> str:
    return f"{(window[1] - window[0]) / 86400:.1f} days"


def _print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(name, justify="left" if name in ("team", "team/lane", "way") else "right")
    for row in rows:
        table.add_row(*(("yes" if value else "no") if isinstance(value, bool) else str(value) for value in row.values()))
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
