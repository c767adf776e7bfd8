"""Which transfers pay which invoices, all things considered: from the scores of pairs to an answer in which nothing is used twice.

Story: the pair model says how likely each pair is, one by one. But a transfer cannot pay two invoices in full, and two
transfers cannot pay the same one. So pairs are put together into *explanations*: one transfer for one invoice, in full or in part; several
transfers for one invoice; one transfer for several invoices; each only where the amounts allow it. Of all ways to choose explanations that
have no transfer and no invoice in common, the one is taken whose pairs have the highest sum of logarithms of odds, which is the likeliest one
as far as pairs speak for themselves. A transfer without an explanation that is likelier than not stays unmatched.

What could meet falls apart into components (transfers and invoices that candidates connect), mostly of a few rows, and each is solved exactly, as a
packing of sets, by HiGHS in scipy (Huangfu and Hall, "Parallelizing the Dual Revised Simplex Method", 2018). Rows are put in an order of
their own before, so the answer does not depend on theirs. Pure: numbers in, matches out. `decisions.py` calls it for `millrace batch`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Kind = Literal["whole", "part", "instalments", "combined"]
_SURE = 1e-6
"""A probability is never taken to be nearer to 0 or 1."""
_CENT = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts as the same amount, and how far to look."""

    over: float = 0.035
    """A transfer may bring so much more than is open, as a part of it: rates move."""
    short: float = 0.03
    """So much less still closes an invoice: a discount, a rate."""
    fee: float = 30.0
    """Or so much less, in the invoice's currency, but never more than a third: what banks keep."""
    inexact: float = 2.0
    """Logarithm of the odds against several invoices that add up only so far: with many invoices, some sum comes near by chance."""
    least: float = 0.05
    """Pairs below this probability are not looked at."""
    most: int = 6
    """Invoices in one transfer, or transfers for one invoice."""
    looked_at: int = 9
    """Of more possible partners than this, only the likeliest are put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One scored candidate."""

    transfer: str
    invoice: str
    score: float
    """The probability that they belong together."""
    paid: float
    """The transfer's amount in the invoice's currency."""
    open: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A transfer and an invoice that it pays."""

    transfer: str
    invoice: str
    amount: float
    """In the invoice's currency."""
    kind: Kind
    certainty: float
    """The lowest score among the pairs that are matched together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explanation:
    pairs: tuple[Pair, ...]
    kind: Kind
    worth: float


def assign(pairs: Iterable[Pair], rules: Rules | None = None) -> list[Match]:
    """The likeliest matches, sorted by transfer and invoice.

    No transfer is in two explanations and no invoice either; what is matched to an invoice is at most what is open, and of a transfer at
    most what it brings (as far as rates within `Rules.over` say). A pair that is given twice counts once, with its higher score.
    """
    known = rules or Rules()
    useful = [pair for pair in _once(pairs) if pair.score >= known.least and pair.paid > _CENT and pair.open > _CENT]
    found = [match for group in _components(useful) for match in _solved(_explanations(group, known))]
    return sorted(found, key=lambda match: (match.transfer, match.invoice))


def _once(pairs: Iterable[Pair]) -> list[Pair]:
    """Sorted, each pair once; numbers that are none (a missing amount) are no pair."""
    usable = [pair for pair in pairs if all(map(math.isfinite, (pair.score, pair.paid, pair.open)))]
    ordered = sorted(usable, key=lambda pair: (pair.transfer, pair.invoice, -pair.score, pair.paid, pair.open))
    return [
        pair
        for at, pair in enumerate(ordered)
        if at == 0 or (pair.transfer, pair.invoice) != (ordered[at - 1].transfer, ordered[at - 1].invoice)
    ]


def _components(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Pairs that are connected by a transfer or an invoice, in order."""
    if not pairs:
        return
    transfers = {name: at for at, name in enumerate(dict.fromkeys(pair.transfer for pair in pairs))}
    invoices = {name: at + len(transfers) for at, name in enumerate(dict.fromkeys(pair.invoice for pair in pairs))}
    left, right = [transfers[pair.transfer] for pair in pairs], [invoices[pair.invoice] for pair in pairs]
    size = len(transfers) + len(invoices)
    _, of = connected_components(coo_array((np.ones(len(pairs)), (left, right)), shape=(size, size)), directed=False)
    groups: dict[int, list[Pair]] = {}
    for place, pair in zip(left, pairs, strict=True):
        groups.setdefault(int(of[place]), []).append(pair)
    yield from groups.values()


def _explanations(pairs: Sequence[Pair], rules: Rules) -> list[_Explanation]:
    """All that amounts allow and that are likelier than not."""
    by_transfer: dict[str, list[Pair]] = {}
    by_invoice: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_transfer.setdefault(pair.transfer, []).append(pair)
        by_invoice.setdefault(pair.invoice, []).append(pair)
    found = [
        _explained((pair,), "whole" if _closes(pair.paid, pair.open, rules) else "part")
        for pair in pairs
        if _fits(pair.paid, pair.open, rules)
    ]
    for mine in by_transfer.values():
        sums = ((several, _owed(several)) for several in _several(mine, rules))
        fitting = [(several, abs(owed - several[0].paid) < _CENT) for several, owed in sums if _closes(several[0].paid, owed, rules)]
        found += [_explained(several, "combined", 0.0 if exact else rules.inexact) for several, exact in fitting]
    found += [
        _explained(several, "instalments")
        for mine in by_invoice.values()
        for several in _several(mine, rules)
        if _fits(sum(pair.paid for pair in several), min(pair.open for pair in several), rules)
    ]
    return [each for each in found if each.worth > 0]


def _several(pairs: Sequence[Pair], rules: Rules) -> Iterator[tuple[Pair, ...]]:
    likeliest = sorted(pairs, key=lambda pair: (-pair.score, pair.transfer, pair.invoice))[: rules.looked_at]
    ordered = sorted(likeliest, key=lambda pair: (pair.transfer, pair.invoice))
    for size in range(2, min(rules.most, len(ordered)) + 1):
        yield from combinations(ordered, size)


def _explained(pairs: tuple[Pair, ...], kind: Kind, against: float = 0.0) -> _Explanation:
    return _Explanation(pairs=pairs, kind=kind, worth=sum(_log_odds(pair.score) for pair in pairs) - against)


def _log_odds(score: float) -> float:
    kept = min(max(score, _SURE), 1.0 - _SURE)
    return math.log(kept / (1.0 - kept))


def _fits(paid: float, owed: float, rules: Rules) -> bool:
    return paid <= owed * (1.0 + rules.over) + _CENT


def _closes(paid: float, owed: float, rules: Rules) -> bool:
    return _fits(paid, owed, rules) and owed - paid <= max(rules.short * owed, min(rules.fee, owed / 3.0)) + _CENT


def _owed(pairs: Sequence[Pair]) -> float:
    """What a transfer's invoices are together, in the currency of the first, as far as what was paid says what a currency is worth."""
    return sum(pair.open * (pairs[0].paid / pair.paid) for pair in pairs)


def _solved(explanations: Sequence[_Explanation]) -> Iterator[Match]:
    for chosen in _packed(explanations):
        certainty = min(pair.score for pair in chosen.pairs)
        for pair, amount in zip(chosen.pairs, _amounts(chosen), strict=True):
            yield Match(transfer=pair.transfer, invoice=pair.invoice, amount=amount, kind=chosen.kind, certainty=certainty)


def _packed(explanations: Sequence[_Explanation]) -> list[_Explanation]:
    """Those that have no transfer and no invoice in common and are worth most together."""
    if len(explanations) < 2:
        return list(explanations)
    used: dict[tuple[str, str], int] = {}
    rows, columns = [], []
    for at, each in enumerate(explanations):
        for name in dict.fromkeys([*(("t", pair.transfer) for pair in each.pairs), *(("i", pair.invoice) for pair in each.pairs)]):
            rows.append(used.setdefault(name, len(used)))
            columns.append(at)
    once = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(used), len(explanations))).tocsc()
    solved = milp(
        -np.array([each.worth for each in explanations]),
        integrality=np.ones(len(explanations)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(once, ub=np.ones(len(used))),
        options={"mip_rel_gap": 0.0},
    )
    return [each for each, taken in zip(explanations, solved.x, strict=True) if taken > 0.5]


def _amounts(chosen: _Explanation) -> list[float]:
    """What of each transfer goes to each invoice, in whole hundredths: never more than is open, never more than was paid."""
    if chosen.kind != "combined":
        left = min(pair.open for pair in chosen.pairs)
        amounts = []
        for pair in chosen.pairs:
            amounts.append(_cents(min(pair.paid, left)))
            left = max(0.0, left - amounts[-1])
        return amounts
    share, amounts = 1.0, []
    for pair in chosen.pairs:
        amounts.append(_cents(min(pair.open, share * pair.paid)))
        share = max(0.0, share - amounts[-1] / pair.paid)
    return amounts


def _cents(amount: float) -> float:
    """Rounded down, so that nothing is overpaid by half a hundredth."""
    return math.floor(amount * 100.0 + 1e-6) / 100.0
