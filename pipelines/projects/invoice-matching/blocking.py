"""Which invoices may a transfer pay? A handful for each, found without comparing all with all.

Story: every transfer and every invoice gets keys, numbers that stand for something both may have in common: a run of digits, the same run with
one digit left out (which a mistyped number still shares), an amount, the beginning or the end of a word of a name. What shares a key may
belong together, and only that is looked at. Amounts and names hold for a stretch of time only, and a key that more than
`Limits.block` invoices share says nothing and is left out. Of all that a transfer shares keys with, the best `Limits.candidates` remain.

Pure numpy on whole columns. `found` does it in this process; `beam_blocking.py` runs the same three functions (`keys_of_transfers` and
`keys_of_invoices`, `joined`, `best`) on Beam, key by key and transfer by transfer, and finds the same.

Blocking, and why keys rather than windows: Papadakis et al., "Blocking and Filtering Techniques for Entity Resolution", 2020. One letter left out on
both sides finds one error: Bocek, Hunt and Stiller, "Fast Similarity Search in Large Dictionaries", 2007.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from ledger import DAY, Ledger

Keys = npt.NDArray[np.void]
"""One entry for each key of each row; see `KEYS`."""
Pairs = npt.NDArray[np.void]
"""One entry for each pair; see `PAIRS`."""
KEYS = np.dtype(
    [("key", "u8"), ("row", "i4"), ("clue", "u1"), ("day", "i4"), ("until", "i4"), ("currency", "u4"), ("amount", "f8"), ("home", "f8")]
)
"""`day`: booked or issued. `until`: the day on which an invoice was closed; of a transfer, the last on which it must not have been."""
PAIRS = np.dtype([("transfer", "i4"), ("invoice", "i4"), ("clues", "u1"), ("worth", "i4"), ("age", "i4"), ("off", "f4")])
"""Row numbers, a bit for each clue in common, what the shared keys are worth, days from issue to booking, and how far the amounts lie apart
(a difference of logarithms)."""
NUMBER, NEAR_NUMBER, AMOUNT, NAME_START, NAME_END = 1, 2, 4, 8, 16
_RARE = 10_000
"""A key that k invoices share is worth the logarithm of this over k, in hundredths: whole numbers add up alike in any order."""
_CLOSE, _CLOSE_WORTH = 0.02, 600
"""Amounts that lie so near to each other count like half a key."""
_DAY_WORTH = 2
NEVER = np.int32(2**31 - 1)
_AT_ONCE = 4_000_000
_AMOUNT_SLOT, _NAME_SLOT = 32, 45
"""Days that share a slot."""
_WORDS = re.compile(r"[a-z]{4,}")
_RUNS = re.compile(r"[0-9]+")
_GLUED = re.compile(r"(?<=[0-9])[ /.\-](?=[0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far to look."""

    candidates: int = 12
    """Invoices that remain for a transfer, those that share most."""
    block: int = 100
    """Invoices that may share a key."""
    oldest_days: int = 200
    """An invoice is not looked for longer than this after its issue."""
    ahead_days: int = 3
    """A transfer may be booked so many days before the invoice is issued."""


def found(ledger: Ledger, limits: Limits, monthly: bool = True) -> Pairs:
    """The candidates of every transfer, sorted by transfer and invoice; see `PAIRS`."""
    keys = np.concatenate([keys_of_transfers(ledger.transfers, 0, monthly=monthly), keys_of_invoices(ledger.invoices, 0)])
    return best(joined(keys, limits), limits)


def keys_of_transfers(transfers: pa.Table, first_row: int, *, monthly: bool = True) -> Keys:
    """Keys of rows that are numbered from `first_row`; invoices of another side get theirs from `keys_of_invoices`.

    With `monthly`, an invoice counts as open that was so when the transfer's month began, since that is when books are closed; without, when
    the transfer's day began.
    """
    day = days_of(transfers["booked_at"])
    until = month_starts(day) if monthly else day
    facts = _facts(transfers, day, until)
    parts = [*_numbers(facts, transfers["reference"])]
    parts += [_amounts(facts, slots) for slots in range(6)]
    parts += list(_names(facts, transfers["payer"], slots=range(5)))
    keys = np.concatenate(parts)
    keys["row"] += first_row
    keys["row"] = -1 - keys["row"]  # below zero: a transfer
    return keys


def keys_of_invoices(invoices: pa.Table, first_row: int) -> Keys:
    """Keys of rows that are numbered from `first_row`."""
    closed = invoices["closed_at"].combine_chunks()
    until = np.where(np.asarray(closed.is_null()), NEVER, days_of(closed.fill_null(pa.scalar(0, closed.type))))
    facts = _facts(invoices, days_of(invoices["issued_at"]), until.astype(np.int32))
    keys = np.concatenate([*_numbers(facts, invoices["number"]), _amounts(facts, 0), *_names(facts, invoices["customer"], slots=range(1))])
    keys["row"] += first_row
    return keys


def joined(keys: Keys, limits: Limits) -> Pairs:
    """Every pair that shares one of `keys`, once, with all clues that it shares among them. All entries of a key must be here."""
    invoices = keys[keys["row"] >= 0]
    invoices = invoices[np.argsort(invoices["key"], kind="stable")]
    known, first, count = np.unique(invoices["key"], return_index=True, return_counts=True)
    transfers = keys[keys["row"] < 0]
    place = np.minimum(np.searchsorted(known, transfers["key"]), max(0, len(known) - 1))
    useful = (known[place] == transfers["key"]) & (count[place] <= limits.block) if len(known) else np.zeros(len(transfers), np.bool_)
    transfers, place = transfers[useful], place[useful]
    parts = [_possible(*each, limits) for each in _side_by_side(transfers, invoices, first[place], count[place])]
    return _merged(np.concatenate([np.zeros(0, PAIRS), *parts]))


def best(pairs: Pairs, limits: Limits) -> Pairs:
    """Each transfer's best pairs. All pairs of a transfer must be here; one that comes several times counts once, with all its clues."""
    merged = _merged(pairs)
    worth = merged["worth"] + np.where(np.abs(merged["off"]) < _CLOSE, _CLOSE_WORTH, 0) - _DAY_WORTH * np.abs(merged["age"])
    order = np.lexsort((merged["invoice"], -worth, merged["transfer"]))
    transfer = merged["transfer"][order]
    starts = np.flatnonzero(np.concatenate([[True], transfer[1:] != transfer[:-1]])) if len(transfer) else np.zeros(0, np.int64)
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    chosen = merged[order[place < limits.candidates]]
    return chosen[np.lexsort((chosen["invoice"], chosen["transfer"]))]


def days_of(times: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Days since 1970 of timestamps in seconds."""
    return (np.asarray(times.cast(pa.int64())) // DAY).astype(np.int32)


def month_starts(days: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The first day of each day's month."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]").astype(np.int32)


def _side_by_side(
    transfers: Keys, invoices: Keys, first: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> Iterator[tuple[Keys, Keys, npt.NDArray[np.int64]]]:
    """Each transfer beside the `count` invoices from `first` on, and how many those are; a few million at a time."""
    upto = np.cumsum(count)
    cuts = np.searchsorted(upto, np.arange(_AT_ONCE, upto[-1] if len(upto) else 0, _AT_ONCE))
    for places in np.split(np.arange(len(transfers)), cuts):
        many = count[places]
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        yield transfers[np.repeat(places, many)], invoices[np.repeat(first[places], many) + within], np.repeat(many, many)


def _possible(transfers: Keys, invoices: Keys, sharers: npt.NDArray[np.int64], limits: Limits) -> Pairs:
    age = transfers["day"] - invoices["day"]
    fits = (age >= -limits.ahead_days) & (age <= limits.oldest_days) & (invoices["until"] >= transfers["until"])
    transfers, invoices = transfers[fits], invoices[fits]
    same = transfers["currency"] == invoices["currency"]
    pairs = np.zeros(len(same), PAIRS)
    pairs["transfer"], pairs["invoice"], pairs["age"] = -1 - transfers["row"], invoices["row"], age[fits]
    pairs["clues"], pairs["worth"] = transfers["clue"], np.round(np.log(_RARE / sharers[fits]) * 100.0)
    pairs["off"] = np.where(same, transfers["amount"] - invoices["amount"], transfers["home"] - invoices["home"])
    return pairs


def _merged(pairs: Pairs) -> Pairs:
    """Each pair once, with all clues that it came with and the sum of what they are worth."""
    if not len(pairs):
        return pairs
    code = pairs["transfer"].astype(np.int64) << 32 | pairs["invoice"]
    order = np.argsort(code, kind="stable")
    ordered, code = pairs[order], code[order]
    starts = np.flatnonzero(np.concatenate([[True], code[1:] != code[:-1]]))
    once = ordered[starts]
    once["clues"] = np.bitwise_or.reduceat(ordered["clues"], starts)
    once["worth"] = np.add.reduceat(ordered["worth"], starts)
    return once


def _facts(table: pa.Table, day: npt.NDArray[np.int32], until: npt.NDArray[np.int32]) -> Keys:
    """An entry for each row that knows everything but a key."""
    facts = np.zeros(table.num_rows, KEYS)
    facts["row"] = np.arange(table.num_rows)
    facts["day"], facts["until"] = day, until
    facts["currency"] = _hashed(table["currency"].to_pylist()).astype(np.uint32)
    for name, column in (("amount", "amount"), ("home", "home_amount")):
        facts[name] = np.log(np.maximum(np.abs(np.asarray(table[column].fill_null(0.0), dtype=np.float64)), 0.005))
    return facts


def _numbers(facts: Keys, texts: pa.ChunkedArray) -> Iterator[Keys]:
    """Runs of digits, as they are and with one digit left out; those only beside an amount of the same size, since many share them."""
    exact, rows = _spread(texts, digit_runs)
    yield _entries(facts, rows, _hashed([run.lstrip("0") for run in exact]), NUMBER)
    near = [(run[:at] + run[at + 1 :], row) for run, row in zip(exact, rows, strict=True) if 5 <= len(run) <= 12 for at in range(len(run))]
    near += [(run, row) for run, row in zip(exact, rows, strict=True) if 5 <= len(run) <= 12]
    hashes, owners = _hashed([text for text, _ in near]), np.array([row for _, row in near], dtype=np.int64)
    for shift in (0, 1):  # neighbouring sizes share one of two keys
        size = np.floor(facts["home"][owners] * 5.0 + shift * 0.5).astype(np.int64)
        yield _entries(facts, owners, _mixed(hashes, size * 2 + shift), NEAR_NUMBER)


def _amounts(facts: Keys, slots_back: int) -> Keys:
    """The amount in its currency, beside when the invoice was issued: so many slots before the row's own day."""
    cents = np.round(np.exp(facts["amount"]) * 100.0).astype(np.int64)
    slot = facts["day"].astype(np.int64) // _AMOUNT_SLOT - slots_back
    everyone = np.arange(len(facts))
    return _entries(facts, everyone, _mixed(_mixed(facts["currency"].astype(np.uint64), cents), slot), AMOUNT)


def _names(facts: Keys, texts: pa.ChunkedArray, *, slots: range) -> Iterator[Keys]:
    """The first and the last four letters of each word, beside when the invoice was issued."""
    words, rows = _spread(texts, lambda text: _WORDS.findall(text.lower()))
    for clue, pieces in ((NAME_START, [word[:4] for word in words]), (NAME_END, [word[-4:] for word in words])):
        hashes = _hashed(pieces)
        for back in slots:
            slot = facts["day"][rows].astype(np.int64) // _NAME_SLOT - back
            yield _entries(facts, rows, _mixed(hashes, slot), clue)


def digit_runs(text: str) -> list[str]:
    """`INV 2024/4711` → `2024`, `4711`, `20244711`: the runs of three digits and more, and what neighbours make together."""
    runs = [run for run in _RUNS.findall(text) if len(run) >= 3]
    return list(dict.fromkeys([*runs, *(run for run in _RUNS.findall(_GLUED.sub("", text)) if len(run) >= 5)]))


def _spread(texts: pa.ChunkedArray, taken_apart: Callable[[str], Sequence[str]]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The pieces of all texts, and the row of each."""
    pieces = [taken_apart(text or "") for text in texts.to_pylist()]
    return [piece for each in pieces for piece in each], np.repeat(np.arange(len(pieces)), [len(each) for each in pieces])


def _entries(facts: Keys, rows: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64], clue: int) -> Keys:
    entries = facts[rows]
    entries["key"] = _mixed(hashes, np.int64(clue))
    entries["clue"] = clue
    return entries


def _hashed(texts: Sequence[str | None]) -> npt.NDArray[np.uint64]:
    """A hash of each text that is the same in every process."""
    return pd.util.hash_array(np.array([text or "" for text in texts], dtype=object), categorize=True)


def _mixed(hashes: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int64] | np.int64) -> npt.NDArray[np.uint64]:
    """Hashes that depend on both (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        value = hashes + np.asarray(numbers).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        return np.asarray((value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
