"""The invented company behind the generated transactions: what it spends on, which teams spend it, and when.

Story: `generator.rows` draws transactions from this world, and `card_descriptors` names its merchants. Nothing here is drawn
from a real table; the numbers are chosen so that the task has the shape of a real one: a long tail, seasons, teams with
habits of their own, and categories that share merchants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """What one kind of spending looks like."""

    name: str
    share: float
    """Part of all rows, before teams and seasons bend it; the shares need not add up to one."""
    median: float
    """Median amount in the home currency."""
    spread: float
    """Standard deviation of the logarithm of the amount."""
    words: tuple[str, ...]
    """Words that its merchants like to carry in their names."""
    vat: str = "S"
    """Most frequent VAT code: Standard, Reduced, Zero or Exempt."""
    cents: Literal["any", "charm", "whole", "half"] = "any"
    """How prices end: anyhow, .99 or .95, in full units, or in halves."""
    weekend: float = 0.3
    """Weight of a Saturday or Sunday against a working day."""
    december: float = 1.0
    """Weight of December against other months."""
    summer: float = 1.0
    """Weight of July and August."""
    refunds: float = 0.015
    online: float = 0.3


def _category(name: str, share: float, median: float, spread: float, words: str, **more: float | str) -> Category:
    return Category(name=name, share=share, median=median, spread=spread, words=tuple(words.split()), **more)  # type: ignore[arg-type]  # the literals are checked by a test


CATEGORIES: tuple[Category, ...] = (
    _category("office-supplies", 14, 32, 0.9, "stationery paper office print ink desk supplies", cents="charm", refunds=0.03),
    _category("fuel", 11, 58, 0.35, "petrol fuel service station filling garage motorway", weekend=0.6),
    _category("meals", 10, 24, 0.7, "cafe bistro kitchen grill pizza burger coffee", weekend=0.7, december=1.6, vat="R"),
    _category("groceries", 9, 38, 0.8, "market foods grocer bakery farm fresh butcher", weekend=0.6, december=1.3, vat="Z"),
    _category("rail-travel", 7, 47, 0.7, "rail trains station line express tickets", vat="Z", summer=0.7, online=0.7, refunds=0.05),
    _category("hotel", 6, 129, 0.5, "hotel inn lodge suites rooms stay house", weekend=0.4, december=0.6, refunds=0.04),
    _category("software", 6, 49, 1.0, "software cloud apps digital tech labs systems", cents="whole", online=0.97, weekend=0.8),
    _category("equipment", 6, 210, 1.1, "electrical computers tools machines supply instruments", refunds=0.03),
    _category("building-materials", 5, 74, 1.0, "builders timber plumbing paint hardware tiles trade", weekend=0.25),
    _category("books", 4, 21, 0.6, "books library press reading publishing education", vat="Z", cents="charm", online=0.6, refunds=0.03),
    _category("taxi", 4, 17, 0.5, "taxi cabs cars ride minicab", weekend=0.6, december=1.5, cents="half", vat="E"),
    _category("air-travel", 3, 240, 0.7, "air airways flights jet wings travel", vat="Z", december=0.5, online=0.9, refunds=0.05),
    _category(
        "training", 3, 260, 0.8, "training academy college learning courses institute", vat="E", cents="whole", december=0.4, summer=0.5
    ),
    _category("subscriptions", 3, 14, 0.7, "news media magazine online journal post", cents="charm", online=0.95, weekend=0.9),
    _category("postage", 3, 11, 0.9, "post courier parcel mail couriers delivery", vat="E", december=1.5),
    _category("vehicle-repair", 2.5, 165, 0.8, "tyres autos motors garage mot repair", weekend=0.2),
    _category("parking", 2.5, 6, 0.6, "parking park carpark meter", cents="half", weekend=0.5),
    _category("telecoms", 2.5, 36, 0.6, "mobile telecom phone networks broadband", online=0.8, weekend=0.7),
    _category("clothing", 2, 46, 0.7, "workwear clothing outfitters boots uniform sports", cents="charm", refunds=0.06),
    _category("professional-fees", 2, 390, 1.0, "legal consulting advisers partners surveyors associates", cents="whole", weekend=0.05),
    _category("advertising", 1.5, 140, 1.1, "media ads marketing design print signs", online=0.8),
    _category("utilities", 1.5, 155, 0.9, "energy water power gas electric", vat="R", weekend=0.1, summer=0.6),
    _category("medical", 1.2, 29, 0.8, "pharmacy chemist clinic optical dental health", vat="E"),
    _category("bank-fees", 0.8, 4, 1.0, "fee charges interest bank card", vat="E", cents="any", online=1.0, weekend=0.1),
)
NAMES: tuple[str, ...] = tuple(c.name for c in CATEGORIES)

TEAMS: tuple[tuple[str, float, str], ...] = (
    ("operations", 0.24, "fuel vehicle-repair equipment building-materials parking"),
    ("field-service", 0.19, "fuel building-materials equipment clothing hotel parking"),
    ("sales", 0.16, "meals hotel rail-travel taxi air-travel parking"),
    ("education", 0.14, "books office-supplies groceries training"),
    ("facilities", 0.10, "building-materials utilities groceries telecoms"),
    ("engineering", 0.08, "software equipment telecoms books"),
    ("people", 0.05, "training meals medical professional-fees advertising"),
    ("finance", 0.04, "professional-fees postage office-supplies bank-fees subscriptions"),
)
"""Name, share of rows, and the categories that the team buys more often than the others."""

CENTRES_PER_TEAM = 14
_PLACES = "north south east west central harbour riverside hillside parkway station castle market upper lower old new".split()  # noqa: SIM905 – a line of words reads better
_KINDS = "depot office school unit workshop branch hub yard".split()  # noqa: SIM905 – the same

VAT_CODES = ("S", "R", "Z", "E")
CHANNELS = ("chip", "contactless", "online", "recurring")
COUNTRIES = ("GB", "IE", "FR", "DE", "NL", "US", "ES", "SE")
CURRENCIES = ("GBP", "EUR", "USD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Teams, their cost centres, and what each of those buys."""

    team_of_centre: Integers
    """[centres] index into `TEAMS`."""
    centre_names: tuple[str, ...]
    centre_share: Floats
    """[centres] part of all rows."""
    mix: Floats
    """[centres, categories] what a centre buys, each row adding up to one."""


def company(rng: np.random.Generator) -> Company:
    """Draw cost centres for every team; each has the team's habits and some of its own."""
    teams = np.repeat(np.arange(len(TEAMS)), CENTRES_PER_TEAM)
    within = 1.0 / (np.arange(CENTRES_PER_TEAM) + 1.5)
    share = np.concatenate([within / within.sum() * part for _, part, _ in TEAMS])
    mix = np.stack([rng.dirichlet(_team_mix(favourites) * 9.0) + 1e-5 for _, _, favourites in (TEAMS[t] for t in teams)])
    names = tuple(f"{_PLACES[i % len(_PLACES)]} {_KINDS[(i * 5 + i // 16) % len(_KINDS)]} {100 + i}" for i in range(len(teams)))
    return Company(team_of_centre=teams, centre_names=names, centre_share=share / share.sum(), mix=mix / mix.sum(axis=1, keepdims=True))


def season(month: int, *, weekend: bool) -> Floats:
    """[categories] how much more or less of each category is bought in `month` (1 to 12)."""
    weights = np.array([c.weekend if weekend else 1.0 for c in CATEGORIES])
    if month == 12:
        weights *= [c.december for c in CATEGORIES]
    if month in (7, 8):
        weights *= [c.summer for c in CATEGORIES]
    return np.asarray(weights)


def day_weights(weekdays: Integers, months: Integers) -> Floats:
    """Expected rows of days with the given `weekdays` (Monday is 0) and `months`, as parts of one."""
    by_weekday = np.array([1.0, 1.05, 1.05, 1.05, 0.95, 0.4, 0.22])
    by_month = np.array([0.95, 1.0, 1.15, 0.95, 1.0, 1.05, 0.95, 0.7, 1.1, 1.05, 1.05, 1.0])
    weights = by_weekday[weekdays] * by_month[months - 1]
    return np.asarray(weights / weights.sum())


def _team_mix(favourites: str) -> Floats:
    weights = np.array([c.share for c in CATEGORIES])
    weights = weights / weights.sum()
    for name in favourites.split():
        weights[NAMES.index(name)] += 0.09
    return np.asarray(weights / weights.sum())
