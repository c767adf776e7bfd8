"""Invoices and bank transfers that never happened, with what makes matching them hard.

Story: `pairs.rows`, the project's source, asks for a ledger; without files of your own it comes from here. Customers are invoiced, most pay
in one transfer, some in instalments, some for several invoices at once, some never, and some in another currency, of which
a bank on the way keeps a fee. Strangers' transfers come in between. `payment_texts` says how all of them write. The same seed gives the same
ledger.

By hand: `python generator.py --invoices 6000 --out FOLDER` writes invoices.parquet, transfers.parquet and matches.parquet.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import payment_texts
import pyarrow as pa
import pyarrow.parquet as pq
from ledger import DAY, INVOICES, MATCHES, TRANSFERS, Ledger

HOME = "GBP"
RATES = {"GBP": 1.0, "EUR": 0.86, "USD": 0.79, "SEK": 0.075}
"""What a unit of each currency is worth at home, before it moves."""
FATES = (("single", 0.63), ("instalments", 0.1), ("together", 0.2), ("never", 0.07))
STRANGERS = 0.08
"""Transfers that pay no invoice, for each one that does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Who is invoiced, and how they are."""

    number: int
    name: str
    currency: str
    pays_in: str
    slow_days: float
    """Days from the due date on which they usually pay."""
    subscription: float | None
    """The amount that is invoiced month after month, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """One invoice, before anybody pays."""

    number: str
    customer: Customer
    issued: int
    due: int
    amount: float
    fate: str


@dataclass(slots=True)
class _Books:
    """What grows while the ledger is invented."""

    transfers: list[tuple[Any, ...]] = field(default_factory=list)
    matches: list[tuple[str, str | None, float | None]] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)


def ledger(*, invoices: int = 6_000, seed: int = 7, days: int = 540, start: str = "2024-01-01") -> Ledger:
    """Invent `invoices` invoices over `days`, and the transfers that follow.

    Raises:
        ValueError: a number is out of range.
    """
    if invoices < 1 or days < 1:
        raise ValueError(f"invoices and days must be at least 1, not {invoices} and {days}")
    rng = random.Random(seed)
    first = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp())
    customers = [_customer(number, rng) for number in range(max(4, invoices // 25))]
    written = _invoices(customers, invoices, days, first, rng)
    books = _Books()
    for together in _payments(written, rng):
        _pay(together, books, rng)
    for _ in range(int(len(books.transfers) * STRANGERS)):
        payer, text = payment_texts.stranger(rng)
        amount = round(rng.lognormvariate(6.0, 1.2), 2)
        name = _book(books, (first + rng.randrange(days * DAY), payer, text, amount, HOME, amount))
        books.matches.append((name, None, None))
    return _tables(written, books)


def _customer(number: int, rng: random.Random) -> Customer:
    currency = rng.choices(list(RATES), [0.86, 0.09, 0.05, 0.0])[0]
    return Customer(
        number=10_000 + number,
        name=payment_texts.company_name(rng),
        currency=currency,
        pays_in=rng.choices([currency, *RATES], [0.9, 0.03, 0.03, 0.02, 0.02])[0],
        slow_days=rng.gauss(2.0, 9.0),
        subscription=round(rng.lognormvariate(5.0, 0.8), 2) if rng.random() < 0.3 else None,
    )


def _invoices(customers: Sequence[Customer], count: int, days: int, first: int, rng: random.Random) -> list[Invoice]:
    weights = [1.0 / (place + len(customers) / 40.0) for place in range(len(customers))]
    whose = rng.choices(customers, weights, k=count)
    at = sorted(first + int(rng.random() * days * DAY) for _ in range(count))
    fates = rng.choices([name for name, _ in FATES], [share for _, share in FATES], k=count)
    return [_invoice(place, *each, rng) for place, each in enumerate(zip(whose, at, fates, strict=True))]


def _invoice(place: int, customer: Customer, at: int, fate: str, rng: random.Random) -> Invoice:
    amount = round(rng.lognormvariate(6.2, 1.1), 2)
    if customer.subscription is not None and rng.random() < 0.6:
        amount = customer.subscription
    elif rng.random() < 0.2:
        amount = float(max(10, round(amount, -1)))
    year = datetime.fromtimestamp(at, UTC).year
    return Invoice(
        number=f"INV-{year}-{place + 1:06d}",
        customer=customer,
        issued=at,
        due=at + rng.choice((14, 30, 30, 60)) * DAY,
        amount=amount,
        fate=fate,
    )


def _payments(written: Sequence[Invoice], rng: random.Random) -> Iterator[list[Invoice]]:
    """The invoices that are paid in one go: one alone, or up to four of a customer that wait for each other."""
    waiting: dict[int, list[Invoice]] = {}
    for invoice in written:
        if invoice.fate == "never":
            continue
        if invoice.fate != "together":
            yield [invoice]
            continue
        mine = waiting.setdefault(invoice.customer.number, [])
        if mine and (len(mine) == 4 or invoice.issued - mine[0].issued > 45 * DAY or rng.random() < 0.15):
            yield mine
            mine = waiting[invoice.customer.number] = []
        mine.append(invoice)
    yield from (mine for mine in waiting.values() if mine)


def _pay(invoices: Sequence[Invoice], books: _Books, rng: random.Random) -> None:
    customer = invoices[0].customer
    late = max(2.0, (invoices[0].due - invoices[-1].issued) / DAY + rng.gauss(customer.slow_days, 6.0))
    at = invoices[-1].issued + int(late * DAY)
    if invoices[0].fate != "instalments":
        _transfer(invoices, [invoice.amount for invoice in invoices], at, books, rng)
        return
    share, count = rng.choice(((0.5, 2), (0.3, 2), (1 / 3, 3), (0.25, 3)))
    parts = [round(invoices[0].amount * share, 2)] * (count - 1)
    for part in [*parts, round(invoices[0].amount - sum(parts), 2)]:
        _transfer(invoices, [part], at, books, rng)
        at += int(rng.choice((5, 14, 30)) * DAY + rng.random() * 3 * DAY)


def _transfer(invoices: Sequence[Invoice], amounts: Sequence[float], at: int, books: _Books, rng: random.Random) -> None:
    customer = invoices[0].customer
    total = round(sum(amounts), 2)
    if invoices[0].fate == "single" and customer.currency == HOME and rng.random() < 0.04:
        total = round(total * 0.98, 2)  # a discount for paying early
    paid = total
    if customer.pays_in != customer.currency:
        paid = round(total * RATES[customer.currency] / RATES[customer.pays_in] * rng.gauss(1.0, 0.008), 2)
    if customer.pays_in != HOME and rng.random() < 0.4:
        paid = round(max(paid - rng.choice((15.0, 20.0, 25.0)), 0.5 * paid), 2)  # what a bank on the way keeps
    home = paid if customer.pays_in == HOME else round(paid * RATES[customer.pays_in] * rng.gauss(1.0, 0.008), 2)
    text = payment_texts.reference([invoice.number for invoice in invoices], customer.number, rng)
    name = _book(books, (at, payment_texts.printed_name(customer.name, rng), text, paid, customer.pays_in, home))
    for invoice, amount in zip(invoices, amounts, strict=True):
        books.matches.append((name, invoice.number, amount))
        books.closed[invoice.number] = at  # the last one closes it


def _book(books: _Books, transfer: tuple[Any, ...]) -> str:
    name = f"T{len(books.transfers):07d}"
    books.transfers.append((name, *transfer))
    return name


def _tables(written: Sequence[Invoice], books: _Books) -> Ledger:
    invoices = [
        (*_written_down(invoice), round(invoice.amount * RATES[invoice.customer.currency], 2), books.closed.get(invoice.number))
        for invoice in written
    ]
    return Ledger(
        invoices=_table(invoices, INVOICES),
        transfers=_table(sorted(books.transfers, key=lambda row: (row[1], row[0])), TRANSFERS),
        matches=_table(books.matches, MATCHES),
    )


def _written_down(invoice: Invoice) -> tuple[Any, ...]:
    customer = invoice.customer
    head = (invoice.number, invoice.number, str(customer.number), customer.name)
    return (*head, invoice.issued, invoice.due, invoice.amount, customer.currency)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table([_column(values, kind.type) for values, kind in zip(columns, schema, strict=True)], schema=schema)


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def main() -> None:
    """Write a generated ledger as three Parquet files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--invoices", type=int, default=6_000)
    parser.add_argument("--days", type=int, default=540)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", default="2024-01-01", help="first day, YYYY-MM-DD")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    arguments = parser.parse_args()
    made = ledger(invoices=arguments.invoices, seed=arguments.seed, days=arguments.days, start=arguments.start)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("invoices", "transfers", "matches"):
        pq.write_table(getattr(made, name), arguments.out / f"{name}.parquet")
    print(f"{made.invoices.num_rows:,} invoices, {made.transfers.num_rows:,} transfers in {arguments.out}")


if __name__ == "__main__":
    main()
