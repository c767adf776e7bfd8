"""Bookings of a company that never was, a few of them odd, for the demo, the tests and the figures.

Story: `project.yaml` names `generator:rows` as its source; `ingest` calls it and gets Arrow record batches, as from any other source. Teams buy at
the trades that they need, at hours when those are open, for amounts that are usual there. Then some rows are made odd, each in one
way (`ODDITIES`), and say so in two columns that no model may read: `odd`, which the verdict is counted by, and `oddity`, which tells which way.
The same seed gives the same rows, whatever part of the period is asked for.

By hand: `python generator.py --rows 40000 --out bookings.parquet`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Texts = NDArray[np.object_]

SCHEMA = pa.schema(
    [
        ("booking_id", pa.string()),
        ("booked_at", pa.timestamp("s", tz="UTC")),
        ("merchant", pa.string()),
        ("amount", pa.float64()),
        ("team", pa.string()),
        ("odd", pa.int8()),
        ("oddity", pa.string()),
    ]
)
ODDITIES = ("amount", "hour", "team", "merchant")
"""Ways to be odd: far more than is usual there; at night; a team that never buys such things; a name like no other."""
MERCHANTS_PER_TRADE = 30
DAY = 86_400
_SYLLABLES = "al bar cor dal el fen gra hol kel lun mar nor pel quin ros sal tor ver wel yar den ton ley wick ford mont ster vale".split()  # noqa: SIM905 – a line of syllables reads better
_CONSONANTS = np.array(list("bcdfghjklmnpqrstvwxz0123456789"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One kind of shop."""

    words: tuple[str, ...]
    """What such shops call themselves."""
    median: float
    spread: float
    """Of the logarithm of the amount."""
    opens: float
    closes: float
    """Hours of the day, between which nearly all is bought."""
    weekend: float
    """Weight of a Saturday or Sunday against a working day."""


def _trade(words: str, median: float, spread: float, hours: tuple[float, float], weekend: float) -> Trade:
    return Trade(words=tuple(words.split()), median=median, spread=spread, opens=hours[0], closes=hours[1], weekend=weekend)


TRADES: tuple[Trade, ...] = (
    _trade("petrol fuel garage", 58, 0.3, (6, 20), 0.5),
    _trade("cafe bistro grill pizza", 21, 0.5, (8, 21), 0.6),
    _trade("hotel inn lodge", 132, 0.35, (7, 22), 0.4),
    _trade("stationery paper office", 34, 0.6, (8, 17), 0.1),
    _trade("timber builders hardware", 86, 0.7, (7, 16), 0.15),
    _trade("rail trains tickets", 47, 0.5, (6, 20), 0.5),
    _trade("cloud software apps", 49, 0.6, (8, 19), 0.3),
    _trade("electrical tools machines", 210, 0.7, (7, 17), 0.1),
    _trade("legal consulting advisers", 420, 0.6, (9, 17), 0.02),
    _trade("courier parcel mail", 12, 0.5, (8, 18), 0.1),
)
TEAMS: tuple[tuple[str, float, tuple[int, ...]], ...] = (
    ("field-service", 0.28, (0, 4, 7, 1)),
    ("sales", 0.22, (2, 5, 1, 0)),
    ("facilities", 0.16, (4, 7, 3)),
    ("engineering", 0.14, (6, 7, 3)),
    ("office", 0.12, (3, 9, 1)),
    ("finance", 0.08, (8, 9, 3, 5)),
)
"""Name, part of all rows, and the trades that the team buys at, most first. It buys nowhere else."""


def rows(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    rows: int = 40_000,
    seed: int = 7,
    days: int = 360,
    start: str = "2025-01-01",
    odd_share: float = 0.01,
) -> Iterator[pa.RecordBatch]:
    """Yield `rows` bookings spread over `days` from `start`, those in [since, until) only; about `odd_share` of them are odd.

    Raises:
        ValueError: a number is out of range.
    """
    if rows < 1 or days < 1 or not 0 <= odd_share <= 1:
        raise ValueError(f"rows and days must be at least 1 and odd_share a share, not {rows}, {days} and {odd_share}")
    rng = np.random.default_rng(seed)
    table = _bookings(rng, rows, days, int(np.datetime64(start, "s").astype(np.int64)), odd_share)
    seconds = table.column("booked_at").cast(pa.int64()).to_numpy()
    low, high = (_seconds(moment, default) for moment, default in ((since, -np.inf), (until, np.inf)))
    inside = table.filter(pa.array((seconds >= low) & (seconds < high)))
    if inside.num_rows:
        yield inside


def _bookings(rng: np.random.Generator, count: int, days: int, start: int, odd_share: float) -> pa.RecordBatch:
    team = rng.choice(len(TEAMS), count, p=np.array([share for _, share, _ in TEAMS]))
    oddity = np.where(rng.random(count) < odd_share, rng.integers(len(ODDITIES), size=count), -1)
    trade = _trades(rng, team, elsewhere=oddity == ODDITIES.index("team"))
    day = _days(rng, trade, days, start)
    merchant = _merchants(rng, trade, day, days)
    seconds = start + day * DAY + _second_of_day(rng, trade, at_night=oddity == ODDITIES.index("hour"))
    names = _names(rng)[trade, merchant]
    names = np.where(oddity == ODDITIES.index("merchant"), _like_no_other(rng, count), names)
    amount = _amounts(rng, trade, merchant, far_more=oddity == ODDITIES.index("amount"))
    order = np.argsort(seconds, kind="stable")
    columns = [
        pa.array([f"B{number:08d}" for number in range(count)]),
        pa.array(seconds[order], pa.timestamp("s")).cast(SCHEMA.field("booked_at").type),
        pa.array(names[order], pa.string()),
        pa.array(amount[order]),
        pa.array(np.array([name for name, _, _ in TEAMS], dtype=object)[team[order]], pa.string()),
        pa.array((oddity[order] >= 0).astype(np.int8)),
        pa.array(np.array([*ODDITIES, "none"], dtype=object)[oddity[order]], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _trades(rng: np.random.Generator, team: Integers, *, elsewhere: NDArray[np.bool_]) -> Integers:
    """Where each row's team buys: one of its own trades, or, `elsewhere`, one of the others."""
    own = np.zeros((len(TEAMS), len(TRADES)))
    for number, (_, _, trades) in enumerate(TEAMS):
        own[number, list(trades)] = 1 / (1 + np.arange(len(trades)))
    others = (own == 0).astype(float)
    weights = np.where(elsewhere[:, None], others[team], own[team])
    chances = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)[:, :-1]
    return np.asarray((rng.random((len(team), 1)) > chances).sum(axis=1))


def _merchants(rng: np.random.Generator, trade: Integers, day: Integers, days: int) -> Integers:
    """A merchant of its trade for each row, few of them often; a quarter of the less frequent ones opens some time within the period."""
    merchant = np.minimum(rng.geometric(0.12, len(trade)) - 1, MERCHANTS_PER_TRADE - 1)
    shape = (len(TRADES), MERCHANTS_PER_TRADE)
    opened = np.where((rng.random(shape) < 0.25) & (np.arange(MERCHANTS_PER_TRADE) >= 5), rng.integers(days, size=shape), 0)
    return np.where(opened[trade, merchant] <= day, merchant, merchant % 5)


def _days(rng: np.random.Generator, trade: Integers, days: int, start: int) -> Integers:
    """A day from 0 on for each row, seldom a Saturday or Sunday where its trade is closed then."""
    weekday = (start // DAY + np.arange(days) + 3) % 7
    weekend = np.array([kind.weekend for kind in TRADES])[trade]
    day = rng.integers(days, size=len(trade))
    # A day that is drawn on a closed weekend is drawn again, a few times over.
    for _ in range(4):
        again = (weekday[day] >= 5) & (rng.random(len(day)) > weekend)
        day = np.where(again, rng.integers(days, size=len(day)), day)
    return day


def _second_of_day(rng: np.random.Generator, trade: Integers, *, at_night: NDArray[np.bool_]) -> Integers:
    opens, closes = (np.array([getattr(kind, edge) for kind in TRADES])[trade] for edge in ("opens", "closes"))
    by_day = opens + (closes - opens) * rng.beta(2.5, 2.5, len(trade))
    hour = np.where(at_night, rng.uniform(0.5, 4.5, len(trade)), by_day)
    return np.asarray((hour * 3600).astype(np.int64))


def _amounts(rng: np.random.Generator, trade: Integers, merchant: Integers, *, far_more: NDArray[np.bool_]) -> Floats:
    level = np.log([kind.median for kind in TRADES])[trade] + rng.normal(0, 0.25, (len(TRADES), MERCHANTS_PER_TRADE))[trade, merchant]
    spread = np.array([kind.spread for kind in TRADES])[trade]
    amount = np.exp(level + spread * rng.normal(size=len(trade)))
    amount *= np.where(far_more, rng.uniform(12, 60, len(trade)), 1)
    refund = (rng.random(len(trade)) < 0.02) & ~far_more
    return np.asarray(np.round(np.where(refund, -amount, amount), 2))


def _names(rng: np.random.Generator) -> Texts:
    """[trades, merchants] what each calls itself."""
    return np.array(
        [
            [f"{rng.choice(_SYLLABLES)}{rng.choice(_SYLLABLES)} {rng.choice(kind.words)}".upper() for _ in range(MERCHANTS_PER_TRADE)]
            for kind in TRADES
        ],
        dtype=object,
    )


def _like_no_other(rng: np.random.Generator, count: int) -> Texts:
    letters = _CONSONANTS[rng.integers(len(_CONSONANTS), size=(count, 12))]
    return np.array(["".join(row[:5]) + " " + "".join(row[5:]) for row in letters], dtype=object)


def _seconds(moment: datetime | None, default: float) -> float:
    return default if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def main() -> None:
    """Write generated bookings to a Parquet file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with pq.ParquetWriter(given.out, SCHEMA, compression="zstd") as writer:
        for batch in rows(rows=given.rows, seed=given.seed):
            writer.write_batch(batch)
    print(f"{given.rows:,} rows in {given.out}")


if __name__ == "__main__":
    main()
