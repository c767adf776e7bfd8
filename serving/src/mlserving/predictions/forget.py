"""Erasing what is known of a person: rows of the log, and their labels, found by prediction id or by a feature's value.

Files are written anew without the rows and take the old ones' places by a rename, so the rows are gone from the disk and not only
marked. What waits in a gateway's spool is not in the log yet: the command says so, and is typed again a minute later.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlserving.errors import ConfigError, Unavailable
from mlserving.predictions import files, label_journal, labels
from mlserving.predictions.commit import locked
from mlserving.predictions.files import STAGING, ParquetFile
from mlserving.predictions.records import FEATURE
from mlserving.predictions.upkeep import KINDS, UPKEEP, clear_staging, finish

_PATIENCE = 30.0
Rows = set[tuple[str, int]]
"""(prediction_id, row)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What is gone, or with `dry_run` would be."""

    predictions: int
    labels: int
    prediction_ids: tuple[str, ...]
    files: int


def forget(
    predictions: Path, model: str, *, ids: Collection[str] = (), where: tuple[str, str] | None = None, dry_run: bool = False
) -> Erased:
    """Erase the predictions of these ids, or whose feature has this value, with their labels.

    Raises:
        ConfigError: no version logged that feature, or it is a list.
        Unavailable: somebody else merges or erases at the moment, or a label cannot be had from its journal.
    """
    _settle_labels(predictions)
    with locked(predictions / STAGING / UPKEEP) as ours:
        if not ours:
            raise Unavailable("Files are being merged at the moment. Type the same command again.")
        clear_staging(predictions)
        for kind in KINDS:
            for folder in files.days(predictions / kind, model).values():
                finish(folder)
        return _erased(predictions, model, set(ids), where, dry_run=dry_run)


def _erased(predictions: Path, model: str, ids: set[str], where: tuple[str, str] | None, *, dry_run: bool) -> Erased:
    log = files.listing(predictions / "log", model)
    if where is not None:
        _check(log, where[0], model)
    by_file = [(file, _matching(file, ids, where)) for file in log]
    rows: Rows = set().union(*(found for _, found in by_file))
    told = [(file, _labels_of(file, rows, ids)) for file in files.listing(predictions / "labels", model)]
    touched = [file for file, found in [*by_file, *told] if found]
    for file in [] if dry_run else touched:
        _rewrite(file, rows, ids, predictions / STAGING / UPKEEP)
    return Erased(
        predictions=len(rows),
        labels=sum(len(found) for _, found in told),
        prediction_ids=tuple(sorted({each for each, _ in rows})),
        files=len(touched),
    )


def _check(log: list[ParquetFile], feature: str, model: str) -> None:
    types = {file.schema.field(feature).type for file in log if feature in file.schema.names}
    if not types:
        known = sorted({name.removeprefix(FEATURE) for file in log for name in file.schema.names if name.startswith(FEATURE)})
        raise ConfigError(
            f"{model}'s log has no {feature}. It has the features {', '.join(known) or '(none)'}. Name one: --where NAME=VALUE"
        )
    if any(pa.types.is_list(each) for each in types):
        raise ConfigError(f"{feature} is a list. Find the predictions' ids and name those: --prediction-id ID")


def _settle_labels(predictions: Path) -> None:
    """Have every label in Parquet, where it can be erased; those that arrive now wait a few seconds in their journal."""
    until = time.monotonic() + _PATIENCE
    known = label_journal.journals(label_journal.folder_of(predictions))
    while any(path.exists() for path in known):
        labels.collect(predictions, wait=True)
        if time.monotonic() > until:
            raise Unavailable("A process holds labels that are not in a file yet. Type the same command again in a minute.")
        time.sleep(0.1)


def _matching(file: ParquetFile, ids: set[str], where: tuple[str, str] | None) -> Rows:
    columns = ["prediction_id", "row"] + ([where[0]] if where is not None and where[0] in file.schema.names else [])
    return {key for batch in _batches(file, columns) for key in _keys(batch.filter(_hit(batch, ids, where)))}


def _hit(batch: pa.RecordBatch, ids: set[str], where: tuple[str, str] | None) -> pa.Array:
    hit = pc.is_in(batch["prediction_id"], pa.array(sorted(ids), pa.string()))
    if where is None or where[0] not in batch.schema.names:
        return hit
    column = batch[where[0]]
    try:
        value = pa.scalar(where[1]).cast(column.type)
    except pa.ArrowInvalid:  # a text is no number
        return hit
    return pc.or_(hit, pc.fill_null(pc.equal(column, value), fill_value=False))


def _labels_of(file: ParquetFile, rows: Rows, ids: set[str]) -> list[tuple[str, int]]:
    return [key for batch in _batches(file, ["prediction_id", "row"]) for key in _keys(batch) if key in rows or key[0] in ids]


def _keys(batch: pa.RecordBatch) -> Iterator[tuple[str, int]]:
    return zip(batch["prediction_id"].to_pylist(), batch["row"].to_pylist(), strict=True)


def _batches(file: ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file.path) as opened:
        yield from opened.iter_batches(columns=columns)


def _rewrite(file: ParquetFile, rows: Rows, ids: set[str], staging: Path) -> None:
    """The file without these rows, in its place; or no file, where nothing is left."""
    kept = (batch.filter(pa.array([key not in rows and key[0] not in ids for key in _keys(batch)], pa.bool_())) for batch in _batches(file))
    staged = staging / f"forget-{file.path.name}"
    if files.write(kept, file.schema, staged, version=file.version, replaces=file.replaces):
        files.appear(staged, file.path)
    else:
        file.path.unlink()
        staged.unlink()
        files.flush(file.path.parent)
