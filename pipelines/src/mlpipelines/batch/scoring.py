"""One row group of one file, from raw rows to three part files: scored, rejected, logged.

A plain loop over batches, so that memory does not grow with the file; Beam, a test and a benchmark call it alike. A part is finished when
its `.json` is there, which is written last: what was killed before is done again and comes out the same, what was finished is not touched.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mlpipelines.batch import columns as names
from mlpipelines.batch.asking import REFUSED, ask_rows, output_types
from mlpipelines.batch.columns import Columns, columns_of
from mlpipelines.batch.inputs import Content, InputFile
from mlpipelines.batch.output import Output, written_whole
from mlpipelines.batch.pinned import PinnedModel
from mlpipelines.batch.prediction_log import log_schema, logged_rows
from mlpipelines.batch.rows import Reasons, judge_rows, prediction_ids, rejected_rows, rejected_schema
from mlpipelines.errors import DataRejected
from mlpipelines.evaluation.served_model import BATCH_WITH_BYTES, ServedModel
from mlpipelines.project import Project
from mlpipelines.workspace import read_json, write_json
from mlserving.gateway.settings import Log
from mlserving.predictions.records import TIME

_ROWS, _BYTES = 8192, 32 << 20
_BUFFER = 1 << 20
PARTS = ("scored", "rejected", "logged")
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is the same for every file of a run."""

    project: Project
    pinned: PinnedModel
    started_us: int
    """The moment that the run's predictions bear: microseconds since 1970, UTC."""
    keep: tuple[str, ...]
    log: Log
    output: Output
    predictions: Path
    """The workspace's prediction log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTask:
    """One file that is to be scored."""

    number: int
    file: InputFile
    content: Content
    rows: int
    work: Path
    """Where its parts lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """One row group of it."""

    task: FileTask
    index: int
    first_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What became of a row group."""

    first_row: int
    scored: int = 0
    rejected: int = 0
    logged: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    """Why the file cannot be read any further."""


def row_groups(task: FileTask) -> list[RowGroup]:
    """The row groups of a file that has been looked at already."""
    groups, row = [], 0
    with open_parquet(task.file.path) as file:
        for index in range(file.metadata.num_row_groups):
            groups.append(RowGroup(task=task, index=index, first_row=row))
            row += file.metadata.row_group(index).num_rows
    return groups


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The file, read in small pieces. Python opens it, because Arrow takes no name that is not UTF-8."""
    with path.open("rb") as stream, pq.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False) as file:
        yield file


def score_group(job: Job, model: ServedModel, group: RowGroup) -> Part:
    """Score a row group, unless it is done already.

    Returns:
        What became of it; with `failed`, where the file turns out to be damaged.
    """
    marker = group.task.work / f"{group.first_row:012d}.json"
    if marker.is_file():
        return Part(**read_json(marker))
    try:
        part = _score(job, model, group)
    except (DataRejected, pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # the disk's, not the file's
            raise
        return Part(first_row=group.first_row, failed=str(error).splitlines()[0])
    write_json(marker, asdict(part))
    return part


def part_file(task: FileTask, kind: str, first_row: int) -> Path:
    """Where a part of a file lies."""
    return task.work / f"{kind}-{first_row:012d}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemas:
    """The columns of a file's output, of its rejected rows and of its share of the prediction log."""

    scored: pa.Schema
    rejected: pa.Schema
    logged: pa.Schema


def schemas_of(job: Job, model: ServedModel, columns: Columns, raw: pa.Schema) -> Schemas:
    """Which columns come out for an input file with the schema `raw`."""
    types = output_types(model.signature)
    read = pa.schema([raw.field(name) for name in columns.read])
    scored = [
        pa.field(names.ID, pa.string(), nullable=False),
        pa.field(names.ROW, pa.int64(), nullable=False),
        *(pa.field(name, raw.field(columns.theirs[name]).type) for name in columns.kept),
        pa.field(names.MODEL, pa.string(), nullable=False),
        pa.field(names.VERSION, pa.int64(), nullable=False),
        pa.field(names.TIME, TIME, nullable=False),
        *(pa.field(names.OUTPUT + name, kind) for name, kind in types.items()),
    ]
    return Schemas(scored=pa.schema(scored), rejected=rejected_schema(read), logged=log_schema(job.log, columns, types))


def _score(job: Job, model: ServedModel, group: RowGroup) -> Part:
    task = group.task
    with open_parquet(task.file.path) as file, contextlib.ExitStack() as stack:
        columns = columns_of(file.schema_arrow, job.project, model, job.keep, task.file.name)
        scorer = _Scorer(job, model, columns, schemas_of(job, model, columns, file.schema_arrow), task)
        writers = {
            kind: stack.enter_context(
                written_whole(part_file(task, kind, group.first_row), getattr(scorer.schemas, kind), compression="lz4")
            )
            for kind in PARTS
        }
        row, counts = group.first_row, Counter[str]()
        for batch in file.iter_batches(
            batch_size=rows_at_once(file.metadata, group.index, columns), row_groups=[group.index], columns=columns.read
        ):
            for kind, rows in scorer.score(batch, np.arange(row, row + batch.num_rows)).items():
                counts[kind] += rows.num_rows
                if rows.num_rows:
                    writers[kind].write_batch(rows)
            row += batch.num_rows
    return Part(
        first_row=group.first_row,
        scored=counts["scored"],
        rejected=counts["rejected"],
        logged=counts["logged"],
        reasons=dict(scorer.reasons.most_common(10)),
    )


def rows_at_once(file: pq.FileMetaData, row_group: int, columns: Columns) -> int:
    """How many rows are scored together: fewer where they are large, for each is held several times on its way into the graph."""
    found = file.row_group(row_group)
    parts = [found.column(at) for at in range(found.num_columns)]
    size: int = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.startswith(tuple(columns.read)))
    rows: int = found.num_rows
    most = BATCH_WITH_BYTES if "bytes" in columns.types.values() else _ROWS
    return max(1, min(most, _BYTES * rows // max(1, size)))


@dataclass(slots=True)
class _Scorer:
    """Scores the batches of a row group, and counts why rows are rejected."""

    job: Job
    model: ServedModel
    columns: Columns
    schemas: Schemas
    task: FileTask
    reasons: Counter[str] = field(default_factory=Counter)

    def score(self, batch: pa.RecordBatch, places: Places) -> dict[str, pa.RecordBatch]:
        """The rows of a batch by what becomes of them; `places` says where they stand in the file."""
        judged = judge_rows(batch, self.columns)
        reasons = judged.reasons
        askable = _where(reasons, rejected=False)
        answered, refused = ask_rows(self.model, self.columns.project, judged.rows.take(askable), output_types(self.model.signature))
        reasons[np.asarray(askable)] = refused
        good, bad = _where(reasons, rejected=False), _where(reasons, rejected=True)
        self.reasons.update(_general(reason) for reason in reasons[np.asarray(bad)])
        rows, mine = judged.rows.take(good), places[np.asarray(good)]
        ids = self._ids(rows, mine)
        return {
            "scored": self._scored(ids, mine, batch.take(good), answered),
            "rejected": rejected_rows(batch.take(bad), places[np.asarray(bad)], list(reasons[np.asarray(bad)])),
            "logged": logged_rows(self.job, self.schemas.logged, ids, rows, answered),
        }

    def _ids(self, rows: pa.RecordBatch, places: Places) -> list[str]:
        pinned, file = self.job.pinned, f"{self.task.file.name}\0{self.task.content.sha256}"
        return prediction_ids(self.columns, rows, places, model=pinned.model, version=pinned.version, file=file)

    def _scored(self, ids: list[str], places: Places, kept: pa.RecordBatch, answered: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [
            pa.array(ids, pa.string()),
            pa.array(places, pa.int64()),
            *(kept.column(self.columns.theirs[name]) for name in self.columns.kept),
            pa.repeat(self.job.pinned.model, len(ids)),
            pa.repeat(pa.scalar(self.job.pinned.version, pa.int64()), len(ids)),
            pa.repeat(pa.scalar(self.job.started_us, TIME), len(ids)),
            *answered.columns,
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schemas.scored)


def _where(reasons: Reasons, *, rejected: bool) -> pa.Array:
    """The places of the rows that are, or are not, rejected."""
    return pa.array([place for place, reason in enumerate(reasons) if (reason is not None) == rejected], pa.int64())


def _general(reason: str) -> str:
    """A reason without the value that it names, so that reasons can be counted."""
    head, colon, tail = reason.partition(": ")
    if colon and " cannot be read as " in tail:
        return f"{head}: {tail.rpartition(' cannot be read as ')[2]} expected"
    return re.sub(r"\d+", "…", reason)[:200] if head == REFUSED else reason[:200]  # each broken image has a size of its own
