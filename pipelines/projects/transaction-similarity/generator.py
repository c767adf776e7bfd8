"""Card transactions of many customers that never happened: merchants of several verticals, taken in by several operators.

Story: `project.yaml` names `generator:rows` as its source; `ingest` calls it and gets Arrow record batches. A merchant belongs to a
*vertical* (its industry), sells one or two categories of it, and is paid through an *operator*, a payment processor that puts its own
letters in front of the name. Merchants open over the whole period, so the newest rows, which judge, are full of names that training never
saw: alike are their words, amounts, and who buys. The same seed gives the same rows.

`newcomer_rows` adds labelled rows of a customer that comes with a category of its own (`harbour-dues`): the labels that are to count without
a training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Category:
    """What is bought: its vertical, words in merchants' names, a usual amount, and the team that buys most of it."""

    name: str
    vertical: str
    words: tuple[str, ...]
    median: float
    team: str
    vat: str


CATEGORIES = (
    Category("meals", "hospitality", ("cafe", "bistro", "deli", "pizza"), 14, "sales", "standard"),
    Category("lodging", "hospitality", ("hotel", "inn", "lodge"), 140, "sales", "standard"),
    Category("rail", "travel", ("rail", "trains", "railway"), 38, "sales", "zero"),
    Category("flights", "travel", ("air", "airways", "jet"), 210, "sales", "zero"),
    Category("taxi", "travel", ("cabs", "taxi", "rides"), 17, "office", "zero"),
    Category("groceries", "retail", ("foods", "market", "grocer"), 32, "care", "zero"),
    Category("clothing", "retail", ("workwear", "apparel", "uniforms"), 64, "care", "standard"),
    Category("books", "retail", ("books", "press", "bookshop"), 19, "school", "zero"),
    Category("fuel", "energy", ("fuel", "petrol", "filling station"), 58, "workshop", "standard"),
    Category("electricity", "energy", ("power", "electric", "energy"), 320, "office", "reduced"),
    Category("hardware", "trade", ("tools", "timber", "hardware"), 45, "workshop", "standard"),
    Category("cleaning", "trade", ("hygiene", "janitorial", "cleaning"), 52, "care", "standard"),
    Category("software", "digital", ("software", "cloud", "apps"), 29, "office", "standard"),
    Category("hosting", "digital", ("hosting", "domains", "servers"), 88, "office", "standard"),
    Category("advertising", "digital", ("ads", "media", "print"), 150, "sales", "standard"),
    Category("training", "services", ("academy", "courses", "training"), 260, "school", "exempt"),
    Category("postage", "services", ("post", "parcels", "courier"), 9, "office", "exempt"),
    Category("printing", "services", ("copy", "printers", "labels"), 36, "school", "standard"),
)
NEWCOMER = Category("harbour-dues", "maritime", ("harbour", "berth", "port authority"), 480, "fleet", "exempt")
"""What the new customer buys, which nobody had bought before."""
OPERATORS = ("direct", "SQ *", "PAYPAL *", "SUMUP *", "IZ *")
_OPERATOR_NAMES = ("direct", "square", "paypal", "sumup", "izettle")
_CUSTOMERS = ("aldgate", "brixham", "corby", "deal", "epping")
_SYLLABLES = ("bar", "den", "fol", "gar", "hul", "kes", "lin", "mor", "nor", "pel", "ros", "san", "tor", "vel", "wic", "zan")
_MERCHANTS = 600
_DAY = 86_400
_HABIT = 0.8
"""Share of rows bought by the category's own team, and with its own VAT code."""
_NAMED = 0.75
"""Share of merchants with a word in their name that tells what they sell."""
_MISCODED = 0.03

SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("booked_at", pa.timestamp("s", tz="UTC")),
        ("merchant", pa.string()),
        ("amount", pa.float64()),
        ("vat", pa.string()),
        ("team", pa.string()),
        ("cost_centre", pa.string()),
        ("vertical", pa.string()),
        ("operator", pa.string()),
        ("customer", pa.string()),
        ("category", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merchants:
    """One entry for each merchant."""

    names: list[str]
    categories: Integers
    """[merchants, 2]: what it mostly sells, and what else."""
    operators: Integers
    opened: Integers
    """The day, from 0."""


def rows(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    rows: int = 30_000,
    seed: int = 7,
    days: int = 540,
    start: str = "2024-01-01",
    newcomer_rows: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Yield `rows` transactions spread over `days` from `start`, and `newcomer_rows` of the new customer, those in [since, until) only.

    Raises:
        ValueError: a number is out of range.
    """
    if rows < 1 or days < 1 or newcomer_rows < 0:
        raise ValueError(f"rows and days must be at least 1 and newcomer_rows at least 0, not {rows}, {days} and {newcomer_rows}")
    first = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp())
    batches = [_batch("T", np.random.default_rng([seed, 1]), CATEGORIES, merchants=_MERCHANTS, rows=rows, days=days, first=first)]
    if newcomer_rows:
        rng = np.random.default_rng([seed, 2])
        batches.append(_batch("N", rng, (NEWCOMER,), merchants=12, rows=newcomer_rows, days=days, first=first))
    low = -math.inf if since is None else _seconds(since)
    high = math.inf if until is None else _seconds(until)
    for batch in batches:
        seconds = batch.column("booked_at").cast(pa.int64()).to_numpy()
        yield batch.filter(pa.array((seconds >= low) & (seconds < high)))


def _batch(
    prefix: str, rng: np.random.Generator, kinds: tuple[Category, ...], *, merchants: int, rows: int, days: int, first: int
) -> pa.RecordBatch:
    world = _merchants(rng, kinds, merchants, days)
    day = np.sort(rng.integers(0, days, rows))
    merchant = _visited(rng, world, day)
    sold = world.categories[merchant, (rng.random(rows) < 0.15).astype(np.int64)]  # what it sells beside
    told = np.where(rng.random(rows) < _MISCODED, rng.integers(0, len(kinds), rows), sold)
    amount = np.exp(np.log([kind.median for kind in kinds])[sold] + 0.5 * rng.normal(size=rows)).round(2)
    team = _mostly(rng, [kinds[i].team for i in sold], sorted({kind.team for kind in (*CATEGORIES, *kinds)}))
    columns: list[Any] = [
        [f"{prefix}{i:08d}" for i in range(rows)],
        pa.array(first + day * _DAY + rng.integers(6 * 3600, 22 * 3600, rows), pa.timestamp("s")).cast(pa.timestamp("s", tz="UTC")),
        [_descriptor(world, place, digits) for place, digits in zip(merchant, rng.integers(0, 10_000, rows), strict=True)],
        np.where(rng.random(rows) < 0.02, -amount, amount),  # refunds
        _mostly(rng, [kinds[i].vat for i in sold], ["exempt", "reduced", "standard", "zero"]),
        team,
        [f"{name}-{number:02d}" for name, number in zip(team, rng.integers(0, 6, rows), strict=True)],
        [kinds[i].vertical for i in sold],
        [_OPERATOR_NAMES[i] for i in world.operators[merchant]],
        ["newhaven"] * rows if prefix == "N" else [_CUSTOMERS[i] for i in rng.integers(0, len(_CUSTOMERS), rows)],
        [kinds[i].name for i in told],
    ]
    return pa.RecordBatch.from_arrays(
        [values if isinstance(values, pa.Array) else pa.array(values, kind.type) for values, kind in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


def _merchants(rng: np.random.Generator, kinds: tuple[Category, ...], count: int, days: int) -> _Merchants:
    """Merchants that open all along; four in ten on the first day. What one sells beside is of the same vertical, where there is anything."""
    main = np.arange(count) % len(kinds)
    beside = [rng.choice([i for i, kind in enumerate(kinds) if kind.vertical == kinds[own].vertical]) for own in main]
    return _Merchants(
        names=[_name(rng, kinds[own]) for own in main],
        categories=np.stack([main, np.array(beside)], axis=1),
        operators=rng.choice(len(OPERATORS), count, p=[0.4, 0.2, 0.15, 0.15, 0.1]),
        opened=np.where(np.arange(count) < max(len(kinds), 0.4 * count), 0, rng.integers(0, days, count)),
    )


def _name(rng: np.random.Generator, kind: Category) -> str:
    root = "".join(rng.choice(_SYLLABLES, rng.integers(2, 4)))
    return f"{root} {rng.choice(kind.words)}" if rng.random() < _NAMED else root


def _visited(rng: np.random.Generator, world: _Merchants, day: Integers) -> Integers:
    """A merchant for each row, by popularity, among those that are open."""
    popularity = rng.pareto(2.0, len(world.names)) + 0.2
    merchant = np.empty(len(day), dtype=np.int64)
    for today, begin, count in zip(*np.unique(day, return_index=True, return_counts=True), strict=True):
        weights = np.cumsum(np.where(world.opened <= today, popularity, 0.0))
        merchant[begin : begin + count] = np.searchsorted(weights, rng.random(count) * weights[-1])
    return merchant


def _descriptor(world: _Merchants, merchant: int, digits: int) -> str:
    """As a statement shows it: the operator's letters, the name, digits of the outlet or of the order; 22 letters of it."""
    operator = OPERATORS[world.operators[merchant]]
    return f"{'' if operator == 'direct' else operator}{world.names[merchant]} {digits:04d}".upper()[:22]


def _mostly(rng: np.random.Generator, usual: list[str], others: list[str]) -> list[str]:
    strays = rng.choice(others, len(usual))
    return [own if keeps else str(stray) for own, keeps, stray in zip(usual, rng.random(len(usual)) < _HABIT, strays, strict=True)]


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
