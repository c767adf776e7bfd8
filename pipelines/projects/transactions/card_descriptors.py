"""Merchants, and what a card statement makes of their names.

Story: a merchant of `card_world`'s company has a name, a few outlets, a price level and a day on which it opened. A bank shows it as
a descriptor: 22 characters, a payment company's prefix, a store number, a town, often a reference that is new each time.
`generator.rows` picks merchants and outlets by number and looks the text up here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from card_world import CATEGORIES, Flags, Floats, Integers

DESCRIPTOR_LENGTH = 22
_STARTS = "al bar cor dal el fen gra hol il jor kel lun mar nor or pel quin ros sal tor ul ver wel yar zan bri cla dro fla gle".split()  # noqa: SIM905 – a line of syllables reads better
_ENDS = "den ton ley wick ford mont ster vale ham by dor nia ric sen tex via well bury comb rell mere lock".split()  # noqa: SIM905 – the same
_TOWNS = "leeds york bath derby dover hull luton poole ripon truro wells ely cork lille bonn delft ghent malmo porto turin".split()  # noqa: SIM905 – the same
_PREFIXES = ("SQ *", "PAYPAL *", "SUMUP *", "ZETTLE_*", "TST* ", "WWW.")
_NEUTRAL = ("group", "direct", "services", "uk", "ltd", "& sons", "stores", "co", "trading", "international")
GENERAL_STORES = 36
"""Marketplaces, department stores and supermarkets: they sell several categories, so their name alone does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchants:
    """Every merchant by number, and the flat table of their outlets' descriptors."""

    sells: tuple[Integers, ...]
    """For each category: the merchants that sell it, most popular first."""
    popularity: tuple[Floats, ...]
    """For each category: the weight of each merchant in `sells`."""
    opened: Integers
    """[merchants] day number on which the merchant first trades; 0 or less for those that always did."""
    price_level: Floats
    """[merchants] added to the logarithm of an amount."""
    referenced: Flags
    """[merchants] whether descriptors end in a reference that is new each time."""
    country: Integers
    """[merchants] index into `COUNTRIES`."""
    first_outlet: Integers
    outlets: Integers
    """[merchants] where a merchant's outlets start in `descriptors`, and how many there are."""
    descriptors: pa.Array


def merchants(rng: np.random.Generator, *, count: int, days: int, new_share: float = 0.25, from_day: int = 0) -> Merchants:
    """Invent `count` merchants, `new_share` of which open evenly over `from_day` to `days`."""
    home = _home_categories(rng, count)
    sells, popularity = _assortments(rng, home)
    opened = np.where(rng.random(count) < new_share, rng.integers(from_day, days, count), 0)
    outlets = 1 + np.minimum(rng.poisson(2.0, count) * (rng.random(count) < 0.6) + 12 * (home < 0), 24)
    texts = [text for i in range(count) for text in _outlet_names(rng, home[i], int(outlets[i]))]
    online = np.array([0.5 if c < 0 else CATEGORIES[c].online for c in home])
    return Merchants(
        sells=sells,
        popularity=popularity,
        opened=opened,
        price_level=rng.normal(0.0, 0.35, count),
        referenced=rng.random(count) < 0.35 * online,
        country=np.where(rng.random(count) < 0.85, 0, rng.integers(1, 8, count)),
        first_outlet=np.concatenate([[0], np.cumsum(outlets)[:-1]]),
        outlets=outlets,
        descriptors=pa.array(texts, pa.string()),
    )


def spell(descriptors: pa.Array, *, references: Flags, rng: np.random.Generator, typo_share: float = 0.015) -> pa.Array:
    """What the statement shows: a reference where `references` says so, cut to 22 characters, and now and then a typing error."""
    rows = len(descriptors)
    codes = pa.array([f"*{number:05X}" for number in rng.integers(0, 1 << 20, 4096)], pa.string())
    suffix = pc.if_else(pa.array(references), codes.take(pa.array(rng.integers(0, 4096, rows))), "")
    texts = pc.utf8_slice_codeunits(pc.binary_join_element_wise(descriptors, suffix, ""), 0, DESCRIPTOR_LENGTH)
    wrong = np.flatnonzero(rng.random(rows) < typo_share)
    if not len(wrong):
        return texts
    fixed = [
        _mistyped(text, float(where)) for text, where in zip(texts.take(pa.array(wrong)).to_pylist(), rng.random(len(wrong)), strict=True)
    ]
    mask = np.zeros(rows, dtype=bool)
    mask[wrong] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array(fixed, pa.string()))


def _home_categories(rng: np.random.Generator, count: int) -> Integers:
    """[count] the category of each merchant; -1 for the general stores, which come first."""
    weights = np.sqrt([c.share for c in CATEGORIES])
    home = rng.choice(len(CATEGORIES), count, p=weights / weights.sum())
    home[: min(GENERAL_STORES, count // 20)] = -1
    return home


def _assortments(rng: np.random.Generator, home: Integers) -> tuple[tuple[Integers, ...], tuple[Floats, ...]]:
    """Who sells each category and how often: specialists by Zipf's law, and general stores with three sevenths of the trade."""
    general = np.flatnonzero(home < 0)
    sold = [set(rng.choice(16, rng.integers(2, 5), replace=False).tolist()) for _ in general]
    sells, popularity = [], []
    for category in range(len(CATEGORIES)):
        special = np.flatnonzero(home == category)
        weights = 1.0 / (np.arange(len(special)) + 2.0)
        stores = np.array([g for g, goods in zip(general, sold, strict=True) if category in goods], dtype=np.int64)
        theirs = rng.exponential(1.0, len(stores)) + 0.2
        theirs = theirs / theirs.sum() * weights.sum() * 0.75 if len(stores) else theirs
        sells.append(np.concatenate([special, stores]))
        popularity.append(np.concatenate([weights, theirs]))
    return tuple(sells), tuple(popularity)


def _outlet_names(rng: np.random.Generator, category: int, outlets: int) -> list[str]:
    name = _name(rng, category)
    prefix = _PREFIXES[int(rng.integers(len(_PREFIXES)))] if rng.random() < 0.2 else ""
    style, numbered, placed = int(rng.integers(4)), rng.random() < 0.4, rng.random() < 0.4
    texts = []
    for _ in range(outlets):
        number = f" {rng.integers(10, 5000):04d}" if numbered else ""
        town = f" {_TOWNS[int(rng.integers(len(_TOWNS)))]}" if placed else ""
        text = f"{prefix}{name}{number}{town}"
        texts.append((text.upper() if style < 2 else text.title() if style == 2 else text.lower())[:DESCRIPTOR_LENGTH])
    return texts


def _name(rng: np.random.Generator, category: int) -> str:
    brand = _STARTS[int(rng.integers(len(_STARTS)))] + _ENDS[int(rng.integers(len(_ENDS)))]
    draw = rng.random()
    if category < 0 or draw < 0.33:
        return f"{brand} {_NEUTRAL[int(rng.integers(len(_NEUTRAL)))]}"
    words = CATEGORIES[category].words
    word = words[int(rng.integers(len(words)))]
    if draw < 0.45:
        return brand
    return f"{word} {brand}" if draw < 0.6 else f"{brand} {word}"


def _mistyped(text: str, where: float) -> str:
    """`text` with two neighbouring letters exchanged, or one dropped."""
    if len(text) < 4:
        return text
    at = int(where * (len(text) - 2))
    if at % 2:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
