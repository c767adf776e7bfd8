"""Cases for reviewers, written once for each run: `_cases/<run>.parquet`, and a copy as `cases.parquet` for whoever fetches the last.

What earlier runs delivered is read from their own files, so there is no second list that could disagree with them: a run that is killed
before its cases are there has delivered nothing, and after that it has delivered all.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.batch import columns as names
from mlpipelines.batch.output import Output, written_whole
from mlpipelines.batch.ranking import CANDIDATES, Rule, compact, period_name, period_numbers, select
from mlpipelines.batch.scoring import open_parquet
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.ingestion.canonical import Repairs, canonical_array
from mlpipelines.project import Project

_AT_ONCE = 65_536
_COMPACT_FROM = 1_000_000
_HEAD = pa.schema(
    [
        pa.field("rank", pa.int32()),
        pa.field("score", pa.float64()),
        pa.field("period", pa.string()),
        pa.field("case_key", pa.string()),
        pa.field("input_file", pa.string()),
    ]
)
"""What a case has before the columns of the output file it is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Earlier:
    """What was delivered before this run."""

    people: set[str]
    used: Counter[str]


def deliver(rule: Rule, project: Project, output: Output, run: str, scored: Mapping[str, Path]) -> int:
    """Rank the rows of a run's output files and write its cases, unless they are there already. Returns how many there are.

    Args:
        rule: how many of whom.
        project: its time is where days come from; a row without a time belongs to the day of the run.
        output: the folder.
        run: the run's id.
        scored: input file's name → output file.

    Raises:
        DataRejected: the times cannot be read.
        ConfigError: files carry a column along in types that do not go together.
    """
    target = output.delivery(run)
    if not target.is_file():
        files = sorted(scored.items())
        candidates = _candidates(rule, project, [path for _, path in files])
        earlier = _earlier(output)
        periods = {period: period_name(rule.per, period) for period in pc.unique(candidates["period"]).to_pylist()}
        used = Counter({period: earlier.used[name] for period, name in periods.items() if rule.per != "run"})
        people = earlier.people if rule.once_per is not None else set()
        _write(target, select(candidates, rule, people, used), periods, files)
    return put_in_sight(target, output.cases)


def put_in_sight(target: Path, place: Path) -> int:
    """Copy a run's file to where people look for that of the last run. Returns how many rows it has."""
    with open_parquet(target) as file:
        count = int(file.metadata.num_rows)
    fresh = place.with_name(f".{uuid.uuid4().hex}.parquet")
    shutil.copyfile(target, fresh)
    fresh.replace(place)
    return count


def refuse_case_names(keep: Iterable[str]) -> None:
    """Refuse a carried column that would stand for two things in the cases.

    Raises:
        ConfigError: naming it.
    """
    for name in keep:
        if name in _HEAD.names:
            raise ConfigError(f"--keep {name}: cases have a column {name!r} of their own. Rename it in the input, or leave --rank-by out.")


def _candidates(rule: Rule, project: Project, files: list[Path]) -> pa.Table:
    found = pa.table({field.name: pa.array([], field.type) for field in CANDIDATES}, schema=CANDIDATES)
    for number, file in enumerate(files):
        for batch in _batches(rule, project, file):
            found = pa.concat_tables([found, _slim(rule, project, batch, number, file)])
            if len(found) > _COMPACT_FROM:
                found = compact(found, rule)
    return found


def _batches(rule: Rule, project: Project, path: Path) -> Iterator[pa.RecordBatch]:
    wanted = [names.ID, names.ROW, names.TIME, names.OUTPUT + rule.output.removeprefix(names.OUTPUT)]
    wanted += [name for name in (rule.once_per, project.time if rule.per != "run" else None) if name is not None]
    with open_parquet(path) as file:
        yield from file.iter_batches(batch_size=_AT_ONCE, columns=list(dict.fromkeys(wanted)))


def _slim(rule: Rule, project: Project, batch: pa.RecordBatch, number: int, file: Path) -> pa.Table:
    once = pa.nulls(batch.num_rows, pa.string())
    if rule.once_per is not None:
        once = canonical_array(batch.column(rule.once_per), "string", Repairs())
    now = pc.floor(pc.divide(batch.column(names.TIME).cast(pa.int64()), 1_000_000)).cast(pa.int64())
    try:
        when = now if rule.per == "run" else pc.coalesce(canonical_array(batch.column(project.time), "timestamp", Repairs()), now)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataRejected(
            f"{file}: {project.time!r} cannot be read as a time, so its rows belong to no {rule.per}: {error}. Type --per run."
        ) from error
    return pa.table(
        {
            "period": pa.array(period_numbers(rule.per, np.asarray(when, dtype=np.int64))),
            "score": batch.column(names.OUTPUT + rule.output.removeprefix(names.OUTPUT)).cast(pa.float64()),
            "id": batch.column(names.ID),
            "file": pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows),
            "row": batch.column(names.ROW),
            "once": once,
        },
        schema=CANDIDATES,
    )


def _earlier(output: Output) -> _Earlier:
    people: set[str] = set()
    used: Counter[str] = Counter()
    for path in sorted(output.deliveries.glob("[!.]*.parquet")):
        with open_parquet(path) as file:
            table = file.read(columns=["case_key", "period"])
        people.update(key for key in table["case_key"].to_pylist() if key is not None)
        used.update(table["period"].to_pylist())
    return _Earlier(people=people, used=used)


def _write(target: Path, chosen: pa.Table, periods: Mapping[int, str], files: list[tuple[str, Path]]) -> None:
    """The chosen rows with all columns of their output files, in the order in which they are looked at."""
    tables = []
    for number, (name, path) in enumerate(files):
        wanted = chosen.filter(pc.equal(chosen["file"], number))
        rows = _rows_of(path, wanted["row"].combine_chunks())
        place = pc.index_in(rows[names.ROW], value_set=wanted["row"].combine_chunks())
        mine = wanted.take(place)
        head = {
            "rank": mine["rank"],
            "score": mine["score"],
            "period": pa.array([periods[period] for period in mine["period"].to_pylist()], pa.string()),
            "case_key": mine["once"],
            "input_file": pa.array([name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")] * len(mine), pa.string()),
        }
        tables.append(pa.table({**head, **{column: rows[column] for column in rows.column_names}}))
    try:
        cases = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ConfigError(
            f"The input files carry a column along in types that do not go together: {error}. Leave it out of --keep, or rank them apart."
        ) from error
    cases = cases.sort_by([("period", "ascending"), ("rank", "ascending")])
    with written_whole(target, cases.schema) as writer:
        writer.write_table(cases)


def _rows_of(path: Path, rows: pa.Array) -> pa.Table:
    with open_parquet(path) as file:
        found = [batch.filter(pc.is_in(batch.column(names.ROW), value_set=rows)) for batch in file.iter_batches(batch_size=_AT_ONCE)]
        return pa.Table.from_batches(found, schema=file.schema_arrow)
