"""`millrace labels import`: labels from a file, for those who learn the truth in batches: chargebacks, audits, another system's export."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlserving.errors import ConfigError
from mlserving.predictions import label_journal, labels
from mlserving.predictions.label_request import MOST_LABELS, Label
from mlserving.workspace import named_workspace

_PATIENCE = 3.0
_SHOWN = 20

_DESCRIPTION = """\
Add the labels in a CSV or Parquet file to those of a model.

The file's columns are prediction_id and label, and if you have them row (for requests of several instances), labelled_at
(RFC 3339 with a zone; with it, importing a file again changes nothing) and reviewer. Rows that are wrong are
named by their line and left out; all others are kept."""

_EPILOG = """\
examples:
  millrace labels import chargebacks.csv --model transactions
  millrace labels import audit.parquet --model scam --predictions /data/predictions

exit codes: 0 all kept, 2 some rows (or the file) are wrong, 4 the disk did not take them"""

Row = tuple[int, dict[str, Any]]
"""The line, and what it says."""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    predictions = folder_of(arguments)
    kept, refused = _import(predictions, arguments.file, arguments.model)
    _settle(predictions)
    for line, reason in refused[:_SHOWN]:
        print(f"line {line}: {reason}")
    if len(refused) > _SHOWN:
        print(f"… and {len(refused) - _SHOWN} more")
    print(f"{kept} labels of {arguments.model} kept, {len(refused)} refused")
    if refused:
        print(f"Correct those lines and import them again: millrace labels import {arguments.file} --model {arguments.model}")
    return 2 if refused else 0


def folder_of(arguments: argparse.Namespace) -> Path:
    """Where the log and the labels lie, by the options `add_folder` adds."""
    return Path(arguments.predictions or named_workspace(arguments.workspace) / "predictions")


def add_folder(parser: argparse.ArgumentParser) -> None:
    """`--predictions` and `--workspace`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--predictions", type=Path, metavar="DIR", help="where the log and the labels lie (default: the workspace's)")
    where.add_argument("--workspace", type=Path, metavar="DIR", help="default: MILLRACE_WORKSPACE, else .millrace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="millrace labels", description="Labels of predictions.")
    actions = parser.add_subparsers(required=True, metavar="import")
    importing = actions.add_parser(
        "import",
        help="add labels from a file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importing.add_argument("file", type=Path, metavar="FILE", help="a .csv or .parquet file")
    importing.add_argument("--model", required=True, metavar="M", help="the model that predicted")
    add_folder(importing)
    return parser


def _import(predictions: Path, file: Path, model: str) -> tuple[int, list[tuple[int, str]]]:
    """Keep the file's labels. How many were kept, and line and reason of the others."""
    kept, refused, rows = 0, list[tuple[int, str]](), _rows(file)
    with labels.LabelStore(predictions, source="import") as store:
        while chunk := list(islice(rows, MOST_LABELS)):
            stored = store.store({"model": model, "labels": [row for _, row in chunk]})
            kept += stored.stored
            refused += [(chunk[index][0], reason.removeprefix(f"labels.{index}.")) for index, reason in stored.refused]
    return kept, refused


def _rows(file: Path) -> Iterator[Row]:
    try:
        if file.suffix == ".csv":
            yield from _csv(file)
        elif file.suffix == ".parquet":
            yield from _parquet(file)
        else:
            raise ConfigError(f"{file} is neither .csv nor .parquet. Convert it and name it so.")
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, csv.Error) as error:
        raise ConfigError(
            f"{file} cannot be read: {error}. What was read before this is kept; correct the file and import it again."
        ) from error


def _csv(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, restkey="(more)")
        _check(list(reader.fieldnames or []), file)
        for row in reader:
            yield reader.line_num, {name: value for name, value in row.items() if value is not None and value != ""}


def _parquet(file: Path) -> Iterator[Row]:
    with pq.ParquetFile(file) as opened:
        _check(opened.schema_arrow.names, file)
        number = 0
        for batch in opened.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, {name: value for name, value in row.items() if value is not None}


def _check(columns: list[str], file: Path) -> None:
    missing = {"prediction_id", "label"} - set(columns)
    unknown = set(columns) - set(Label.model_fields)
    if missing or unknown:
        raise ConfigError(
            f"{file}: missing columns: {', '.join(sorted(missing)) or 'none'}; unknown: {', '.join(sorted(unknown)) or 'none'}."
            f" Its columns may be {', '.join(Label.model_fields)}."
        )


def _settle(predictions: Path) -> None:
    """Leave it to a running recorder to make Parquet of them, for it counts; where there is none, do it."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and label_journal.finished(label_journal.folder_of(predictions)):
        time.sleep(0.1)
    labels.collect(predictions)
