"""`millrace batch`: find, pin, score what is not there yet, rank, and say how it went.

The order is what makes a kill harmless: the run is written down before it scores, a file enters the manifest after its output is
there, and the run is closed when its cases are. Nothing is deleted that the next call could need.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from mlpipelines.batch.asking import output_types, require_inputs
from mlpipelines.batch.assembly import Finished, drop, finished, tidy
from mlpipelines.batch.beam_scoring import SharedModel, score_files
from mlpipelines.batch.columns import columns_of, scalar_output
from mlpipelines.batch.decisions import decided
from mlpipelines.batch.delivery import deliver
from mlpipelines.batch.inputs import Content, InputFile, content_of, find_inputs, refuse_overlap
from mlpipelines.batch.output import FileRecord, Manifest, Output, alone_in
from mlpipelines.batch.pinned import PinnedModel, pin_model
from mlpipelines.batch.request import BatchOutcome, BatchRequest, OpenRun, Understood, open_run, understand
from mlpipelines.batch.scoring import FileTask, Job, open_parquet
from mlpipelines.batch.source_window import stage_window
from mlpipelines.errors import ConfigError, Conflict, DataRejected
from mlpipelines.evaluation.served_model import ServedModel, project_for
from mlpipelines.own_code import hash_millrace

_ROWS_AT_ONCE = 4_000_000
"""Files of about so many rows go into one Beam pipeline, then into the manifest; their parts are deleted before the next ones come."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be done."""

    tasks: tuple[FileTask, ...]
    unchanged: int
    failed: Mapping[str, str]


def run_batch(request: BatchRequest, say: Say = lambda _: None) -> BatchOutcome:
    """Score what is not in the output yet.

    Args:
        request: what is asked for.
        say: called with a line for people, now and then.

    Raises:
        ConfigError: an option, the project or the output folder is wrong; nothing was written.
        Conflict: another call writes to the folder, the model's files are not those that were registered, or an input changed meanwhile.
        Unavailable: the registry does not answer, or the machine cannot bear the model.
    """
    began = time.monotonic()
    understood, output = understand(request), Output(request.output.absolute())
    files = _inputs(request, understood, output)
    with alone_in(output):
        manifest = Manifest.read(output.manifest)
        if not request.input:
            files = [stage_window(request, understood.keep, output)]
        opened = open_run(output, understood.as_asked(request))
        call = _begin(request, understood, output, opened)
        if not opened.resumed:
            drop(output.work)
        plan = _planned(call, files, manifest)
        call = replace(call, opened=_written_down(call, plan))
        say(_announcement(call, plan))
        manifest = _scored(call, plan, manifest)
        scored = {name: call.output.root / name for name in _mine(call, manifest)}
        decisions = _decided(call, scored)
        cases = _delivered(call, scored)  # last: what is there says that a run was delivered
        output.open_run.unlink(missing_ok=True)
        drop(output.work)
        drop(output.staged)
        return replace(_outcome(call, plan, manifest), cases=cases, decisions=decisions, seconds=round(time.monotonic() - began, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """Everything that is fixed before the first file is looked at."""

    request: BatchRequest
    understood: Understood
    opened: OpenRun
    job: Job
    shared: SharedModel
    model: ServedModel

    @property
    def output(self) -> Output:
        return self.job.output

    @property
    def pinned(self) -> PinnedModel:
        return self.job.pinned

    def has_scored(self, file: InputFile, content: Content, known: FileRecord | None) -> bool:
        """Whether the output holds this content's predictions by this model, with the columns that are asked for."""
        pinned = self.pinned
        ours = (content.sha256, pinned.model, pinned.version, pinned.fingerprint, list(self.job.keep))
        theirs = known and (known.sha256, known.model, known.version, known.fingerprint, known.keep)
        return ours == theirs and (self.output.root / file.name).is_file()


def _begin(request: BatchRequest, understood: Understood, output: Output, opened: OpenRun) -> _Call:
    pinned = _pin(request, opened)
    shared = SharedModel(pinned.folder)
    model = shared.open().model
    _check_model(request, understood, model)
    job = Job(
        project=request.project,
        pinned=pinned,
        started_us=opened.started_us,
        keep=understood.keep,
        log=understood.log,
        output=output,
        predictions=request.workspace.root / "predictions",
    )
    return _Call(request=request, understood=understood, opened=opened, job=job, shared=shared, model=model)


def _written_down(call: _Call, plan: _Plan) -> OpenRun:
    """The run with what it is about to score: from here on, whoever goes on with it does the same."""
    names = {*call.opened.files, *(task.file.name for task in plan.tasks)}
    opened = replace(call.opened, version=call.pinned.version, fingerprint=call.pinned.fingerprint, files=tuple(sorted(names)))
    if opened.files:
        opened.write(call.output)
    return opened


def _inputs(request: BatchRequest, understood: Understood, output: Output) -> list[InputFile]:
    """The files that `--input` means; none where the project's own source is meant, which is read later."""
    if not request.input:
        return []
    files = find_inputs(request.input)
    refuse_overlap(request.input, files, output.root)
    ours = [(output.cases, "with --rank-by")] if understood.rule else []
    ours += [(output.decisions, f"by the project's {understood.decisions.file.name}")] if understood.decisions else []
    for place, why in ours:
        if any(output.root / file.name == place for file in files):
            raise ConfigError(f"--input {request.input} has a file {place.name}, and so will --output {why}. Rename the file.")
    return files


def _pin(request: BatchRequest, opened: OpenRun) -> PinnedModel:
    pinned = pin_model(request.workspace, request.project.model_name, opened.version if opened.resumed else request.version)
    if opened.resumed and pinned.fingerprint != opened.fingerprint:
        raise Conflict(
            f"The run {opened.run} was scoring with another {pinned.model} version {pinned.version} than this workspace has. Name the workspace "
            f"that it was started with, or delete {request.output / '_state' / 'run.json'} to begin anew."
        )
    return pinned


def _check_model(request: BatchRequest, understood: Understood, model: ServedModel) -> None:
    empty = pa.table({})
    known = request.project.column_types
    if all(name in known for name in model.signature.inputs):
        require_inputs(project_for(model, request.project, empty), model.signature)
    types = output_types(model.signature)
    if understood.rule is not None:
        scalar_output(request.project.model_name, types, understood.rule.output)


def _planned(call: _Call, files: Sequence[InputFile], manifest: Manifest) -> _Plan:
    tasks, failed, unchanged = [], {}, 0
    for number, file in enumerate(files):
        try:
            content = content_of(file.path)
            if call.has_scored(file, content, manifest.files.get(file.name)):
                unchanged += file.name not in call.opened.files
            else:
                tasks.append(_task(call, number, file, content))
        except (DataRejected, pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
            failed[file.name] = _why(file, error)
    return _Plan(tasks=tuple(tasks), unchanged=unchanged, failed=failed)


def _task(call: _Call, number: int, file: InputFile, content: Content) -> FileTask:
    with open_parquet(file.path) as parquet:
        columns_of(parquet.schema_arrow, call.job.project, call.model, call.job.keep, file.name)
        rows = parquet.metadata.num_rows
    name = f"{call.opened.run}\0{file.name}\0{content.sha256}".encode("utf-8", "surrogateescape")
    work = call.output.work / blake2b(name, digest_size=12).hexdigest()
    return FileTask(number=number, file=file, content=content, rows=rows, work=work)


def _why(file: InputFile, error: Exception) -> str:
    """One line on why a file cannot be scored."""
    text = str(error).splitlines()[0].rstrip(".")
    return f"{text}." if isinstance(error, DataRejected) else f"{file.path} cannot be read as Parquet: {text}. Write it again."


def _scored(call: _Call, plan: _Plan, manifest: Manifest) -> Manifest:
    """Score wave after wave; after each, the manifest knows its files."""
    failed = dict(plan.failed)
    for wave in _waves(plan.tasks):
        for task in wave:
            tidy(task.work)
        score_files(call.job, call.shared, [task for task in wave if finished(task) is None])
        done = {task.file.name: (task, finished(task) or Finished(failed="nothing came back of it")) for task in wave}
        failed |= {name: _why(task.file, pa.ArrowInvalid(result.failed)) for name, (task, result) in done.items() if result.failed}
        fresh = {name: _record(call, task, result) for name, (task, result) in done.items() if not result.failed}
        manifest = replace(manifest, files={**manifest.files, **fresh})
        _write(call, manifest)
        for task in wave:
            drop(task.work)
    told = {name: {"reason": why, "run": call.opened.run} for name, why in sorted(failed.items())}
    if told != manifest.failed or not call.output.manifest.is_file():
        manifest = replace(manifest, failed=told)
        _write(call, manifest)
    return manifest


def _write(call: _Call, manifest: Manifest) -> None:
    manifest.write(call.output.manifest, project=call.request.project.name, model=call.pinned.model)


def _waves(tasks: Sequence[FileTask]) -> Iterator[list[FileTask]]:
    wave: list[FileTask] = []
    for task in tasks:
        wave.append(task)
        if sum(each.rows for each in wave) >= _ROWS_AT_ONCE:
            yield wave
            wave = []
    if wave:
        yield wave


def _record(call: _Call, task: FileTask, done: Finished) -> FileRecord:
    return FileRecord(
        input=str(task.file.path),
        sha256=task.content.sha256,
        rows=task.rows,
        scored=done.scored,
        rejected=done.rejected,
        logged=done.logged,
        model=call.pinned.model,
        version=call.pinned.version,
        version_digest=call.pinned.digest,
        fingerprint=call.pinned.fingerprint,
        keep=list(call.job.keep),
        run=call.opened.run,
        started=call.opened.started,
        finished=done.finished,
        code=hash_millrace(),
        reasons=done.reasons,
    )


def _decided(call: _Call, scored: Mapping[str, Path]) -> int | None:
    """The number of rows that the project made; None where it decides nothing, or there was nothing to decide on."""
    decisions = call.understood.decisions
    return decided(decisions, call.output, call.opened.run, scored) if decisions and scored else None


def _delivered(call: _Call, scored: Mapping[str, Path]) -> int | None:
    """The number of cases; None where there was nothing to rank."""
    rule = call.understood.rule
    return deliver(rule, call.request.project, call.output, call.opened.run, scored) if rule and scored else None


def _mine(call: _Call, manifest: Manifest) -> dict[str, FileRecord]:
    """The files of this run that are scored."""
    return {name: manifest.files[name] for name in call.opened.files if name in manifest.files and name not in manifest.failed}


def _outcome(call: _Call, plan: _Plan, manifest: Manifest) -> BatchOutcome:
    mine = list(_mine(call, manifest).values())
    reasons: Counter[str] = Counter()
    for record in mine:
        reasons.update(record.reasons)
    return BatchOutcome(
        run=call.opened.run,
        model=call.pinned.model,
        version=call.pinned.version,
        output=str(call.output.root),
        resumed=call.opened.resumed,
        files=len(mine),
        unchanged=plan.unchanged,
        rows=sum(record.rows for record in mine),
        scored=sum(record.scored for record in mine),
        rejected=sum(record.rejected for record in mine),
        logged=sum(record.logged for record in mine),
        reasons=dict(reasons.most_common(10)),
        failed={name: failure["reason"] for name, failure in manifest.failed.items()},
    )


def _announcement(call: _Call, plan: _Plan) -> str:
    again = f"Going on with the run of {call.opened.started}. " if call.opened.resumed else ""
    rows = sum(task.rows for task in plan.tasks)
    return (
        f"{again}{call.pinned.model} version {call.pinned.version}: {len(plan.tasks)} files, {rows:,} rows to score; "
        f"{plan.unchanged} files scored before"
    )
