"""What matching works on: invoices, transfers, and which transfer paid which invoice, as far as somebody has said.

Three Arrow tables, generated (`generator.py`) or read from your own Parquet files. `blocking.py` finds candidates in them, `pairs.py` makes
rows of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

DAY = 86_400
INVOICES = pa.schema(
    [
        ("invoice_id", pa.string()),
        ("number", pa.string()),
        ("customer_id", pa.string()),
        ("customer", pa.string()),
        ("issued_at", pa.timestamp("s", tz="UTC")),
        ("due_at", pa.timestamp("s", tz="UTC")),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("home_amount", pa.float64()),
        ("closed_at", pa.timestamp("s", tz="UTC")),
    ]
)
"""`amount` in `currency`; `home_amount` is its book value in the currency of the bank account; `closed_at` is null while anything is open."""
TRANSFERS = pa.schema(
    [
        ("transfer_id", pa.string()),
        ("booked_at", pa.timestamp("s", tz="UTC")),
        ("payer", pa.string()),
        ("reference", pa.string()),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("home_amount", pa.float64()),
    ]
)
"""`amount` in the payer's `currency`, as the bank statement tells it; `home_amount` is what was booked."""
MATCHES = pa.schema([("transfer_id", pa.string()), ("invoice_id", pa.string()), ("amount", pa.float64())])
"""What people matched: `amount` in the invoice's currency. A transfer that was looked at and pays nothing has one row without an invoice."""
_SCHEMAS = {"invoices": INVOICES, "transfers": TRANSFERS, "matches": MATCHES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The three tables."""

    invoices: pa.Table
    transfers: pa.Table
    matches: pa.Table


def read_ledger(files: Mapping[str, str]) -> Ledger:
    """Your own tables.

    Args:
        files: a Parquet file for `invoices` and `transfers`, and, except where nothing was ever matched, for `matches`.

    Raises:
        ValueError: a table or a column is missing, or cannot be read as its type; the text names it.
    """
    unknown = sorted(set(files) - set(_SCHEMAS))
    if unknown or not {"invoices", "transfers"} <= set(files):
        raise ValueError(f"source.options.files names {', '.join(files) or 'nothing'}; it takes invoices, transfers and (optional) matches")
    return Ledger(**{name: _table(files.get(name), name, schema) for name, schema in _SCHEMAS.items()})


def _table(file: str | None, name: str, schema: pa.Schema) -> pa.Table:
    if file is None:
        return schema.empty_table()
    table = pq.read_table(file, partitioning=None)
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise ValueError(f"{file}, the table of {name}, has no column {missing[0]!r}; it needs {', '.join(schema.names)}")
    try:
        return table.select(schema.names).cast(schema).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{file}, the table of {name}: {error}") from error
