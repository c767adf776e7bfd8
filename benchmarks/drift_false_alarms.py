"""How often the monitor alarms about drift: where there is none, and where there is.

Three public tables, whose random halves are one distribution by construction. One half is described as training describes it (TensorFlow Data
Validation); n rows of the other are what was asked. A trial is quiet when no column alarms, neither for its values nor for what is missing. Then the
same rows are changed, each time in one way that happens in practice, and a trial counts when the column that was changed alarms.

Beside it stands what one would write first, in the same trials: the same distances against the threshold alone, whatever the number of rows.

    python benchmarks/drift_false_alarms.py [--splits 10] [--trials 40] [--output benchmarks/results/drift_false_alarms.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlpipelines.steps.statistics import describe
from mlserving.monitor.counting import ColumnCounter
from mlserving.monitor.drift import ColumnDrift, compare
from mlserving.monitor.settings import MonitorSettings
from mlserving.statistics.columns import Column, columns_of

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MILLRACE_DATA", ROOT.parent / "shared" / "data"))
ROWS = (200, 1000, 5000)
CHANGED_ONCE_IN = 4
"""Changes are tried in one of so many trials: whether they are seen is plainer than whether chance is."""

Change = Callable[[pa.Table, np.random.Generator, int], pa.Table]
"""From all rows of the other half to the n rows that are asked."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A change, and the column that must alarm."""

    told: str
    column: str
    change: Change


@dataclass(frozen=True, slots=True)
class World:
    """A table, and what is done to it."""

    name: str
    file: str
    left_out: tuple[str, ...]
    injected: tuple[Injected, ...]

    def read(self) -> pa.Table:
        """The columns that a model would see."""
        table = pq.read_table(DATA / self.file).replace_schema_metadata(None)
        table = table.drop_columns([name for name in self.left_out if name in table.column_names])
        return pa.table({name: _simple(table[name]) for name in table.column_names})


def _simple(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As `ingest` writes it."""
    if pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    return column.cast(pa.float32()) if pa.types.is_floating(column.type) else column.cast(pa.int64())


def sampled(rows: pa.Table, random: np.random.Generator, n: int) -> pa.Table:
    """N rows, none twice."""
    return rows.take(pa.array(random.choice(rows.num_rows, n, replace=False)))


def respelled(column: str, share: float) -> Change:
    """A client spells the most frequent value in another way, in a share of its rows."""

    def change(rows: pa.Table, random: np.random.Generator, n: int) -> pa.Table:
        taken = sampled(rows, random, n)
        first = _frequent(rows, column)[0]
        other = first.upper() + "." if isinstance(first, str) else first + 100
        chosen = random.random(n) < share
        values = taken[column].to_pylist()
        return _with(taken, column, [other if hit and value == first else value for value, hit in zip(values, chosen, strict=True)])

    return change


def swapped(column: str) -> Change:
    """The two most frequent values take each other's place."""

    def change(rows: pa.Table, random: np.random.Generator, n: int) -> pa.Table:
        taken = sampled(rows, random, n)
        first, second = _frequent(rows, column)[:2]
        return _with(taken, column, [{first: second, second: first}.get(value, value) for value in taken[column].to_pylist()])

    return change


def _frequent(rows: pa.Table, column: str) -> list[Any]:
    counts = pc.value_counts(rows[column].combine_chunks()).to_pylist()
    return [entry["values"] for entry in sorted(counts, key=lambda entry: -entry["counts"]) if entry["values"] is not None]


def scaled(column: str, factor: float) -> Change:
    """Every value times a factor: another currency, or a unit."""

    def change(rows: pa.Table, random: np.random.Generator, n: int) -> pa.Table:
        taken = sampled(rows, random, n)
        return _with(taken, column, [None if value is None else type(value)(value * factor) for value in taken[column].to_pylist()])

    return change


def missing(column: str, share: float) -> Change:
    """A client forgets the value in a share of the rows."""

    def change(rows: pa.Table, random: np.random.Generator, n: int) -> pa.Table:
        taken = sampled(rows, random, n)
        kept = random.random(n) >= share
        return _with(taken, column, [value if keep else None for value, keep in zip(taken[column].to_pylist(), kept, strict=True)])

    return change


def heavier(column: str, value: str, factor: float) -> Change:
    """Rows of one kind come `factor` times as often as they did: covariate shift."""

    def change(rows: pa.Table, random: np.random.Generator, n: int) -> pa.Table:
        weights = np.where(np.array(rows[column].to_pylist()) == value, factor, 1.0)
        return rows.take(pa.array(random.choice(rows.num_rows, n, replace=False, p=weights / weights.sum())))

    return change


def _with(table: pa.Table, column: str, values: list[Any]) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, pa.array(values, table.schema.field(column).type))


WORLDS = (
    World(
        "Birmingham transactions",
        "transactions/birmingham_purchase_card.parquet",
        ("trans_date", "card_masked", "account_code", "category", "source_file", "cost_centre_code", "label"),
        (
            Injected("VAT codes swapped", "vat_desc", swapped("vat_desc")),
            Injected("VAT code respelled in half its rows", "vat_desc", respelled("vat_desc", 0.5)),
            Injected("amounts × 1.5", "gross_amount", scaled("gross_amount", 1.5)),
            Injected("amounts × 3", "gross_amount", scaled("gross_amount", 3)),
            Injected("amount missing in 30 %", "gross_amount", missing("gross_amount", 0.3)),
            Injected("one directorate three times as often", "directorate", heavier("directorate", "CYP&F SCHOOLS", 3)),
        ),
    ),
    World(
        "UCI credit default",
        "tabular/uci_credit_default.parquet",
        ("ID", "DEFAULT_PAYMENT_NEXT_MONTH"),
        (
            Injected("education codes swapped", "EDUCATION", swapped("EDUCATION")),
            Injected("education respelled in half its rows", "EDUCATION", respelled("EDUCATION", 0.5)),
            Injected("limits × 1.5", "LIMIT_BAL", scaled("LIMIT_BAL", 1.5)),
            Injected("limits × 3", "LIMIT_BAL", scaled("LIMIT_BAL", 3)),
            Injected("bill missing in 30 %", "BILL_AMT1", missing("BILL_AMT1", 0.3)),
            Injected("university education three times as often", "EDUCATION", heavier("EDUCATION", 2, 3)),  # type: ignore[arg-type]  # a code
        ),
    ),
    World(
        "Adult",
        "tabular/adult.parquet",
        ("label", "split"),
        (
            Injected("education swapped", "education", swapped("education")),
            Injected("education respelled in half its rows", "education", respelled("education", 0.5)),
            Injected("hours × 1.5", "hours-per-week", scaled("hours-per-week", 1.5)),
            Injected("occupation missing in 30 %", "occupation", missing("occupation", 0.3)),
            Injected("women three times as often", "sex", heavier("sex", "Female", 3)),
        ),
    ),
)  # fmt: skip


def described(rows: pa.Table) -> Mapping[str, Column]:
    """As a version carries its training."""
    return columns_of(describe(rows.combine_chunks().to_batches(max_chunksize=65_536), "train").datasets[0])


def measured(training: Mapping[str, Column], asked: pa.Table, settings: MonitorSettings) -> list[ColumnDrift]:
    """What the monitor says of these rows."""
    found = []
    for name, reference in training.items():
        counter = ColumnCounter(reference=reference)
        for chunk in asked[name].chunks:
            counter.add(chunk)
        found.append(
            compare(
                f"feature/{name}", reference, counter.column(), settings=settings, false_alarm=settings.false_alarms / (2 * len(training))
            )
        )
    return found


def alarms(found: list[ColumnDrift]) -> set[str]:
    """The columns that alarm."""
    return {column.column.partition("/")[2] for column in found if column.drifted or column.missing_moved}


def naive(found: list[ColumnDrift]) -> set[str]:
    """The same against the thresholds alone."""
    bare = [replace(column, noise=0.0) for column in found]
    return {column.column.partition("/")[2] for column in bare if column.drifted}


def halves(table: pa.Table, seed: int) -> tuple[pa.Table, pa.Table]:
    """Two random halves."""
    order = np.random.default_rng(seed).permutation(table.num_rows)
    middle = table.num_rows // 2
    return table.take(pa.array(order[:middle])), table.take(pa.array(order[middle:]))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--splits", type=int, default=5, help="random halves of each table")
    parser.add_argument("--trials", type=int, default=40, help="of each number of rows, for each split")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, each with its halves of a table")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "drift_false_alarms.json")
    arguments = parser.parse_args()
    began = time.monotonic()
    tasks = [(place, split) for split in range(arguments.splits) for place in range(len(WORLDS))]
    with ProcessPoolExecutor(arguments.workers) as workers:
        found = [workers.submit(tried, place, split, arguments.trials) for place, split in tasks]
        results = summed([(place, each.result()) for (place, _), each in zip(tasks, found, strict=True)])
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    shape = {"splits": arguments.splits, "trials": arguments.trials, "seconds": round(time.monotonic() - began)}
    arguments.output.write_text(
        json.dumps({"machine": machine, **shape, "settings": MonitorSettings().model_dump(), "results": results}, indent=2) + "\n"
    )
    for row in results:
        print(
            f"{row['table']:<24} {row['what']:<42} {row['rows']:>5} rows  {row['alarmed']:>4} of {row['trials']}  threshold alone {row['naive']:>4}"
        )
    print(f"Written to {arguments.output}")
    return 0


Counts = dict[tuple[str, int], tuple[int, int, int]]
"""By what was done and the number of rows: trials, those that alarmed, those that the threshold alone alarmed in."""


def tried(place: int, split: int, trials: int) -> Counts:
    """Every case of one pair of halves of a table: nothing changed, then each change."""
    world, settings = WORLDS[place], MonitorSettings()
    before, after = halves(world.read(), split)
    training = described(before)
    cases: list[tuple[str, str | None, Change]] = [
        ("nothing changed", None, sampled),
        *((i.told, i.column, i.change) for i in world.injected),
    ]
    counts: Counts = {(told, rows): (0, 0, 0) for told, _, _ in cases for rows in ROWS}
    for rows in ROWS:
        for trial in range(trials):
            for told, column, change in cases if trial % CHANGED_ONCE_IN == 0 else cases[:1]:
                found = measured(training, change(after, np.random.default_rng([split, rows, trial]), rows), settings)
                said = [bool(each) if column is None else column in each for each in (alarms(found), naive(found))]
                known = counts[told, rows]
                counts[told, rows] = (known[0] + 1, known[1] + said[0], known[2] + said[1])
    return counts


def summed(all_counts: list[tuple[int, Counts]]) -> list[dict[str, Any]]:
    """Over the splits of each table."""
    rows: dict[tuple[int, str, int], list[int]] = {}
    for place, counts in all_counts:
        for (told, n), found in counts.items():
            known = rows.setdefault((place, told, n), [0, 0, 0])
            rows[place, told, n] = [a + b for a, b in zip(known, found, strict=True)]
    return [
        {"table": WORLDS[place].name, "what": told, "rows": n, "trials": trials, "alarmed": alarmed, "naive": bare}
        for (place, told, n), (trials, alarmed, bare) in rows.items()
    ]


if __name__ == "__main__":
    raise SystemExit(main())
