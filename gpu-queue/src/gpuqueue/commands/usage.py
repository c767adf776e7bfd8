"""`gpuq usage`: GPU hours by team: held, and where Prometheus is at hand how many of them were used, and what that cost."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from gpuqueue.accounts import Account, bill
from gpuqueue.cluster.api import Api
from gpuqueue.commands import reading
from gpuqueue.commands.reading import Seen
from gpuqueue.commands.screen import print_json, print_table, say
from gpuqueue.durations import seconds_of
from gpuqueue.errors import ConfigError
from gpuqueue.prometheus import Prometheus, Source
from gpuqueue.usage import LaneKey

_HOUR = 3600.0


def add_parser(subparsers: Any) -> None:
    """`usage`."""
    parser = subparsers.add_parser("usage", help="GPU hours by team: held, used, and what they cost")
    parser.add_argument("name", nargs="?", help="of one queue")
    parser.add_argument("--since", default="720h", help="how far back, such as 24h (default: %(default)s)")
    parser.add_argument("--prometheus", metavar="URL", help="where the controller's metrics are; without it, only what was held is known")
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="LANE=MONEY",
        help="of a GPU for an hour, for several lanes (default: what the controller's settings say)",
    )
    parser.add_argument("--json", action="store_true")
    reading.add_options(parser)
    parser.set_defaults(question=usage)


async def usage(api: Api, options: argparse.Namespace) -> int:
    """Answer."""
    try:
        period = seconds_of(options.since)
    except ValueError as error:
        raise ConfigError(f"--since: {error}") from error
    said = _prices(options.price)
    now = time.time()
    if options.prometheus:
        settings = await reading.settings_of(api, options)
        async with aiohttp.ClientSession() as session:
            accounts: Mapping[LaneKey, Account] = await Prometheus(session, Source(url=options.prometheus)).accounts(period, now)
    else:
        seen = await reading.look(api, options)
        settings, accounts = seen.settings, held(seen, now - period, now)
    prices = said or settings.prices
    chosen = {key: account for key, account in accounts.items() if options.name in (None, key[0])}
    bills = bill(chosen, prices)
    if options.json:
        print_json({name: _figures(each.account) | {"cost": each.cost, "idleCost": each.idle_cost} for name, each in bills.items()})
        return 0
    known = bool(options.prometheus)
    columns = [
        "Queue",
        "#GPU hours held",
        *(["#used", "#idle", "#unknown"] if known else []),
        *(["#cost", "#of it idle"] if prices else []),
    ]
    rows = []
    for name, each in bills.items():
        hours = _figures(each.account)
        used = [f"{hours[column]:,.1f}" for column in ("used", "idle", "unknown")] if known else []
        cost = [f"{each.cost:,.2f}", f"{each.idle_cost:,.2f}"] if prices else []
        rows.append((name, f"{hours['held']:,.1f}", *used, *cost))
    print_table(columns, rows)
    if not known:
        say("Whether they were used is not known here. With the controller's metrics: gpuq usage --prometheus http://localhost:9090")
    if any(each.unpriced for each in bills.values()) and prices:
        say("Some lanes have no --price; their hours are not in the cost.")
    return 0


def held(seen: Seen, begin: float, now: float) -> dict[LaneKey, Account]:
    """GPU-seconds that were held since `begin`, by queue and lane: of what has ended, and of what runs. All of it of unknown use."""
    totals: dict[LaneKey, float] = {}
    spans = [((past.queue, past.lane), past.gpus, past.at, past.ended) for past in seen.pasts]
    for name, policy in seen.view.policies.items():
        spans += [((grant.owner or name, grant.lane), grant.gpus, grant.at, now) for grant in policy.grants]
    for key, gpus, at, end in spans:
        totals[key] = totals.get(key, 0.0) + gpus * max(0.0, min(end, now) - max(at, begin))
    return {key: Account(held=seconds, unknown=seconds) for key, seconds in totals.items()}


def _figures(account: Account) -> dict[str, float]:
    return {name: round(getattr(account, name) / _HOUR, 3) for name in ("held", "used", "idle", "unknown")}


def _prices(said: list[str]) -> dict[str, float]:
    prices = {}
    for each in said:
        lane, _, money = each.partition("=")
        try:
            prices[lane] = float(money)
        except ValueError as error:
            raise ConfigError(f"--price {each}: write LANE=MONEY, such as l4=0.71") from error
    return prices
