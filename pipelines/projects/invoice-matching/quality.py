"""How good is what comes out at the end? Decisions on transfers against what is true of a ledger.

A transfer is right where exactly the invoices that it pays are matched to it, none for one that pays none. The pair model's verdict says
nothing of that: it judges pairs, before anything is assigned.

By hand, once people have matched a month: `python quality.py --decisions decisions.parquet --matches M.parquet`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Truth = Mapping[str, frozenset[str]]
"""Of each transfer: the invoices that it pays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What was decided of a transfer."""

    invoices: frozenset[str]
    certainty: float


def decided(rows: Iterable[Mapping[str, Any]]) -> dict[str, Decided]:
    """Rows of decisions.parquet by transfer."""
    found: dict[str, tuple[set[str], float]] = {}
    for row in rows:
        invoices, _ = found.setdefault(row["transfer_id"], (set(), row["certainty"]))
        if row["invoice_id"] is not None:
            invoices.add(row["invoice_id"])
    return {name: Decided(invoices=frozenset(invoices), certainty=certainty) for name, (invoices, certainty) in found.items()}


def truth_of(matches: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """Rows of the table of matches by transfer; see `ledger.MATCHES`."""
    pays: dict[str, set[str]] = {}
    for match in matches:
        pays.setdefault(match["transfer_id"], set()).update([match["invoice_id"]] if match["invoice_id"] is not None else [])
    return {name: frozenset(invoices) for name, invoices in pays.items()}


def quality(truth: Truth, answers: Mapping[str, Decided]) -> dict[str, float]:
    """Precision and recall of matched pairs, and the share of all transfers that are right."""
    none = Decided(invoices=frozenset(), certainty=0.0)
    given = {name: answers.get(name, none).invoices for name in truth}
    right = sum(len(given[name] & invoices) for name, invoices in truth.items())
    return {
        "transfers": len(truth),
        "precision": right / max(1, sum(map(len, given.values()))),
        "recall": right / max(1, sum(map(len, truth.values()))),
        "transfers_right": sum(given[name] == invoices for name, invoices in truth.items()) / max(1, len(truth)),
    }


def threshold(truth: Truth, answers: Mapping[str, Decided], precision: float) -> float:
    """The lowest certainty from which on at least this part of the matched transfers is right; above 1 where there is none."""
    ordered = sorted(_matched(truth, answers), reverse=True)
    found, right = 1.01, 0
    for count, (certainty, is_right) in enumerate(ordered, start=1):
        right += is_right
        if right / count >= precision and (count == len(ordered) or ordered[count][0] < certainty):
            found = certainty
    return found


def automatic(truth: Truth, answers: Mapping[str, Decided], certainty: float) -> dict[str, float]:
    """Matched transfers of at least this certainty: their share of all transfers that pay something, and the part that is right."""
    sure = [is_right for each, is_right in _matched(truth, answers) if each >= certainty]
    paying = sum(bool(invoices) for invoices in truth.values())
    return {"certainty": certainty, "share": len(sure) / max(1, paying), "precision": sum(sure) / max(1, len(sure))}


def _matched(truth: Truth, answers: Mapping[str, Decided]) -> list[tuple[float, bool]]:
    return [(each.certainty, each.invoices == truth[name]) for name, each in answers.items() if each.invoices and name in truth]


def main() -> None:
    """Say how good decisions were, of those transfers that people have matched since."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--decisions", type=Path, required=True, help="decisions.parquet of `millrace batch`")
    parser.add_argument("--matches", type=Path, required=True, help="what people matched")
    parser.add_argument("--precision", type=float, default=0.99, help="of automatic matches (default 0.99)")
    arguments = parser.parse_args()
    answers = decided(pq.read_table(arguments.decisions, partitioning=None).to_pylist())
    every = truth_of(pq.read_table(arguments.matches, partitioning=None).to_pylist())
    truth = {name: invoices for name, invoices in every.items() if name in answers}
    for name, value in quality(truth, answers).items():
        print(f"{name:16} {value:,.3f}")
    sure = threshold(truth, answers, arguments.precision)
    told = automatic(truth, answers, sure)
    print(
        f"A certainty of {sure:.3f} and more: {told['share']:.1%} of the transfers that pay something, {told['precision']:.1%} of them right"
    )


if __name__ == "__main__":
    main()
