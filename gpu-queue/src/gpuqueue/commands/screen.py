"""Tables and words on a terminal; JSON where a program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Standard output; as wide as it likes where nobody looks."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def print_json(thing: Any) -> None:
    """For programs."""
    print(msgspec.json.format(msgspec.json.encode(thing), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table; columns whose name begins with `#` hold numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix("#"), justify="right" if column.startswith("#") else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console().print(table)


def say(text: str = "") -> None:
    """A line."""
    console().print(text, soft_wrap=True)


def complain(text: str) -> None:
    """A line for whoever made a mistake."""
    Console(stderr=True, highlight=False, markup=False).print(text, soft_wrap=True)
