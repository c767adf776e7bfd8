"""From the parts of a file to its output: the last step for each file, and the one that a reader of the folder sees.

In this order: rejected rows, prediction log, output file, and then a word to the run that the file is finished. Killed in between, all of
it is done again from the same parts and replaces what is there by the same bytes.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from mlpipelines.batch.columns import columns_of
from mlpipelines.batch.output import ROW_GROUP, written_whole
from mlpipelines.batch.scoring import FileTask, Job, Part, open_parquet, part_file, schemas_of
from mlpipelines.errors import Conflict
from mlpipelines.evaluation.served_model import ServedModel
from mlpipelines.workspace import read_json, write_json
from mlserving.predictions.records import log_folder

_FINISHED = "finished.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What became of a file."""

    scored: int = 0
    rejected: int = 0
    logged: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    finished: str = ""


def finished(task: FileTask) -> Finished | None:
    """What became of a file, if it is finished."""
    file = task.work / _FINISHED
    return Finished(**read_json(file)) if file.is_file() else None


def assemble(job: Job, model: ServedModel, task: FileTask, parts: Iterable[Part]) -> None:
    """Make one output file of a file's parts, or note why there is none.

    Raises:
        Conflict: the input file has been written to since its hash was taken.
    """
    ordered = sorted(parts, key=lambda part: part.first_row)
    failed = next((part.failed for part in ordered if part.failed), "")
    if not task.content.still_there(task.file.path):
        raise Conflict(
            f"{task.file.path} was written to while it was being scored. Nothing of it is in the output: type the same command again."
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if failed:
        write_json(task.work / _FINISHED, asdict(Finished(failed=failed, finished=now)))
        return
    reasons: Counter[str] = Counter()
    for part in ordered:
        reasons.update(part.reasons)
    result = Finished(
        scored=sum(part.scored for part in ordered),
        rejected=sum(part.rejected for part in ordered),
        logged=sum(part.logged for part in ordered),
        reasons=dict(reasons.most_common(10)),
        finished=now,
    )
    _write(job, model, task, ordered, result)
    write_json(task.work / _FINISHED, asdict(result))


def _write(job: Job, model: ServedModel, task: FileTask, parts: list[Part], result: Finished) -> None:
    with open_parquet(task.file.path) as file:
        raw = file.schema_arrow
    schemas = schemas_of(job, model, columns_of(raw, job.project, model, job.keep, task.file.name), raw)
    targets = {
        "rejected": job.output.rejected / task.file.name,
        "logged": log_file(job, task),
        "scored": job.output.root / task.file.name,
    }
    for kind, target in targets.items():
        if kind == "scored" or getattr(result, kind):
            _join([part_file(task, kind, part.first_row) for part in parts], target, getattr(schemas, kind))
        else:
            target.unlink(missing_ok=True)  # of an earlier content of the file


def _join(parts: list[Path], target: Path, schema: pa.Schema) -> None:
    with written_whole(target, schema) as writer:
        for part in parts:
            with open_parquet(part) as file:
                for batch in file.iter_batches(batch_size=ROW_GROUP):
                    writer.write_batch(batch, row_group_size=ROW_GROUP)


def log_file(job: Job, task: FileTask) -> Path:
    """The prediction log's file for a file of this run: its name follows from both, so that it is never written twice."""
    name = f"{job.started_us}\0{task.file.path}\0{task.content.sha256}".encode("utf-8", "surrogateescape")
    folder = log_folder(job.predictions, job.pinned.model, datetime.fromtimestamp(job.started_us / 1e6, UTC))
    return folder / f"batch-{blake2b(name, digest_size=12).hexdigest()}-0.parquet"


def tidy(folder: Path) -> None:
    """Have a folder for parts, without what a killed process was writing there."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*"):
        left.unlink(missing_ok=True)


def drop(folder: Path) -> None:
    """Delete a folder by one rename, so that no half of it is taken for parts."""
    doomed = folder.with_name(f".{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
