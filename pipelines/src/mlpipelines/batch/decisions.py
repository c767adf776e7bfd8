"""What follows from the scores of many rows together, where a project says it: `decisions.py` in its folder.

A model scores each row by itself, and some answers are not one row's: which invoice a transfer pays depends on all invoices and all transfers.
The project's `decide` gets the rows that a run scored as one table, with the columns that it names, and returns what is decided
(`mlpipelines.project_code` has the contract). It is written once for each run, as cases are: `_decisions/<run>.parquet`, and a copy as
`decisions.parquet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlpipelines.batch.delivery import put_in_sight
from mlpipelines.batch.output import Output, written_whole
from mlpipelines.batch.scoring import open_parquet
from mlpipelines.errors import ConfigError
from mlpipelines.project_code import load_code

MODULE = "decisions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """A project's `decisions.py`."""

    file: Path
    columns: tuple[str, ...]
    """Columns of the input that are carried along for it."""
    decide: Callable[[pa.Table], pa.Table]


def decisions_of(project_dir: Path) -> Decisions | None:
    """The project's `decisions.py`; None where it has none.

    Raises:
        ConfigError: it fails on import, or lacks `COLUMNS` or `decide`.
    """
    file = project_dir / f"{MODULE}.py"
    if not file.is_file():
        return None
    module = load_code(project_dir, MODULE)
    columns, decide = getattr(module, "COLUMNS", None), getattr(module, "decide", None)
    if not isinstance(columns, tuple) or not callable(decide):
        raise ConfigError(
            f"{file} needs COLUMNS, a tuple of the columns that it reads, and a function decide(rows). Add them, or delete the file."
        )
    return Decisions(file=file, columns=tuple(columns), decide=decide)


def decided(decisions: Decisions, output: Output, run: str, scored: Mapping[str, Path]) -> int:
    """Decide on the rows of a run's output files, unless that is done already. Returns how many rows were decided on.

    Args:
        decisions: the project's.
        output: the folder.
        run: the run's id.
        scored: input file's name → output file.

    Raises:
        ConfigError: input files carry a column in types that do not go together, or `decide` returns no table. Its own errors keep their traceback.
    """
    target = output.decided(run)
    if not target.is_file():
        found = decisions.decide(_rows(decisions, [path for _, path in sorted(scored.items())]))
        if not isinstance(found, pa.Table):
            raise ConfigError(
                f"{decisions.file}: decide must return a pyarrow.Table, not {type(found).__name__}. Correct it and run again."
            )
        with written_whole(target, found.schema) as writer:
            writer.write_table(found)
    return put_in_sight(target, output.decisions)


def _rows(decisions: Decisions, files: list[Path]) -> pa.Table:
    tables = []
    for path in files:
        with open_parquet(path) as file:
            tables.append(file.read())
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ConfigError(
            f"The input files carry a column of {decisions.file} in types that do not go together: {error}. Write them alike, or score them apart."
        ) from error
