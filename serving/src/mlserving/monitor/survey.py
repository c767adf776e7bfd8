"""Once over the prediction log of a window, one version at a time, in batches: from rows to what was found.

What is held is one batch and the counts, whatever the number of rows. Versions are read apart because their columns differ: a feature that a
version's log does not have is not logged, and one that it has and that is empty has gone missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from mlserving.monitor import drift, judging
from mlserving.monitor.counting import ColumnCounter
from mlserving.monitor.findings import WHOLE, Findings, Group, Parity
from mlserving.monitor.labelling import LabellingCounter
from mlserving.monitor.quality import Counting, counter_of
from mlserving.monitor.reference import Reference
from mlserving.monitor.settings import MOST_SLICES
from mlserving.predictions.records import FEATURE, OUTPUT
from mlserving.statistics.columns import Column

_PLAIN = frozenset({"string", "large_string", "int64", "int32", "bool"})

Batches = Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
"""Rows with the columns that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLog:
    """What there is to read of one version in the window."""

    version: int
    columns: tuple[str, ...]
    """Of the log."""
    batches: Batches
    """The rows with their labels beside them; `track` always comes with them."""
    bare: Batches
    """The rows without, for looking at a column before it is counted."""
    reference: Reference


@dataclass(slots=True)
class _Counts:
    """What is counted of one track, or of one slice of it."""

    columns: dict[str, ColumnCounter]
    quality: Counting
    labelling: LabellingCounter = field(default_factory=LabellingCounter)
    rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        for name, counter in self.columns.items():
            counter.add(batch[name])
        self.quality.add(batch)
        self.labelling.add(batch)


@dataclass(slots=True)
class _Counted:
    """A version that was read."""

    log: VersionLog
    counts: Mapping[tuple[str, str], _Counts]
    """By track and slice."""


def survey(
    model: str,
    logs: Sequence[VersionLog],
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    by: Sequence[str] | None = None,
    parity: Sequence[Parity] = (),
    notes: Sequence[str] = (),
) -> Findings:
    """Read every version once (its slices' columns twice) and judge what was counted.

    Args:
        model: the model's name.
        logs: its versions with rows in the window.
        start: of the window.
        end: of the window.
        now: for ages.
        by: columns whose values are slices; each version's own settings say so where it is None.
        parity: what was found of golden requests.
        notes: what else a reader should know.
    """
    counted = [_count(log, log.reference.settings.slices if by is None else by) for log in logs]
    comparisons = max(1, sum(2 * len(counts.columns) for version in counted for counts in version.counts.values()))
    groups = [
        _group(version.log, track, piece, counts, comparisons=comparisons, now=now)
        for version in counted
        for (track, piece), counts in sorted(version.counts.items())
    ]
    return Findings(
        model=model,
        start=start,
        end=end,
        measured_at=now,
        groups=tuple(groups),
        parity=tuple(parity),
        alarms=tuple(judging.alarms(model, groups, parity)),
        notes=(*notes, *_notes(groups)),
        comparisons=comparisons,
        rows=sum(group.rows for group in groups if group.slice == WHOLE),
    )


def _count(log: VersionLog, by: Sequence[str]) -> _Counted:
    pieces = _pieces(log, by)
    compared = {piece: _compared(log, piece) for piece in (WHOLE, *(_named(*each) for each in pieces))}
    columns = {name for each in compared.values() for name in each}
    counts: dict[tuple[str, str], _Counts] = {}
    needed = sorted({*columns, *_read_besides(log), *(column for column, _ in pieces)} & {*log.columns})
    for batch in log.batches(needed):
        for track in pc.unique(batch["track"]).to_pylist():
            rows = batch.filter(pc.equal(batch["track"], track))
            _counts_of(counts, (track, WHOLE), compared[WHOLE], log).add(rows)
            for column, value in pieces:
                part = rows.filter(pc.equal(rows[column].cast(pa.string()), value))
                if part.num_rows:
                    piece = _named(column, value)
                    _counts_of(counts, (track, piece), compared[piece], log).add(part)
    return _Counted(log=log, counts=counts)


def _counts_of(counts: dict[tuple[str, str], _Counts], place: tuple[str, str], columns: Mapping[str, Column], log: VersionLog) -> _Counts:
    if place not in counts:
        counters = {name: ColumnCounter(reference=reference) for name, reference in columns.items()}
        counts[place] = _Counts(columns=counters, quality=counter_of(log.reference.settings))
    return counts[place]


def _named(column: str, value: str) -> str:
    return f"{column.removeprefix(FEATURE)}={value}"


def _compared(log: VersionLog, piece: str) -> dict[str, Column]:
    """By the log's name, the logged columns that training described and that are not expected to move.

    Of a slice: what training described of that very slice, and nothing where it did not, for a slice differs from the whole without drifting.
    """
    reference = log.reference
    if piece != WHOLE:
        features = {FEATURE + name: column for name, column in reference.slices.get(piece, {}).items() if name != piece.partition("=")[0]}
    else:
        features = {FEATURE + name: column for name, column in reference.features.items()}
        features |= {OUTPUT + name: column for name, column in reference.outputs.items()}
    ignored = reference.settings.ignore
    return {
        name: column
        for name, column in features.items()
        if name in log.columns and name.partition("/")[2] not in ignored and name not in ignored
    }


def _read_besides(log: VersionLog) -> tuple[str, ...]:
    outputs = log.reference.settings.outputs
    return "time", "track", "label", "confidence", OUTPUT + outputs.score, OUTPUT + outputs.value


def _pieces(log: VersionLog, by: Sequence[str]) -> list[tuple[str, str]]:
    """Column and value of each slice: the most frequent values with rows enough to be judged."""
    found = []
    for wanted in by:
        column = next((name for name in (FEATURE + wanted, wanted, OUTPUT + wanted) if name in log.columns), None)
        if column is None:
            continue
        seen: Counter[str] = Counter()
        for batch in log.bare([column]):
            if str(batch[column].type) not in _PLAIN:
                break
            for entry in pc.value_counts(batch[column].cast(pa.string()).drop_null()):
                seen[entry["values"].as_py()] += entry["counts"].as_py()
        found += [(column, value) for value, count in seen.most_common(MOST_SLICES) if count >= log.reference.settings.min_rows]
    return found


def _group(log: VersionLog, track: str, piece: str, counts: _Counts, *, comparisons: int, now: datetime) -> Group:
    reference, settings = log.reference, log.reference.settings
    features = {FEATURE + name for name in reference.features} if reference.has_statistics else set()
    logged = {name for name in log.columns if name.startswith(FEATURE)}
    columns = [
        drift.compare(
            name,
            counter.reference,
            counter.column(),
            settings=settings,
            false_alarm=settings.false_alarms / comparisons,
            new_values=counter.new_share,
            unreadable=counter.unreadable,
        )
        for name, counter in counts.columns.items()
    ]
    return Group(
        version=log.version,
        track=track,
        slice=piece,
        rows=counts.rows,
        has_statistics=reference.has_statistics,
        judged=counts.rows >= settings.min_rows,
        columns=tuple(columns),
        unlogged=tuple(sorted(name.removeprefix(FEATURE) for name in features - logged)),
        unknown=tuple(sorted(name.removeprefix(FEATURE) for name in logged - features)) if features else (),
        quality=counts.quality.quality(settings.confidence),
        labelling=counts.labelling.labelling(now),
        floor=settings.floor,
        label_delay_limit=settings.label_delay_hours * 3600 if settings.label_delay_hours is not None else None,
    )


def _notes(groups: Sequence[Group]) -> Iterator[str]:
    bare = sorted(
        {group.slice.partition("=")[0] for group in groups if group.slice != WHOLE and group.has_statistics and not group.columns}
    )
    if bare:
        yield (
            f"Slices by {', '.join(bare)} are told without drift: the version carries no statistics of their training rows. Name the feature in "
            "monitor.slices of project.yaml, and the next version does."
        )
    for group in (group for group in groups if group.slice == WHOLE):
        who = f"Version {group.version} ({group.track})"
        if not group.has_statistics:
            yield f"{who} carries no statistics of its training: drift is not measured. A version that `millrace run` publishes carries them."
        if group.unknown:
            yield f"{who}: the log has features that training did not describe: {', '.join(group.unknown)}."
        unreadable = [f"{column.column} ({column.unreadable})" for column in group.columns if column.unreadable]
        if unreadable:
            yield f"{who}: the log has other types than training had, which are not compared: {', '.join(unreadable)}."
        if group.labelling.only_reviewed:
            yield (
                f"{who}: all labels come from the review queue, which picks doubtful answers first. Accuracy as labelled is not that of all "
                "answers; the weighted figure corrects for how sure the model was, and for nothing else."
            )
        if not group.judged:
            yield f"{who}: {group.rows:,} rows are too few to alarm."
