"""Bank and card transactions that never happened, for the demo, the tests and the benchmarks.

Story: `project.yaml` names `generator:rows` as its source; `ingest` calls it and gets Arrow record batches, as from any other
source. The world they come from is in `card_world` (who buys what, when) and `card_descriptors` (merchants and how a statement
spells them). The same seed gives the same rows, whatever part of the period is asked for. `drift` changes the world from a
day on, so that checks and retraining have something to find.

By hand: `python generator.py --rows 60000 --out transactions.parquet [--drift new_merchants=0.3,currency=SEK,split=software]`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import card_descriptors
import card_world
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from card_world import Flags, Floats, Integers

SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("booked_at", pa.timestamp("s", tz="UTC")),
        ("merchant", pa.string()),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("vat", pa.string()),
        ("team", pa.string()),
        ("cost_centre", pa.string()),
        ("channel", pa.string()),
        ("country", pa.string()),
        ("terminal", pa.string()),
        ("category", pa.string()),
    ]
)
MERCHANTS = 3_000
NEWCOMERS = 1_500
BATCH_ROWS = 100_000
LABEL_NOISE = 0.035
DAY = 86_400

_Values = TypeVar("_Values", Integers, Floats, Flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What changes, and from when."""

    since: str | None = None
    """The day it starts, as YYYY-MM-DD; the last quarter of the period where not set."""
    new_merchants: float = 0.0
    """Share of rows that come from merchants nobody has seen before."""
    currency: str | None = None
    """A new currency, with a twelfth of the rows and amounts eleven times as large."""
    split: str | None = None
    """A category; half of its merchants move to a new one, `<category>-recurring`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    company: card_world.Company
    merchants: card_descriptors.Merchants
    newcomers: card_descriptors.Merchants
    drift: Drift
    drift_day: int
    start: int
    """Seconds since 1970 of the first day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purchase:
    """The part of a batch of rows that everything else follows from; each field is [rows]."""

    seconds: Integers
    centre: Integers
    category: Integers
    merchant: Integers
    is_newcomer: Flags


def rows(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    rows: int = 60_000,
    seed: int = 7,
    days: int = 720,
    start: str = "2024-01-01",
    drift: Drift | Mapping[str, object] | str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield `rows` transactions spread over `days` from `start`, those in [since, until) only.

    Raises:
        ValueError: `drift` has a field or names a category that there is not, or a number is out of range.
    """
    if rows < 1 or days < 1:
        raise ValueError(f"rows and days must be at least 1, not {rows} and {days}")
    world = _world(seed=seed, days=days, start=start, drift=parse_drift(drift))
    low = -math.inf if since is None else _seconds(since)
    high = math.inf if until is None else _seconds(until)
    number = 0
    for month, (first, counts) in enumerate(_months(world, rows=rows, seed=seed, days=days)):
        begin, end = world.start + first * DAY, world.start + (first + len(counts)) * DAY
        day = np.repeat(np.arange(first, first + len(counts)), counts)
        for part, at in enumerate(range(0, len(day), BATCH_ROWS)):
            if end > low and begin < high:
                yield from _within(
                    _batch(world, day[at : at + BATCH_ROWS], number + at, np.random.default_rng([seed, month, part])), low, high
                )
        number += len(day)


def parse_drift(drift: Drift | Mapping[str, object] | str | None) -> Drift:
    """Read `new_merchants=0.3,currency=SEK,split=software,since=2025-10-01`, or the same as a mapping.

    Raises:
        ValueError: naming the field that is wrong, and those that there are.
    """
    if isinstance(drift, Drift):
        return drift
    given = dict(part.split("=", 1) for part in drift.split(",") if "=" in part) if isinstance(drift, str) else dict(drift or {})
    unknown = sorted(set(given) - {"since", "new_merchants", "currency", "split"})
    if unknown:
        raise ValueError(f"drift has no {unknown[0]!r}; it has since, new_merchants, currency and split")
    share = float(str(given.get("new_merchants", 0.0)))
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"drift.new_merchants is a share from 0 to 1, not {share}")
    texts = {name: str(given[name]) for name in ("since", "currency", "split") if given.get(name) is not None}
    if texts.get("split", card_world.NAMES[0]) not in card_world.NAMES:
        raise ValueError(f"drift.split names the category {texts['split']!r}; there are {', '.join(card_world.NAMES)}")
    return Drift(new_merchants=share, **texts)


def _world(*, seed: int, days: int, start: str, drift: Drift) -> _World:
    first = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp())
    since = None if drift.since is None else int(datetime.fromisoformat(drift.since).replace(tzinfo=UTC).timestamp())
    return _World(
        company=card_world.company(np.random.default_rng([seed, 1])),
        merchants=card_descriptors.merchants(np.random.default_rng([seed, 2]), count=MERCHANTS, days=days),
        newcomers=card_descriptors.merchants(np.random.default_rng([seed, 3]), count=NEWCOMERS, days=days, new_share=0.0),
        drift=drift,
        drift_day=int(days * 0.75) if since is None else (since - first) // DAY,
        start=first,
    )


def _months(world: _World, *, rows: int, seed: int, days: int) -> Iterator[tuple[int, Integers]]:
    """For each calendar month: its first day's number, and how many rows each of its days has."""
    dates = np.datetime64(world.start, "s").astype("datetime64[D]") + np.arange(days)
    months = dates.astype("datetime64[M]").astype(np.int64)
    weights = card_world.day_weights((dates.astype(np.int64) + 3) % 7, months % 12 + 1)
    counts = np.random.default_rng([seed, 4]).multinomial(rows, weights)
    for month in np.unique(months):
        mine = np.flatnonzero(months == month)
        yield int(mine[0]), counts[mine]


def _batch(world: _World, day: Integers, number: int, rng: np.random.Generator) -> pa.RecordBatch:
    bought = _purchases(world, day, rng)
    source_of = (world.merchants, world.newcomers)
    country = _by_origin(bought, *(m.country for m in source_of))
    drifted = day >= world.drift_day
    label = _labels(world, bought, drifted, rng)
    amount, currency = _money(world, bought, country, drifted, rng)
    online = np.array([c.online for c in card_world.CATEGORIES])[bought.category]
    channel = np.where(rng.random(len(day)) < online, 2 + (rng.random(len(day)) < 0.2), rng.random(len(day)) < 0.6)
    team = world.company.team_of_centre[bought.centre]
    columns = [
        pc.binary_join_element_wise("T", pc.utf8_lpad(pa.array(np.arange(number, number + len(day))).cast(pa.string()), 9, "0"), ""),
        pa.array(bought.seconds, pa.timestamp("s")).cast(pa.timestamp("s", tz="UTC")),
        _missing(_descriptors(world, bought, rng), 0.003, rng),
        _missing(pa.array(amount), 0.001, rng),
        currency,
        _missing(_vat(bought, rng), 0.05, rng),
        _missing(_named([t[0] for t in card_world.TEAMS], team), 0.01, rng),
        _missing(_named(world.company.centre_names, bought.centre), 0.02, rng),
        _named(card_world.CHANNELS, channel),
        _missing(_named(card_world.COUNTRIES, country), 0.01, rng),
        _missing(_named([f"{n:06d}" for n in range(5000)], (bought.merchant * 7 + bought.centre % 3) % 5000), 0.3, rng),
        label,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _purchases(world: _World, day: Integers, rng: np.random.Generator) -> _Purchase:
    """Draw who buys what and where; `day` is [rows], ascending, within one calendar month."""
    count = len(day)
    date = np.datetime64(world.start, "s").astype("datetime64[D]") + day
    weekend = ((date.astype(np.int64) + 3) % 7 >= 5).astype(np.int64)
    month = int(date[0].astype("datetime64[M]").astype(int)) % 12 + 1
    centre = np.searchsorted(np.cumsum(world.company.centre_share)[:-1], rng.random(count))
    mixes = np.stack([world.company.mix * card_world.season(month, weekend=w) for w in (False, True)])
    chances = np.cumsum(mixes / mixes.sum(axis=2, keepdims=True), axis=2)[:, :, :-1]
    category = (rng.random((count, 1)) > chances[weekend, centre]).sum(axis=1)
    seconds = world.start + day * DAY + (np.clip(rng.normal(13.5, 3.5, count), 0, 23.99) * 3600).astype(np.int64)
    newcomer = (day >= world.drift_day) & (rng.random(count) < world.drift.new_merchants)
    merchant = np.empty(count, dtype=np.int64)
    for source, chosen in ((world.merchants, ~newcomer), (world.newcomers, newcomer)):
        merchant[chosen] = _choose_merchants(source, category[chosen], day[chosen], rng)
    return _Purchase(seconds=seconds, centre=centre, category=category, merchant=merchant, is_newcomer=newcomer)


def _choose_merchants(source: card_descriptors.Merchants, category: Integers, day: Integers, rng: np.random.Generator) -> Integers:
    """A merchant of its category for each row, by popularity, among those open on the batch's last day."""
    merchant = np.empty(len(category), dtype=np.int64)
    last = int(day.max(initial=0))
    for number, (sells, popularity) in enumerate(zip(source.sells, source.popularity, strict=True)):
        mine = np.flatnonzero(category == number)
        weights = np.cumsum(np.where(source.opened[sells] <= last, popularity, 0.0))
        merchant[mine] = sells[np.searchsorted(weights, rng.random(len(mine)) * weights[-1])]
    return merchant


def _descriptors(world: _World, bought: _Purchase, rng: np.random.Generator) -> pa.Array:
    sources = (world.merchants, world.newcomers)
    outlets = _by_origin(bought, *(m.outlets for m in sources))
    offset = len(world.merchants.descriptors) * bought.is_newcomer
    outlet = offset + _by_origin(bought, *(m.first_outlet for m in sources)) + (outlets * rng.random(len(outlets)) ** 2).astype(np.int64)
    texts = pa.concat_arrays([m.descriptors for m in sources]).take(pa.array(outlet))
    return card_descriptors.spell(texts, references=_by_origin(bought, *(m.referenced for m in sources)), rng=rng)


def _money(world: _World, bought: _Purchase, country: Integers, drifted: Flags, rng: np.random.Generator) -> tuple[Floats, pa.Array]:
    kinds, count = card_world.CATEGORIES, len(country)
    level = np.log([c.median for c in kinds])[bought.category] + _by_origin(
        bought, world.merchants.price_level, world.newcomers.price_level
    )
    amount = np.exp(level + np.array([c.spread for c in kinds])[bought.category] * rng.normal(size=count))
    ending = np.array([c.cents for c in kinds])[bought.category]
    keeps_style = rng.random(count) < 0.7
    amount = np.where((ending == "charm") & keeps_style, np.floor(amount) + rng.choice([0.99, 0.95, 0.5], count), amount)
    amount = np.where((ending == "whole") & keeps_style, np.ceil(amount), amount)
    amount = np.where((ending == "half") & keeps_style, np.ceil(amount * 2) / 2, amount)
    sign = np.where(rng.random(count) < np.array([c.refunds for c in kinds])[bought.category], -1.0, 1.0)
    abroad = np.where(country == 5, 2, 1)
    currency = np.where((country > 0) & (rng.random(count) < 0.8), abroad, 0)
    if world.drift.currency is not None:
        new = drifted & (rng.random(count) < 1 / 12)
        currency, amount = np.where(new, 3, currency), np.where(new, amount * 11, amount)
    names = [*card_world.CURRENCIES, world.drift.currency or "GBP"]
    return np.round(np.maximum(amount, 0.01) * sign, 2), _named(names, currency)


def _vat(bought: _Purchase, rng: np.random.Generator) -> pa.Array:
    usual = np.array([card_world.VAT_CODES.index(c.vat) for c in card_world.CATEGORIES])[bought.category]
    other = rng.choice(4, len(usual), p=[0.55, 0.05, 0.3, 0.1])
    return _named(card_world.VAT_CODES, np.where(rng.random(len(usual)) < 0.75, usual, other))


def _labels(world: _World, bought: _Purchase, drifted: Flags, rng: np.random.Generator) -> pa.Array:
    """Category names; a few percent are wrong, as people's coding is, mostly by taking a neighbour in the list."""
    count, kinds = len(bought.category), len(card_world.NAMES)
    wrong = rng.random(count) < LABEL_NOISE
    mistaken = np.where(rng.random(count) < 0.7, (bought.category + rng.integers(1, 3, count)) % kinds, rng.integers(0, kinds, count))
    label = np.where(wrong, mistaken, bought.category)
    if world.drift.split is not None:
        moves = drifted & (label == card_world.NAMES.index(world.drift.split)) & (bought.merchant % 2 == 1)
        label = np.where(moves, kinds, label)
    return _named([*card_world.NAMES, f"{world.drift.split}-recurring"], label)


def _by_origin(bought: _Purchase, old: _Values, new: _Values) -> _Values:
    """A property of each row's merchant, from the table that the merchant is in."""
    return np.where(bought.is_newcomer, new[bought.merchant % len(new)], old[bought.merchant])


def _named(names: Sequence[str], index: Integers) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(index))


def _missing(values: pa.Array, share: float, rng: np.random.Generator) -> pa.Array:
    return pc.if_else(pa.array(rng.random(len(values)) < share), pa.scalar(None, values.type), values)


def _within(batch: pa.RecordBatch, low: float, high: float) -> Iterator[pa.RecordBatch]:
    seconds = batch.column("booked_at").cast(pa.int64()).to_numpy()
    inside = (seconds >= low) & (seconds < high)
    if inside.all():
        yield batch
    elif inside.any():
        yield batch.filter(pa.array(inside))


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def main() -> None:
    """Write generated transactions to a Parquet file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--days", type=int, default=720)
    parser.add_argument("--start", default="2024-01-01", help="first day, YYYY-MM-DD")
    parser.add_argument("--drift", help="for example new_merchants=0.3,currency=SEK,split=software,since=2025-10-01")
    given = parser.parse_args()
    with pq.ParquetWriter(given.out, SCHEMA, compression="zstd") as writer:
        for batch in rows(rows=given.rows, seed=given.seed, days=given.days, start=given.start, drift=given.drift):
            writer.write_batch(batch)
    print(f"{given.rows:,} rows in {given.out}")


if __name__ == "__main__":
    main()
