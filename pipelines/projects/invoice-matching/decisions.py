"""The month's matches, from the scores of all candidate pairs: what `millrace batch` writes to decisions.parquet.

Story: `assignment.py` chooses what goes together; here its answer becomes a table for the ledger. Every transfer that had a candidate is in it. A
match whose certainty is at least `AUTOMATIC` may be posted as it is; the others, and transfers without a match, are for people, who find the
likeliest invoice as a suggestion.
"""

from __future__ import annotations

import pyarrow as pa
from assignment import Match, Pair, assign

COLUMNS = ("transfer_id", "invoice_id", "paid", "open")
"""What is needed of each pair beside its score."""
AUTOMATIC = 0.9
"""Cautious until you have measured your own: `quality.py` names the certainty from which on 99 % of the matched transfers were right."""
SCHEMA = pa.schema(
    [
        ("transfer_id", pa.string()),
        ("invoice_id", pa.string()),
        ("amount", pa.float64()),
        ("kind", pa.string()),
        ("certainty", pa.float64()),
        ("automatic", pa.bool_()),
        ("suggestion", pa.string()),
    ]
)
"""`invoice_id` and `amount` (in the invoice's currency) are null where `kind` is `none`; `suggestion` is an invoice to look at there."""


def decide(rows: pa.Table) -> pa.Table:
    """One row for each match, and one for each transfer without any; sorted by transfer and invoice."""
    pairs = pairs_of(rows)
    matched = assign(pairs)
    done = {match.transfer for match in matched}
    found = [_posted(match) for match in matched] + [_left(pair) for transfer, pair in likeliest(pairs).items() if transfer not in done]
    ordered = sorted(found, key=lambda row: (row["transfer_id"], row["invoice_id"] or ""))
    return pa.Table.from_pylist(ordered, schema=SCHEMA)


def pairs_of(rows: pa.Table) -> list[Pair]:
    """Rows of batch scoring as scored candidates."""
    columns = [rows[name].to_pylist() for name in (*COLUMNS, "output/score")]
    missing = float("nan")
    return [
        Pair(
            transfer=transfer, invoice=invoice, paid=missing if paid is None else paid, open=missing if owed is None else owed, score=score
        )
        for transfer, invoice, paid, owed, score in zip(*columns, strict=True)
    ]


def likeliest(pairs: list[Pair]) -> dict[str, Pair]:
    """Each transfer's pair with the highest score; of equal ones the invoice that comes first."""
    best: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.transfer, -pair.score, pair.invoice)):
        best.setdefault(pair.transfer, pair)
    return best


def _posted(match: Match) -> dict[str, object]:
    return {
        "transfer_id": match.transfer,
        "invoice_id": match.invoice,
        "amount": match.amount,
        "kind": match.kind,
        "certainty": match.certainty,
        "automatic": match.certainty >= AUTOMATIC,
        "suggestion": None,
    }


def _left(pair: Pair) -> dict[str, object]:
    """A transfer without a match. Its certainty is that none of its candidates is right, as far as the likeliest tells."""
    told = {"transfer_id": pair.transfer, "kind": "none", "certainty": 1.0 - pair.score, "automatic": False, "suggestion": pair.invoice}
    return {"invoice_id": None, "amount": None, **told}
