"""The project's source: a row for each transfer and each invoice that it may pay, with what is known of both on that day.

Story: a ledger, generated or your own, goes through `blocking`; each candidate becomes a row. `millrace run` learns from those that
people have matched, `millrace batch` scores those that nobody has, and both come from here, so that a row means the same. Books are closed once
a month: what was matched in earlier months is taken off an invoice's open amount, what is matched in the same month is not known yet.

By hand, from your own tables: `python pairs.py --invoices I.parquet --transfers T.parquet [--matches M.parquet] --out pairs.parquet`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import beam_blocking
import blocking
import generator
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sums
from blocking import Limits, Pairs, days_of, month_starts
from ledger import Ledger, read_ledger

SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("transfer_id", pa.string()),
        ("invoice_id", pa.string()),
        ("customer_id", pa.string()),
        ("booked_at", pa.timestamp("s", tz="UTC")),
        ("issued_at", pa.timestamp("s", tz="UTC")),
        ("due_at", pa.timestamp("s", tz="UTC")),
        ("payer", pa.string()),
        ("customer", pa.string()),
        ("reference", pa.string()),
        ("number", pa.string()),
        ("paid", pa.float64()),
        ("open", pa.float64()),
        ("currency", pa.string()),
        ("invoice_currency", pa.string()),
        ("together", pa.float64()),
        ("in_parts", pa.float64()),
        ("rivals", pa.int64()),
        ("matched", pa.int64()),
    ]
)
"""`paid` and `open` in the invoice's currency. `together`: how near the transfer comes to the sum of this and other invoices of the customer, as
a part of it; `in_parts`: how near the invoice comes to the sum of this and other transfers. `rivals`: other invoices with the same amount."""
BATCH_ROWS = 50_000
BEAM_FROM = 20_000
"""Transfers from which on candidates are looked for on Beam."""
_TOGETHER, _PARTS, _PARTS_WIDTH = 4, 3, 8
_ALIKE = 0.003
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def rows(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    files: Mapping[str, str] | None = None,
    generated: Mapping[str, Any] | None = None,
    limits: Mapping[str, int] | None = None,
    monthly: bool = True,
    beam_from: int = BEAM_FROM,
    beam: Mapping[str, Any] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield candidate pairs of the transfers that were booked in [since, until).

    Args:
        since: earliest booking.
        until: first booking that is too late.
        files: Parquet files of your own for `invoices`, `transfers` and `matches`; see `ledger.py` for their columns.
        generated: without files, what `generator.ledger` takes.
        limits: fields of `blocking.Limits`.
        monthly: an invoice is what it was when the month began; without, when the day began.
        beam_from: from so many transfers on, candidates are looked for on Beam.
        beam: where: `runner` and `options` as under `beam` in project.yaml.

    Raises:
        ValueError: a file, a column or an option is wrong.
    """
    ledger = read_ledger(files) if files else generator.ledger(**(generated or {}))
    ledger = Ledger(invoices=ledger.invoices, transfers=_within(ledger.transfers, since, until), matches=_known(ledger, ledger.matches))
    wanted = Limits(**(limits or {}))
    if ledger.transfers.num_rows >= beam_from:
        pairs = beam_blocking.found(ledger, wanted, monthly=monthly, beam=beam or {})
    else:
        pairs = blocking.found(ledger, wanted, monthly=monthly)
    yield from as_rows(ledger, pairs, monthly=monthly)


def as_rows(ledger: Ledger, pairs: Pairs, *, monthly: bool = True) -> Iterator[pa.RecordBatch]:
    """Candidates with everything that the model is asked, in the order of `pairs`; a label where somebody looked at the transfer."""
    if not len(pairs):
        return
    numbers = _numbers(ledger, pairs, monthly=monthly)
    for at in range(0, len(pairs), BATCH_ROWS):
        some = pairs[at : at + BATCH_ROWS]
        columns = _texts(ledger, some) | {
            name: pa.array(values[at : at + BATCH_ROWS], from_pandas=True) for name, values in numbers.items()
        }
        yield pa.RecordBatch.from_arrays(
            [columns[name].cast(kind) for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)], schema=SCHEMA
        )


def _within(transfers: pa.Table, since: datetime | None, until: datetime | None) -> pa.Table:
    booked = transfers["booked_at"].cast(pa.int64())
    low, high = (None if moment is None else _seconds(moment) for moment in (since, until))
    keep = pc.and_(pc.greater_equal(booked, -(2**62) if low is None else low), pc.less(booked, 2**62 if high is None else high))
    return transfers.filter(keep).combine_chunks()


def _seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _known(ledger: Ledger, matches: pa.Table) -> pa.Table:
    """Matches with the day on which their transfer was booked; those of unknown transfers are of no use."""
    place = pc.index_in(matches["transfer_id"], value_set=ledger.transfers["transfer_id"].combine_chunks())
    known = matches.append_column("place", place).filter(pc.is_valid(place))
    booked = ledger.transfers["booked_at"].take(known["place"])
    return known.drop_columns(["place"]).append_column("booked_at", booked).combine_chunks()


def _texts(ledger: Ledger, pairs: Pairs) -> dict[str, pa.Array]:
    transfers = ledger.transfers.take(pa.array(pairs["transfer"])).combine_chunks()
    invoices = ledger.invoices.take(pa.array(pairs["invoice"])).combine_chunks()
    ids = pc.binary_join_element_wise(transfers["transfer_id"], invoices["invoice_id"], "|")
    found = {"pair_id": ids, "invoice_currency": invoices["currency"]}
    found |= {name: transfers[name] for name in ("transfer_id", "booked_at", "payer", "reference", "currency")}
    found |= {name: invoices[name] for name in ("invoice_id", "customer_id", "issued_at", "due_at", "customer", "number")}
    return {name: column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for name, column in found.items()}


def _numbers(ledger: Ledger, pairs: Pairs, *, monthly: bool) -> dict[str, npt.NDArray[Any]]:
    transfers, invoices = ledger.transfers, ledger.invoices
    day = days_of(transfers["booked_at"])[pairs["transfer"]]
    period = month_starts(day) if monthly else day
    paid, owed = _paid(transfers, invoices, pairs), _open(ledger, pairs, period)
    customer = _codes(invoices["customer_id"])[pairs["invoice"]]
    in_time = _codes(pa.array(period))
    return {
        "paid": paid,
        "open": owed,
        "together": _gaps(pairs["transfer"], customer, owed, paid, most=_TOGETHER, width=None),
        "in_parts": _gaps(pairs["invoice"], in_time, paid, owed, most=_PARTS, width=_PARTS_WIDTH, worth=pairs["worth"]),
        "rivals": _rivals(pairs["transfer"], paid, owed),
        "matched": _labels(ledger, pairs),
    }


def _paid(transfers: pa.Table, invoices: pa.Table, pairs: Pairs) -> Floats:
    """What arrived, in the invoice's currency: as it was paid, or else by what the invoice is worth at home."""

    def column(table: pa.Table, name: str, rows: Numbers) -> Floats:
        return np.asarray(table[name].fill_null(np.nan), dtype=np.float64)[rows]

    same = _codes(pa.chunked_array([*transfers["currency"].chunks, *invoices["currency"].chunks]))
    alike = same[: len(transfers)][pairs["transfer"]] == same[len(transfers) :][pairs["invoice"]]
    rate = column(invoices, "amount", pairs["invoice"]) / np.maximum(column(invoices, "home_amount", pairs["invoice"]), 0.01)
    abroad = column(transfers, "home_amount", pairs["transfer"]) * rate
    return np.where(alike, column(transfers, "amount", pairs["transfer"]), np.round(abroad, 2))


def _open(ledger: Ledger, pairs: Pairs, period: npt.NDArray[np.int32]) -> Floats:
    """What was still owed when the transfer's period began."""
    matched = ledger.matches.filter(pc.is_valid(ledger.matches["invoice_id"]))
    invoice = _places(matched["invoice_id"], ledger.invoices["invoice_id"])
    when = invoice * 2**20 + days_of(matched["booked_at"])
    order = np.argsort(when, kind="stable")
    paid = np.concatenate([[0.0], np.cumsum(np.asarray(matched["amount"].fill_null(0.0))[order])])
    mine = pairs["invoice"].astype(np.int64) * 2**20
    earlier = paid[np.searchsorted(when[order], mine + period)] - paid[np.searchsorted(when[order], mine)]
    total = np.asarray(ledger.invoices["amount"].fill_null(np.nan), dtype=np.float64)[pairs["invoice"]]
    return np.round(total - earlier, 2)


def _gaps(
    first: Numbers, second: Numbers, parts: Floats, whole: Floats, *, most: int, width: int | None, worth: Numbers | None = None
) -> Floats:
    """`sums.gaps` within each set of pairs that agree in `first` and `second`; with a width, of the pairs of a set that are worth most."""
    order = np.lexsort((np.zeros(len(first)) if worth is None else -worth, second, first))
    fresh = (first[order][1:] != first[order][:-1]) | (second[order][1:] != second[order][:-1])
    unit = np.cumsum(np.concatenate([[0], fresh]))
    place = np.arange(len(order)) - np.flatnonzero(np.concatenate([[True], fresh]))[unit]
    size = np.bincount(unit)[unit]
    inside = (size > 1) & (place < (width or len(order)))
    kept, unit_of, place_of = order[inside], np.unique(unit[inside], return_inverse=True)[1], place[inside]
    found = np.full(len(first), np.nan)
    if len(kept):
        amounts = np.full((unit_of.max() + 1, place_of.max() + 1), np.nan)
        amounts[unit_of, place_of] = parts[kept]
        targets = np.ones(len(amounts))
        targets[unit_of] = np.maximum(np.nan_to_num(whole[kept]), 0.01)  # alike within a set but for rates
        found[kept] = sums.gaps(amounts, targets, most=most)[unit_of, place_of]
    return found


def _rivals(transfer: Numbers, paid: Floats, owed: Floats) -> Numbers:
    fits = np.abs(owed - paid) <= _ALIKE * np.maximum(paid, 0.01)
    return np.asarray(np.bincount(transfer, weights=fits)[transfer] - fits, dtype=np.int64)


def _labels(ledger: Ledger, pairs: Pairs) -> Floats:
    """1 and 0; NaN where nobody has looked at the transfer."""
    matches = ledger.matches
    transfer = _places(matches["transfer_id"], ledger.transfers["transfer_id"])
    invoice = _places(matches["invoice_id"], ledger.invoices["invoice_id"])
    true = np.isin(
        pairs["transfer"].astype(np.int64) << 32 | pairs["invoice"], (transfer << 32 | invoice)[(transfer >= 0) & (invoice >= 0)]
    )
    return np.where(np.isin(pairs["transfer"], transfer), true.astype(np.float64), np.nan)


def _places(values: pa.ChunkedArray, among: pa.ChunkedArray) -> Numbers:
    found = pc.fill_null(pc.index_in(values, value_set=among.combine_chunks(), skip_nulls=True), -1)
    return np.asarray(found, dtype=np.int64)


def _codes(values: pa.Array | pa.ChunkedArray) -> Numbers:
    """A number for each distinct value."""
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return np.asarray(pc.fill_null(flat.dictionary_encode().indices, -1), dtype=np.int64)


def main() -> None:
    """Write candidate pairs of your own tables to a Parquet file, for `millrace batch --input`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--invoices", type=Path, required=True)
    parser.add_argument("--transfers", type=Path, required=True)
    parser.add_argument("--matches", type=Path, help="what was matched before")
    parser.add_argument("--since", type=datetime.fromisoformat, help="first day, YYYY-MM-DD")
    parser.add_argument("--until", type=datetime.fromisoformat, help="first day that is too late")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    files = {name: str(getattr(arguments, name)) for name in ("invoices", "transfers", "matches") if getattr(arguments, name)}
    with pq.ParquetWriter(arguments.out, SCHEMA) as writer:
        for batch in rows(since=arguments.since, until=arguments.until, files=files):
            writer.write_batch(batch)


if __name__ == "__main__":
    main()
