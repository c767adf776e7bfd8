"""The log and the labels as their readers want them: the monitor, the review queue, batch scoring, pipelines.

Nothing here holds a window in memory: rows come in batches, with only the columns that are asked for and the filters pushed down to
Parquet. Columns differ between versions, so the schema is that of all files together: a column that a version does not have is null,
and one whose types differ gets the wider type, or text.

`joined` puts the last label beside each prediction. A label names its prediction by (prediction_id, row) and nothing else, so it does
not matter which of the two was written first.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from mlserving.errors import Conflict, Unavailable
from mlserving.predictions import label_journal
from mlserving.predictions.files import ALWAYS, ParquetFile, Window, days, in_day
from mlserving.predictions.records import EXPLANATION, LABEL_FIELDS, PREDICTION_FIELDS

TRUTH_FIELDS = pa.schema(
    [
        pa.field("truth", pa.string()),  # the last label
        pa.field("labelled_at", LABEL_FIELDS.field("labelled_at").type),
        pa.field("received_at", LABEL_FIELDS.field("received_at").type),
        pa.field("label_source", pa.string()),
        pa.field("reviewer", pa.string()),
        pa.field("label_delay_s", pa.float64()),  # received_at − time
    ]
)
"""What `joined` adds to the columns of the log. All null where there is no label."""
_BATCH_ROWS = 16_384
_TRIES, _MOST_OPEN = 5, 512
_MOST_LABELS = 1_000_000
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in Parquet files, not read yet."""

    schema: pa.Schema
    _days: Sequence[Callable[[], list[ParquetFile]]]
    """Each lists the files of a day when that day is read: what was merged meanwhile is found merged."""
    _condition: ds.Expression | None = None

    def where(self, condition: ds.Expression) -> Rows:
        """Only the rows for which it holds, for example `ds.field("version") == 3`."""
        return replace(self, _condition=condition if self._condition is None else self._condition & condition)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows, in batches that fit in memory, day by day.

        Raises:
            Unavailable: files were merged or deleted in the midst of reading them. Read again.
        """
        for files_of_day in self._days:
            yield from self._day(files_of_day, columns)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All of it at once, for windows that are known to be small."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(columns), schema)

    def count(self) -> int:
        """How many rows there are."""
        return sum(batch.num_rows for batch in self.batches([self.schema.names[1]]))

    def _day(self, files_of_day: Callable[[], list[ParquetFile]], columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """A day's rows. Its files are opened before the first row is given, so nothing that happens to them later is seen."""
        with ExitStack() as opened:
            for left in reversed(range(_TRIES)):
                try:
                    sources = [_opened(file, opened, number) for number, file in enumerate(files_of_day())]
                    break
                except FileNotFoundError as error:
                    if not left:
                        raise Unavailable("Files of the log are merged or deleted all the time. Read again later.") from error
            try:
                yield from self._scanned(sources, columns)
            except FileNotFoundError as error:
                raise Unavailable("Files of the log were merged or deleted while they were read. Read again.") from error

    def _scanned(self, sources: list[Any], columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        if not sources:
            return
        parquet, here = ds.ParquetFileFormat(), LocalFileSystem()
        fragments = [parquet.make_fragment(source, here if isinstance(source, str) else None) for source in sources]
        scanner = ds.FileSystemDataset(fragments, self.schema, parquet).scanner(
            columns=None if columns is None else list(columns), filter=self._condition,
            batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=1,
        )  # fmt: skip
        yield from (batch for batch in scanner.to_batches() if batch.num_rows)


def _opened(file: ParquetFile, opened: ExitStack, number: int) -> Any:
    """The file, open; or its path, where a process may not have so many files open: then a merge may get between us and it."""
    return opened.enter_context(pa.OSFile(str(file.path))) if number < _MOST_OPEN else str(file.path)


def log(predictions: Path, model: str, window: Window = ALWAYS, versions: Collection[int] = (), *, explanations: bool = False) -> Rows:
    """The predictions of a window (by `time`), of some versions or all.

    A case whose prediction was also explained counts once: rows under `records.EXPLANATION` come only with `explanations`.

    Raises:
        Conflict: a column is a list in one version and a scalar in another. Read one version at a time.
    """
    rows = _rows(predictions / "log", model, window, frozenset(versions), PREDICTION_FIELDS)
    for condition in _within("time", window):
        rows = rows.where(condition)
    if not explanations:
        rows = rows.where(ds.field("signature") != EXPLANATION)
    return rows.where(ds.field("version").isin(sorted(versions))) if versions else rows


def labels(predictions: Path, model: str, received: Window = ALWAYS) -> Iterator[pa.RecordBatch]:
    """The labels that were received in a window, those too that are not Parquet yet; in no order, and one that was told twice comes twice."""
    found = label_journal.read(
        label_journal.journals(label_journal.folder_of(predictions))
    )  # first: one that becomes Parquet now is seen twice, not never
    rows = _rows(predictions / "labels", model, received, frozenset(), LABEL_FIELDS)
    condition = pc.field("model") == model
    for each in _within("received_at", received):
        rows, condition = rows.where(each), condition & each
    yield from found.filter(condition).to_batches()
    yield from rows.batches(LABEL_FIELDS.names)


def last_labels(
    predictions: Path, model: str, received: Window = ALWAYS, *, wanted: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None
) -> pa.Table:
    """The label that holds for each (prediction_id, row): the one that was received last.

    The same label told again (same prediction, row, label and `labelled_at`) counts as received when it first was, so a client that
    repeats itself overrules nobody.
    """
    batches = [wanted(batch) if wanted else batch for batch in labels(predictions, model, received)]
    table = pa.Table.from_batches(batches, LABEL_FIELDS)
    table = _first_of(table.sort_by("received_at"), ["prediction_id", "row", "label", "labelled_at"])
    return _first_of(table.sort_by([("received_at", "descending"), ("labelled_at", "descending")]), ["prediction_id", "row"])


def joined(
    predictions: Path, model: str, window: Window = ALWAYS, *,
    versions: Collection[int] = (), columns: Sequence[str] | None = None, where: ds.Expression | None = None,
    unlabelled: bool = False, known_by: datetime | None = None, most_labels: int = _MOST_LABELS,
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """The predictions of a window with their last label: the columns of the log (`columns`, or all) and `TRUTH_FIELDS`.

    Args:
        predictions: the folder of log and labels.
        model: the model's name.
        window: of the predictions' `time`. Their labels may be of any later time.
        versions: only these.
        columns: of the log; always with prediction_id, row and time.
        where: a filter of the log's columns.
        unlabelled: whether predictions without a label come too.
        known_by: only labels that had been received before this time: what was known then.
        most_labels: labels held in memory at a time, some 300 bytes each; beyond, the log is read several times, a part of the ids each.
    """
    received = Window(start=window.start and window.start - _CLOCKS_DIFFER, end=known_by)
    rows = log(predictions, model, window, versions)
    rows = rows if where is None else rows.where(where)
    chosen = rows.schema.names if columns is None else list(dict.fromkeys(["prediction_id", "row", "time", *columns]))
    count = sum(batch.num_rows for batch in labels(predictions, model, received))
    parts = max(1, -(-count // most_labels))
    for part in range(parts):
        wanted = _part(part, parts)
        truth = _Truth(last_labels(predictions, model, received, wanted=wanted))
        for batch in rows.batches(chosen):
            told = truth.beside(wanted(batch), unlabelled=unlabelled)
            if told.num_rows:
                yield told


class _Truth:
    """The last labels, found by (prediction_id, row)."""

    def __init__(self, labels: pa.Table) -> None:
        self._labels = labels.combine_chunks()
        self._places = {key: place for place, key in enumerate(_keys(labels))}

    def beside(self, batch: pa.RecordBatch, *, unlabelled: bool) -> pa.RecordBatch:
        places = pa.array([self._places.get(key) for key in _keys(batch)], pa.int64())
        if not unlabelled:
            batch, places = batch.filter(places.is_valid()), places.drop_null()
        found = self._labels.take(places)
        delay = pc.divide(pc.cast(pc.subtract(found["received_at"], batch["time"]), pa.int64()), 1e6)
        columns = [found["label"], found["labelled_at"], found["received_at"], found["source"], found["reviewer"], delay]
        return pa.RecordBatch.from_arrays(
            [*batch.columns, *(_array(column) for column in columns)], schema=pa.schema([*batch.schema, *TRUTH_FIELDS])
        )


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _keys(rows: pa.RecordBatch | pa.Table) -> Iterator[tuple[str, int]]:
    return zip(rows["prediction_id"].to_pylist(), rows["row"].to_pylist(), strict=True)


def _part(part: int, parts: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A filter that keeps one part of all prediction ids, the same of log and labels."""

    def kept(batch: pa.RecordBatch) -> pa.RecordBatch:
        if parts == 1:
            return batch
        hashes = np.fromiter((zlib.crc32(each.encode()) for each in batch["prediction_id"].to_pylist()), np.uint32, batch.num_rows)
        return batch.filter(pa.array(hashes % parts == part))

    return kept


def _first_of(table: pa.Table, keys: list[str]) -> pa.Table:
    """The first row of each combination of keys."""
    numbered = table.select(keys).append_column("place", pa.array(range(table.num_rows), pa.int64()))
    return table.take(numbered.group_by(keys).aggregate([("place", "min")])["place_min"])


def _within(column: str, window: Window) -> Iterator[ds.Expression]:
    kind = LABEL_FIELDS.field("received_at").type
    if window.start is not None:
        yield ds.field(column) >= pa.scalar(window.start, kind)
    if window.end is not None:
        yield ds.field(column) < pa.scalar(window.end, kind)


def _rows(folder: Path, model: str, window: Window, versions: frozenset[int], least: pa.Schema) -> Rows:
    def files_of(day: Path) -> list[ParquetFile]:
        return [file for file in in_day(day) if not versions or file.version is None or file.version in versions]

    found = [partial(files_of, path) for day, path in days(folder, model).items() if window.has_day(day)]
    return Rows(unified([least, *(file.schema for listed in found for file in listed())], f"{folder.name} of {model}"), found)


def unified(schemas: Sequence[pa.Schema], where: str) -> pa.Schema:
    """All columns of all schemas. Where types differ: the wider one, else text.

    Raises:
        Conflict: a column is a list here and a scalar there.
    """
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            fields[field.name] = _wider(fields.get(field.name, field), field, where)
    return pa.schema(list(fields.values()))


def _wider(one: pa.Field, other: pa.Field, where: str) -> pa.Field:
    if one.type == other.type:
        return one
    if pa.types.is_list(one.type) != pa.types.is_list(other.type):
        raise Conflict(
            f"{where}: {one.name} is {one.type} in one version and {other.type} in another. Read one version at a time (--version)."
        )
    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowTypeError:
        return pa.field(one.name, pa.list_(pa.string()) if pa.types.is_list(one.type) else pa.string())
